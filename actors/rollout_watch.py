"""The watchdog's view of rollouts: whether one of them blocks the event loop that serves all of them.

Invariant: a rollout that awaits blocks nothing, however long it takes.
"""

from __future__ import annotations

import math

from broker.station import Station
from broker.watchdog import Call


class RolloutWatch:
    """Tells the watchdog that the loop has not run since its last report (`broker.watchdog.Watched`)."""

    leave_seconds = math.inf  # results that were paid for may still be recorded while the run is ending

    def __init__(self, station: Station) -> None:
        run = station.spec.run
        self._station = station
        prompts = run.get("prompts")
        self._name = run["actors"]["rollout"] if prompts is None else prompts["agent"]
        self.limit = math.inf if prompts is None else float(prompts["rollout_seconds"])

    def call(self) -> Call:
        """See `Watched`."""
        return Call(f"a rollout of {self._name}", self._station.reported_at, self.limit)

    def late(self, call: Call, seconds: float, stack: str) -> tuple[int, str]:
        """See `Watched`. A restart would fail in the same way, so the run ends."""
        return 2, (
            f"{stack}prompts.agent {self._name!r} (or the grader) has blocked its runner for {seconds:.0f} s, and"
            f" prompts.rollout_seconds is {call.limit:g}: it waits without `await`. Use `await`, or make it a plain"
            " function, which has a thread of its own"
        )
