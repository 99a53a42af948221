"""What is counted of the pool: counters that only grow, statistics of each label, and what each epoch counted.

Invariant: no counter is ever read and reset. An epoch's figures are differences between two epoch facts, so that every
reader sees the same, and so does every rebuild.
"""

from __future__ import annotations

from collections import deque
from dataclasses import astuple, dataclass
from typing import Any

KEPT = 200
"""Closed epochs that are kept."""
LABELS = 4096
"""Most different labels of a run: what is shown of labels then costs a bounded time."""


@dataclass(slots=True)
class LabelTally:
    """All that is counted of one label, over every process and every task that ever had it."""

    tasks: int = 0
    """In the pool now."""
    minted: int = 0
    draws: int = 0
    returned: int = 0
    outcomes: int = 0
    total: float = 0.0
    """Sum of scores."""
    transient: int = 0
    permanent: int = 0
    evicted: int = 0
    levels: int = 0
    """Sum of the levels (`Entry.level`) of its tasks in the pool."""

    def plain(self) -> list[Any]:
        """As JSON values."""
        return list(astuple(self))


@dataclass(slots=True)
class Counts:
    """Counters of the whole pool. They only grow."""

    minted: int = 0
    """Tasks accepted."""
    declined: int = 0
    """Tasks minted and not accepted."""
    draws: int = 0
    returned: int = 0
    """Draws that ended without an outcome."""
    outcomes: int = 0
    """Outcomes that counted."""
    late: int = 0
    """Outcomes of evicted tasks."""
    refused: int = 0
    """Outcomes that were believed by nobody: a wrong score, an unknown task, a presentation that is not open."""
    transient: int = 0
    permanent: int = 0
    evicted: int = 0
    generated: int = 0
    """Pieces of generation work leased."""
    generation_failures: int = 0

    def plain(self) -> dict[str, int]:
        """By name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Epochs:
    """Differences of `Counts`, and of evictions by reason, between epoch facts (the newest 200)."""

    def __init__(self) -> None:
        self.mark: dict[str, int] = Counts().plain()
        self.reasons: dict[str, int] = {}
        self.closed: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def since(self, counts: Counts, reasons: dict[str, int]) -> dict[str, Any]:
        """What was counted since the last epoch fact."""
        found: dict[str, Any] = {name: value - self.mark[name] for name, value in counts.plain().items()}
        changed = {reason: value - self.reasons.get(reason, 0) for reason, value in reasons.items()}
        found["evictions"] = {reason: value for reason, value in changed.items() if value}
        return found

    def close(self, epoch: int, counts: Counts, reasons: dict[str, int]) -> None:
        """An epoch fact stands here."""
        self.closed.append({"epoch": epoch, **self.since(counts, reasons)})
        self.mark, self.reasons = counts.plain(), dict(reasons)

    def plain(self) -> list[Any]:
        """As JSON values."""
        return [dict(self.mark), dict(self.reasons), [dict(epoch) for epoch in self.closed]]

    @classmethod
    def of(cls, plain: list[Any]) -> Epochs:
        """From `plain`."""
        epochs = cls()
        epochs.mark, epochs.reasons = dict(plain[0]), dict(plain[1])
        epochs.closed.extend(dict(epoch) for epoch in plain[2])
        return epochs
