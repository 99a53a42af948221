"""Credit for fragments, counted by sequence and not by tally.

A source numbers its fragments 1, 2, 3 … for one incarnation of the hub, and sends while
`waiting + sequence - settled < window`. The hub tells `settled`: the highest sequence that has left the learner's
queue.
Invariants: `settled` never falls and never passes what was sent; whatever is lost on the way, a Hello with
`sent_through` on the same socket opens the window again; every sequence ends as exactly one of used or lost.
"""

from __future__ import annotations

from collections import deque

STILL_AFTER = 1.0


class SendWindow:
    """The source's side, for one hub. `window` is in fragments."""

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError("a window holds at least one fragment")
        self.window = window
        self.hub: str | None = None
        self.sequence = 0
        self.settled = 0
        self._still_since: float | None = None

    @property
    def unsettled(self) -> int:
        """Fragments sent and not known to have left the learner's queue."""
        return self.sequence - self.settled

    def open(self, waiting: int = 0) -> bool:
        """Whether one more may be made, with `waiting` made and not yet sent."""
        return self.hub is not None and waiting + self.unsettled < self.window

    def take(self) -> int:
        """The sequence of the fragment that leaves now."""
        self.sequence += 1
        return self.sequence

    def on_hub(self, hub: str) -> int:
        """A hub incarnation was heard; a new one starts at 1. Returns the fragments that the old one never settled."""
        if hub == self.hub:
            return 0
        lost = self.unsettled
        self.hub, self.sequence, self.settled, self._still_since = hub, 0, 0, None
        return lost

    def on_settled(self, hub: str, settled: int) -> bool:
        """The hub's counter. True if it opened anything; what a wrong or old hub says is ignored."""
        if hub != self.hub or not self.settled < settled <= self.sequence:
            return False
        self.settled = settled
        self._still_since = None
        return True

    def stands_still(self, now: float) -> bool:
        """Whether nothing under way was settled for a second: once a second, it is time for a Hello.

        Not only when the window is shut: what was lost on the way is waited for, however much more may be sent.
        """
        if self.hub is None or not self.unsettled:
            self._still_since = None
            return False
        if self._still_since is None:
            self._still_since = now
            return False
        if now - self._still_since < STILL_AFTER:
            return False
        self._still_since = now
        return True


class Settlement:
    """The hub's side, for one incarnation of one source."""

    def __init__(self) -> None:
        self.received = 0
        self.settled = 0
        self.lost = 0
        self.replayed = 0
        self._queue: deque[int] = deque()
        self._gone_through = 0

    def arrive(self, sequence: int) -> bool:
        """A fragment arrived. False if it was seen before. A gap is counted as lost at once: a socket keeps order."""
        if sequence <= self.received:
            self.replayed += 1
            return False
        self.lost += sequence - self.received - 1
        self.received = sequence
        self._queue.append(sequence)
        return True

    def leave(self, sequence: int) -> None:
        """All of the queue up to `sequence` has left it: used, put in replay, dropped stale or refused."""
        while self._queue and self._queue[0] <= sequence:
            self.settled = self._queue.popleft()
        self._settle_gone()

    def refuse(self, sequence: int) -> None:
        """The newest to arrive cannot be used: it leaves at once, as lost, and what is queued before it stays."""
        if self._queue and self._queue[-1] == sequence:
            self._queue.pop()
            self.lost += 1
        self._gone_through = max(self._gone_through, sequence)
        self._settle_gone()

    def sent_through(self, sequence: int) -> None:
        """The source's Hello, behind all that it sent: what is missing up to `sequence` will never come."""
        if sequence > self.received:
            self.lost += sequence - self.received
            self.received = sequence
        self._gone_through = max(self._gone_through, sequence)
        self._settle_gone()

    def _settle_gone(self) -> None:
        if not self._queue:
            self.settled = max(self.settled, self._gone_through)

    @property
    def queued(self) -> int:
        """Fragments of this source in the learner's queue."""
        return len(self._queue)
