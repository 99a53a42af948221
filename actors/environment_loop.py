"""The loop of an actor that steps environments: act, step, send, and take up new versions between steps.

Invariant: one forward pass per policy and step over the whole vector; every transition is counted once, in facts; a
fragment carries the version that its first row acted with, so that its staleness is never understated; and no fragment
begins after the durable facts say that the run's limit of env steps was reached.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from actors.columns import Columns
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.vector import EnvironmentFailed, VectorEnvironment
from actors.policies.policy import Policy
from broker.delivery import shortened
from broker.policy_spoke import PolicySpoke
from broker.station import Station

PROGRESS_EVERY = 0.5


@dataclass
class Acting:
    """One policy at work in this actor."""

    name: str
    columns: Columns
    policy: Policy
    spoke: PolicySpoke
    version: tuple[int, int] = (0, -1)
    crc: int = 0
    began: tuple[tuple[int, int], int] = ((0, -1), 0)
    """Version and crc of the first row of the fragment in hand."""
    steps: int = 0
    """Agent steps since the last progress fact."""

    def take_up(self) -> None:
        """Apply the newest version, if there is a newer one."""
        newest = self.spoke.newest(self.version)
        if newest is not None:
            self.policy.load(newest.tree)
            self.version, self.crc = newest.version, newest.crc


@dataclass
class EnvironmentLoop:
    """Plays until the run stops. `agents` maps every agent to its policy."""

    station: Station
    environment: VectorEnvironment
    acting: list[Acting]
    agents: dict[str, str]
    actors: int = 1
    """Number of actors of the run, which share its limit of env steps."""
    env_steps: int = 0
    """Env steps since the last progress fact."""
    _progress_at: float = field(default_factory=time.monotonic)
    _flaw_reported: bool = False
    _rated: int = 0
    """Env steps since the last report."""
    _uncounted: deque[tuple[int, int]] = field(default_factory=deque)
    """(sequence, env steps) of progress facts that are not yet known to be durable."""

    def run(self) -> None:
        """Step until the station says stop. EnvironmentFailed after it was recorded as a fact."""
        station = self.station
        station.doing = "waiting for the first versions"
        for acting in self.acting:
            first = partial(acting.spoke.wait_for_version, 0.05)
            if not station.wait_for(acting.spoke.hub_name, "its first version", first):
                return
        station.doing = "acting"
        try:
            self.environment.reset()
            for acting in self.acting:
                acting.columns.observe(self.environment)
            self._play()
        except EnvironmentFailed as failure:
            station.fact(
                "environment_error",
                {
                    "traceback": shortened(failure.traceback),
                    "seed": failure.seed,
                    "step": failure.step,
                    "episode": failure.episode,
                    "environment": failure.environment,
                },
            )
            raise
        finally:
            self._progress()

    def _play(self) -> None:
        station, environment = self.station, self.environment
        actions: dict[str, Any] = {}
        tasked = environment if isinstance(environment, TaskedEnvironments) else None
        while True:
            if tasked is not None and not tasked.tend() and not station.wait_for("tracker", "a task", tasked.fed):
                return
            if self.acting[0].columns.t == 0 and not self._begin():
                return
            for acting in self.acting:
                acting.take_up()
                columns = acting.columns
                chosen, log_probabilities = acting.policy.act(*columns.seen())
                columns.act(chosen, log_probabilities)
                columns.split(chosen, actions)
            step = environment.step(actions)
            self.env_steps += step.env_steps
            self._rated += step.env_steps
            full = False
            for acting in self.acting:
                full = acting.columns.step(step)
                acting.steps += int(sum(np.count_nonzero(step.valid[agent]) for agent in acting.columns.agents))
            for episode in step.episodes:
                station.fact(
                    "episode",
                    {
                        "length": episode.length,
                        "returns": episode.returns,
                        "policies": self.agents,
                        "lengths": episode.lengths,
                        "seconds": round(episode.seconds, 4),
                    },
                )
            if full:
                self._send()
            if time.monotonic() - self._progress_at >= PROGRESS_EVERY:
                self._progress()
                self._report()
            if station.tracker.phase != "running" and station.stopping:
                return

    def _begin(self) -> bool:
        """Wait for credit, if anyone who lacks it is alive; False when the run is ending."""
        for acting in self.acting:
            spoke = acting.spoke

            def may_go(spoke: PolicySpoke = spoke) -> bool:
                if spoke.open_for_more:
                    return True
                if spoke.hub_life == "alive":
                    return spoke.wait_for_credit(0.02)
                # Its learner is silent: the others must not wait for it. If all are silent there is nobody to play for.
                if any(other.spoke.hub_life == "alive" for other in self.acting):
                    return True
                return spoke.wait_for_credit(0.02)

            if not self.station.wait_for(spoke.hub_name, "credit", may_go):
                return False
        if self.station.stopping or not self._within_limit():
            return False
        for acting in self.acting:
            acting.take_up()
            acting.began = (acting.version, acting.crc)
        return True

    def _within_limit(self) -> bool:
        """Tell whether the next fragment may begin; False when the run is ending.

        Near the run's limit of env steps this waits until all steps of this actor are counted and some are left: so
        each actor exceeds the limit by at most one fragment.
        """
        tracker = self.station.tracker
        if tracker.env_steps_left is None:
            return True
        self._progress()
        fragment = self.acting[0].columns.steps * self.environment.count
        if self._left() > 2 * self.actors * (fragment + sum(steps for _, steps in self._uncounted)):
            return True
        return self.station.wait_for("tracker", "its env steps to be counted", self._counted)

    def _left(self) -> int:
        """Return what is left of the limit, and remove progress that is durable from `_uncounted`."""
        tracker, uncounted = self.station.tracker, self._uncounted
        durable, left = tracker.durable, tracker.env_steps_left
        while uncounted and uncounted[0][0] <= durable:
            uncounted.popleft()
        return left or 0

    def _counted(self) -> bool:
        return self._left() > 0 and not self._uncounted

    def _send(self) -> None:
        if not self._flaw_reported:
            self._report_flaw()
        for acting in self.acting:
            fragment, steps = acting.columns.fragment()
            version, crc = acting.began
            acting.spoke.send_fragment(fragment, version=version, crc=crc, steps=steps)

    def _report_flaw(self) -> None:
        """Record, once, an observation that is not finite: only this loop knows which environment it came from."""
        for acting in self.acting:
            flaw = acting.columns.flaw()
            if flaw is None:
                continue
            row, column, leaf = flaw
            agent, copy = acting.columns.whose(column)
            seed, rows = self.environment.place(copy)
            what = f"observation {leaf!r}" if leaf else "observation"
            text = f"the {what} of {agent} is not finite in environment {copy}"
            about = {"seed": seed, "step": rows - acting.columns.steps + row, "environment": copy}
            self.station.fact("environment_error", {"traceback": text, **about})
            self._flaw_reported = True
            return

    def _progress(self) -> None:
        """Record the steps since the last progress fact as a new one."""
        dropped = {acting.name: acting.spoke.take_dropped() for acting in self.acting}
        if self.env_steps or any(dropped.values()):
            sequence = self.station.fact(
                "progress",
                {
                    "env_steps": self.env_steps,
                    "agent_steps": {acting.name: acting.steps for acting in self.acting},
                    "dropped": {name: count for name, count in dropped.items() if count},
                },
            )
            if self.station.tracker.env_steps_left is not None:
                self._uncounted.append((sequence, self.env_steps))
        for acting in self.acting:
            acting.steps = 0
        self.env_steps = 0

    def _report(self) -> None:
        now = time.monotonic()
        seconds, self._progress_at = now - self._progress_at, now
        self.station.rates["env_steps_per_second"] = round(self._rated / max(seconds, 1e-6), 1)
        self._rated = 0
        for acting in self.acting:
            self.station.rates[f"credit.{acting.name}"[:64]] = acting.spoke.credit
        self.station.report()
