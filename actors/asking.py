"""An actor's open request for tasks: one at a time, repeated until it is answered.

Invariant: a request is repeated under its own number, so that an answer lost on the way leases or draws nothing twice;
an answer to any other number (one that was repeated and answered already) is not the actor's. The tracker answers when
there is work, so the request waits there: it is said again as soon as there is more to ask for.
"""

from __future__ import annotations

from broker import messages as m
from broker.tracker_spoke import TrackerSpoke

REPEAT_AFTER = 1.0
MOST = 1024
"""Most tasks of one request."""


class Asking:
    """What was asked of the tracker and is not answered yet."""

    def __init__(self, tracker: TrackerSpoke) -> None:
        self._tracker = tracker
        self._number: int | None = None
        self._count, self._offers, self._said = 0, False, 0.0

    @property
    def open(self) -> bool:
        """Whether an answer is awaited."""
        return self._number is not None

    def ask(self, count: int, now: float, *, offers: bool) -> None:
        """Ask for up to `count` tasks; `offers`: this actor could make new ones just now."""
        self._count, self._offers, self._said = min(count, MOST), offers, now
        self._number = self._tracker.request_tasks(self._count, generate=offers)

    def repeat(self, count: int, now: float, *, offers: bool) -> None:
        """Say the open request again, if it has been open for long or would ask for more now."""
        count = min(MOST, max(count, self._count))
        more = count > self._count or (offers and not self._offers)
        if self._number is not None and (more or now - self._said > REPEAT_AFTER):
            self._count, self._offers, self._said = count, offers, now
            self._tracker.repeat_request(self._number, self._count, generate=self._offers)

    def answered(self, assignment: m.Assignment) -> bool:
        """Whether this answers the open request, which is closed by it."""
        if assignment.request != self._number:
            return False
        self._number = None
        return True
