"""How long an actor waits for a task: with a deadline, and in the end the run is told to stop and why.

Invariant: no actor of a run with a pool waits for ever. It is the pool that is empty, not one actor's share of it, so
that one actor's deadline speaks for all.
"""

from __future__ import annotations

import time

from actors.curriculum.workshop import Workshop
from broker.messages import MAX_TEXT
from broker.station import Station


class Patience:
    """Counts the seconds without a task, those in which this actor makes some itself aside."""

    def __init__(self, station: Station, workshop: Workshop) -> None:
        self._station, self._workshop = station, workshop
        self._since: float | None = None
        """Since when there is none (monotonic seconds)."""
        self._said = False

    def something(self) -> None:
        """There is work."""
        self._since = None

    def nothing(self) -> None:
        """There is none just now: past the deadline the run is told to stop, once."""
        now = time.monotonic()
        if self._since is None or not self._workshop.idle:
            self._since = now
            return
        seconds: float = self._station.spec.run["curriculum"]["wait_seconds"]
        if self._said or now - self._since < seconds:
            return
        self._said = True
        why = f" (the last generation work failed: {self._workshop.failed})" if self._workshop.failed else ""
        reason = f"{self._station.spec.role} got no task from the pool for curriculum.wait_seconds ({seconds:g}){why}"
        self._station.fact("stop_request", {"reason": reason[:MAX_TEXT], "failed": True})
