"""What the watchdog of an actor sees of rollouts: whether one of them holds up the event loop that serves all.

Invariant: a rollout that is waited for (`await`) holds nothing up, however long it takes.
"""

from __future__ import annotations

import math

from broker.station import Station
from broker.watchdog import Call


class RolloutWatch:
    """Tells the watchdog that the loop has not come round since its last report (`broker.watchdog.Watched`)."""

    leave_seconds = math.inf  # what a rollout has paid for may still be recorded while the run is ending

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
        """See `Watched`. Another try would end alike: the run ends."""
        return 2, (
            f"{stack}prompts.agent {self._name!r} (or the grader) has held up its runner for {seconds:.0f} s, and"
            f" prompts.rollout_seconds is {call.limit:g}: it waits without `await`. Await what it waits for, or make it"
            " a plain function, which has a thread of its own"
        )
