"""An actor: makes its environments and policies, finds its learners by name, and plays until the run stops.

Invariant: everything that it acts with was published by a learner; nothing that it makes stays in it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from actors.columns import Columns
from actors.curriculum.desk import Desk
from actors.curriculum.scoring import scorer
from actors.curriculum.settings import DrawingSettings
from actors.curriculum.tasked import TaskedEnvironments
from actors.curriculum.workshop import Workshop
from actors.environment_loop import Acting, EnvironmentLoop
from actors.environments.calls import EnvironmentWatch
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import VectorEnvironment
from actors.policies.policy import Policy, build_network
from actors.rollout import Rollout, RolloutContext, build_rollout
from actors.rollout_watch import RolloutWatch
from actors.seeds import actor_seed, policy_seed
from actors.services import Services
from actors.spaces import ActionSpec, ObservationSpec
from actors.task_loop import TaskLoop
from actors.worker_ids import WorkerIds
from broker.policy_spoke import PolicySpoke
from broker.station import Spec, Station


def main(plain: Mapping[str, Any], ending: threading.Event) -> None:
    """Run one actor to its end. What it raises is its last word."""
    import torch

    torch.set_num_threads(1)
    spec = Spec.of(plain)
    station = Station.open(spec, ending)
    reason = "failed"
    try:
        spokes = connect(station)
        if spec.run["actors"]["rollout"] == "environments":
            _play(station, spokes)
        else:
            _work(station, spokes)
        station.doing = "leaving"
        for spoke in spokes.values():
            spoke.farewell("the run is ending", 0.2)  # a learner that is gone does not need it
        reason = "the run is ending"
    finally:
        flushed = station.close(reason)
    station.leave(flushed)


def connect(station: Station) -> dict[str, PolicySpoke]:
    """A spoke to every policy's learner, found in the directory; a learner that moves is followed."""
    run = station.spec.run
    policies: dict[str, str] = {name: f"learner-{name}" for name in station.spec.plan["policies"]}
    spokes: dict[str, PolicySpoke] = {}
    for name, hub in policies.items():
        station.doing = f"looking for {hub}"
        if not station.wait_for(hub, "its address", partial(_listed, station, hub)):
            return spokes
        spokes[name] = PolicySpoke(
            station.reactor,
            station.identity,
            hub,
            station.tracker.directory[hub].address,
            window=run["learner"]["window"],
            policy=name,
            max_fragment=station.spec.plan["policies"][name]["max_fragment"],
        )

    def follow() -> None:
        for spoke in spokes.values():
            entry = station.tracker.directory.get(spoke.hub_name)
            if entry is not None:
                spoke.redirect(entry.address)

    station.tracker.on_news = follow
    follow()
    return spokes


def _listed(station: Station, hub: str) -> bool:
    return hub in station.tracker.directory


def _play(station: Station, spokes: dict[str, PolicySpoke]) -> None:
    spec, run = station.spec, station.spec.run
    seed = actor_seed(spec.seed, spec.index, spec.attempt)
    settings = EnvironmentSettings.of(run)
    station.doing = f"making {settings.id}"
    station.watched = EnvironmentWatch(run["environment"], station.tracker)
    workshop = Workshop(station, settings.model_dump(mode="json"))
    environment = _environment(station, settings, seed, workshop)
    acting = []
    for name, policy in policies_of(spec).items():
        if name not in spokes:
            return
        agents, steps = tuple(spec.plan["policies"][name]["agents"]), run["learner"]["fragment_steps"]
        columns = Columns(agents, policy.observation, policy.action, environment.count, steps)
        acting.append(Acting(name, columns, policy, spokes[name]))
    loop = EnvironmentLoop(station, environment, acting, spec.plan["agents"], run["actors"]["processes"])
    try:
        loop.run()
    finally:
        workshop.close()
        environment.close()


def _environment(station: Station, settings: EnvironmentSettings, seed: int, workshop: Workshop) -> VectorEnvironment:
    run = station.spec.run
    count: int = run["actors"]["environments"]
    workers = WorkerIds.of_actor(run, station.spec.index)
    if "curriculum" not in run:
        return make(settings, count, seed, workers)
    score = scorer(DrawingSettings.read(run["curriculum"]))
    return TaskedEnvironments(settings, count, seed, Desk(station, workshop, count), score, workers=workers)


def _work(station: Station, spokes: dict[str, PolicySpoke]) -> None:
    spec, actors = station.spec, station.spec.run["actors"]
    rollout = rollout_of(spec, Services(station))
    plain = EnvironmentSettings.of(spec.run).model_dump(mode="json") if spec.run.get("environment") else None
    workshop = Workshop(station, plain) if "curriculum" in spec.run else None
    concurrency = max(actors["concurrency"], getattr(rollout, "at_once", 1))
    station.watched = RolloutWatch(station)
    try:
        asyncio.run(_until_stopped(TaskLoop(station, rollout, spokes, concurrency, workshop)))
    finally:
        if workshop is not None:
            workshop.close()


async def _until_stopped(loop: TaskLoop) -> None:
    try:
        await loop.run()
    finally:
        close = getattr(loop.rollout, "close", None)
        if close is not None:
            await close()


def policies_of(spec: Spec) -> dict[str, Policy]:
    """What this actor acts with, by name: until a learner's version is loaded, networks as they were made.

    Each draws random numbers of its own: policies that drew alike would explore alike.
    """
    seed = actor_seed(spec.seed, spec.index, spec.attempt)
    return {
        name: Policy(
            network,
            ObservationSpec.from_plain(spec.plan["policies"][name]["observation"]),
            ActionSpec.from_plain(spec.plan["policies"][name]["action"]),
            seed=policy_seed(seed, place),
        )
        for place, (name, network) in enumerate(networks_of(spec).items())
    }


def networks_of(spec: Spec) -> dict[str, nn.Module]:
    """Policy -> its network. RequestError if there is none, or it does not take its settings."""
    run, described = spec.run, spec.plan["policies"]
    normalise = tuple(run["environment"].get("normalise", ()))
    return {
        name: build_network(
            run["policies"]["network"],
            ObservationSpec.from_plain(policy["observation"]),
            ActionSpec.from_plain(policy["action"]),
            run["policies"]["settings"],
            normalise,
        )
        for name, policy in described.items()
    }


def rollout_of(spec: Spec, services: Services) -> Rollout:
    """The rollout of this actor. RequestError if there is none, or it lacks `run`."""
    actors = spec.run["actors"]
    context = RolloutContext(spec.role, spec.index, spec.seed, actors["settings"], services, spec.run)
    return build_rollout(actors["rollout"], context)
