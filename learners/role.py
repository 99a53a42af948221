"""A learner: binds its hub, takes up its newest checkpoint, learns, and offers checkpoints.

Invariant: it holds no file; what is to outlive it goes to the tracker as a fact or a checkpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.spaces import ActionSpec, ObservationSpec
from broker import messages as m
from broker.arrays import Tree, from_bytes, to_bytes
from broker.errors import DamagedCheckpoint, RequestError, RunError
from broker.hub import Hub
from broker.layouts import described
from broker.liveness import Liveness
from broker.policy_spoke import BATCH
from broker.reactor import Reactor
from broker.station import Spec, Station
from learners.algorithm import Algorithm, AlgorithmContext, build_algorithm
from learners.loop import LearnerLoop

LAST_CHECKPOINT = 4.0
"""Seconds in which the tracker stores the last checkpoint of a run, unless its disk is full or it is gone."""


def main(plain: Mapping[str, Any], ending: threading.Event) -> None:
    """Run one learner to its end. What it raises is its last word."""
    import torch

    torch.set_num_threads(1)
    asyncio.run(learn(Spec.of(plain), ending))


async def learn(spec: Spec, ending: threading.Event) -> None:
    """The whole life of a learner."""
    assert spec.policy is not None
    identity = spec.identity()
    reactor = Reactor(f"{spec.role}-io")
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(arrived.set)

    hub = Hub(
        reactor,
        identity,
        _address(spec),
        insecure=spec.run["tracker"]["insecure"],
        max_payload=max(BATCH, spec.plan["policies"][spec.policy]["max_fragment"]),
        liveness=Liveness(),
        on_delivery=wake,
    )
    algorithm = algorithm_of(spec)
    station = Station.open(spec, ending, serves=hub.address, identity=identity, reactor=reactor)
    reason = "failed"
    try:
        station.doing = "asking where to resume"
        point, content = station.tracker.restore(spec.policy)
        learner = LearnerLoop(
            station,
            hub,
            algorithm,
            spec.policy,
            point.life,
            0,
            spec.run["learner"]["max_staleness"],
            spec.run["learner"]["ending_seconds"],
            max_waiting=spec.run["learner"]["window"] * spec.run["actors"]["processes"],
        )
        checkpoints = Checkpoints(station, learner, spec.run["learner"]["checkpoint_seconds"])
        learner.checkpoint, learner.prepare = checkpoints.offer_if_due, checkpoints.hold
        checkpoints.take_up(point, content)
        await learner.run(arrived)
        hub.set_phase("stopping", station.tracker.reason)
        learner.tell_counts()
        learner.tell_facts()
        station.doing = "the last checkpoint"
        checkpoints.keep_last()
        reason = "the run is ending"
    finally:
        flushed = station.close(reason)
    station.leave(flushed)


class Checkpoints:
    """When a checkpoint is offered, and what is in it."""

    def __init__(self, station: Station, learner: LearnerLoop, every: float) -> None:
        self._station, self._learner, self._every = station, learner, every
        self._last = time.monotonic()

    def offer_if_due(self) -> None:
        """Offer one if the interval has passed and the one before is durable."""
        if time.monotonic() - self._last >= self._every and not self._station.tracker.offering:
            self.offer()

    def offer(self) -> None:
        """Offer a snapshot of now."""
        self._last = time.monotonic()
        self._station.tracker.offer_checkpoint(self._learner.policy, self._learner.version, self._content())

    def hold(self) -> None:
        """Have the spoke offer the current snapshot once the run is ending: the next update may outlast the run."""
        self._station.tracker.hold_checkpoint(self._learner.policy, self._learner.version, self._content())

    def keep_last(self, timeout: float = LAST_CHECKPOINT) -> None:
        """Have the last version stored, unless this life has neither updates nor experience.

        After an update that was cut short the algorithm's state is not the published version; the snapshot that was
        held before the update is already being stored then.

        RunError if the checkpoint is refused, or makes no progress for `timeout` seconds.
        """
        learner, tracker = self._learner, self._station.tracker
        if not (learner.updates or learner.agent_steps):
            return
        if not learner.cut_short:
            self.offer()
        if not tracker.wait_durable(timeout):
            life, number = learner.version
            raise RunError(
                f"the last version of {learner.policy!r}, {life}.{number}, was not stored ({tracker.offer_state}): "
                "look at the alarms, the run directory and its disk; earlier checkpoints are unchanged"
            )

    def _content(self) -> bytes:
        learner = self._learner
        return to_bytes(
            {
                "policy": learner.policy,
                "version": list(learner.version),
                "updates": learner.updates,
                "agent_steps": learner.agent_steps,
                **kept(learner.algorithm),
            }
        )

    def take_up(self, point: m.RestorePoint, content: bytes | None) -> None:
        """Go on from a checkpoint, if there is one: the next life begins at its number + 1.

        DamagedCheckpoint if what came is not what was promised, or is another policy's.
        """
        for skipped in point.skipped:
            print(f"passed over a damaged checkpoint: {skipped}")
        learner = self._learner
        taken: tuple[int, int] | None = None
        if content is not None:
            if hashlib.sha256(content).hexdigest() != point.sha256:
                raise DamagedCheckpoint(f"the checkpoint of {learner.policy!r} came with a wrong sha256")
            tree = from_bytes(content)
            if tree["policy"] != learner.policy:
                raise DamagedCheckpoint(f"this checkpoint is of {tree['policy']!r}, not of {learner.policy!r}")
            try:
                learner.algorithm.restore(tree["algorithm"])
            except RunError as error:  # a restart would fail in the same way
                text = f"the checkpoint of {learner.policy!r} does not fit its network and algorithm: {error}"
                raise RequestError(f"{text}; restore the code that made it, or start a new run") from error
            learner.updates, learner.agent_steps = tree["updates"], tree["agent_steps"]
            life, number = tree["version"]
            taken = (life, number)
            learner.number = number + 1
        if point.life > 1:
            lost = updates_lost(point.life, point.seen, taken)
            body = {"policy": learner.policy, "from": taken, "life": learner.life, "updates_lost": lost}
            self._station.fact("resumed", body)


def kept(algorithm: Algorithm) -> dict[str, Tree]:
    """What a checkpoint has of an algorithm. RequestError if that cannot be kept: nothing that it learned would be."""
    found = {"parameters": algorithm.parameters(), "algorithm": algorithm.snapshot()}
    for part, method in zip(found, ("parameters", "snapshot"), strict=True):
        which = f"{type(algorithm).__name__}.{method}()"
        if found[part] is None:
            raise RequestError(f"{which} returned nothing: give a tree of arrays and plain values")
        try:
            described(found[part])
        except (TypeError, ValueError) as error:
            raise RequestError(f"{which} cannot be kept: {error} (of a tensor: `.cpu().numpy()`)") from error
    return found


def updates_lost(life: int, seen: tuple[int, int] | None, taken: tuple[int, int] | None) -> int:
    """Updates of the life before `life` that are not in the checkpoint `taken`; `seen` is the newest in the ledger.

    A life that took up a checkpoint of number n began at n + 1 without an update, one without a checkpoint at 0.
    """
    if seen is None or seen[0] != life - 1:
        return 0  # that life made no update; what was lost before it was told when it began
    if taken is None:
        return seen[1]
    return max(0, seen[1] - taken[1] - (0 if taken[0] == seen[0] else 1))


def _address(spec: Spec) -> str:
    """A fresh address for each incarnation: a changed endpoint means a new socket, and no frame of the old one."""
    if spec.tracker.startswith("ipc://"):
        return f"ipc://{Path(spec.sockets) / f'l{spec.index}-{secrets.token_hex(4)}'}"
    host = spec.tracker.removeprefix("tcp://").rsplit(":", 1)[0]
    return f"tcp://{host}:0"


def algorithm_of(spec: Spec) -> Algorithm:
    """The algorithm of this learner. RequestError if there is none, or it does not take its settings."""
    return build_algorithm(spec.run["learner"]["algorithm"], context_of(spec))


def context_of(spec: Spec) -> AlgorithmContext:
    """What the algorithm is told: its policy, its spaces, its settings, the size of the run."""
    run, described = spec.run, spec.plan["policies"][spec.policy]
    observation, action = described.get("observation"), described.get("action")
    return AlgorithmContext(
        policy=str(spec.policy),
        observation=ObservationSpec.from_plain(observation) if observation else None,
        action=ActionSpec.from_plain(action) if action else None,
        network=run["policies"]["network"],
        network_settings=run["policies"]["settings"],
        settings=run["learner"]["settings"],
        normalise=tuple((run.get("environment") or {}).get("normalise", ())),
        device=device_of(run["learner"]["device"]),
        seed=spec.seed * 7919 + spec.index,
        actors=run["actors"]["processes"],
        environments=run["actors"]["environments"],
        agents=max(1, len(described.get("agents", ()))),
        fragment_steps=run["learner"]["fragment_steps"],
        run=run,
    )


def device_of(asked: str) -> str:
    """Where it learns: "auto" is cuda where there is one, else cpu. RequestError for one that is not there."""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = asked.partition(":")
    there = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if there[kind] <= int(number or 0):
        raise RequestError(f"learner.device {asked!r}: there is no such device here; give 'auto' or 'cpu'")
    return asked
