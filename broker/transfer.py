"""A checkpoint in chunks, with credit: the sender's side of an offer.

Invariant: at most `AHEAD` chunks are on the way that the receiver has not counted; after a second without progress the
sender goes back to what was counted, so that any chunk may be lost.
"""

from __future__ import annotations

import hashlib

CHUNK = 1024 * 1024
AHEAD = 8
STANDSTILL = 1.0


def chunks_of(size: int) -> int:
    """How many chunks `size` bytes make."""
    return -(-size // CHUNK)


class Upload:
    """One offer: its content is kept until the receiver says that it is durable."""

    def __init__(self, offer: int, content: bytes, now: float) -> None:
        self.offer = offer
        self.content = memoryview(content)
        self.size = len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.state = "none"
        self._counted = 0
        self._sent = 0
        self._progress = now
        self.moved = now
        """When the receiver last reported progress."""
        self._offered = -STANDSTILL

    @property
    def done(self) -> bool:
        """Durable, or refused for good."""
        return self.state in ("durable", "refused")

    def must_offer(self, now: float) -> bool:
        """Whether to say the offer (again): once a second until the receiver fetches."""
        if self.state != "none" or now - self._offered < STANDSTILL:
            return False
        self._offered = now
        return True

    def next_chunk(self) -> tuple[int, memoryview] | None:
        """The next chunk to send (index, bytes), or None while the credit is used up."""
        if self.state != "fetching" or self._sent >= min(chunks_of(self.size), self._counted + AHEAD):
            return None
        index = self._sent
        self._sent += 1
        return index, self.content[index * CHUNK : (index + 1) * CHUNK]

    def on_counters(self, offer: int, chunks: int, state: str, now: float) -> None:
        """The receiver's counters. If it knows another offer (it was restarted), this one begins again."""
        if self.done:
            return
        if offer != self.offer:
            if self.state == "fetching":
                self.state, self._counted, self._sent = "none", 0, 0
            return
        if state in ("durable", "refused"):
            self.state = state
        elif state == "fetching":
            if self.state == "none":
                self.state, self._progress, self.moved = "fetching", now, now
            if chunks != self._counted:
                self._sent = max(self._sent, chunks) if chunks > self._counted else chunks
                self._counted, self._progress, self.moved = chunks, now, now

    def stalled(self, now: float) -> bool:
        """Whether nothing was counted for a second; goes back to what was."""
        if self.state != "fetching" or self._sent <= self._counted or now - self._progress < STANDSTILL:
            return False
        self._sent, self._progress = self._counted, now
        return True
