"""One task of the pool, and all that is known of it.

Invariant: what is known of a task is in its fields and nowhere else, so that one that is restored from them goes on
exactly as it would have (`tracker.curriculum.cut` writes them down).
"""

from __future__ import annotations

from dataclasses import dataclass

SCALE = 2**40
"""Raw scores are summed as multiples of 2^-40: integer sums are exact and never drift."""


@dataclass(slots=True, eq=False)
class Entry:
    """A task that may be drawn. Statistics of scorers that the run does not use stay as they began."""

    name: str
    order: int
    """The place of its acceptance among all tasks ever."""
    slot: int
    """A small number of its own while it is in the pool."""
    label: str
    policy: str | None
    body: str
    """JSON text, as its minter wrote it."""
    form: int
    """The `schema` setting under which it was accepted."""
    count: int = 0
    """Outcomes."""
    total: float = 0.0
    """Sum of their scores."""
    raw: float = 0.0
    """What the scorer says: in [0, 1], more is better to draw."""
    baseline: float | None = None
    initialised: bool = False
    fast: float = 0.0
    slow: float = 0.0
    average: float = 0.0
    spread: float = 0.0
    draws: int = 0
    drawn_at: int = 0
    """The number of its last draw, or how many draws there had been when it came."""
    returned: int = 0
    """Draws that ended without an outcome: the actor was lost, or the lease ran out."""
    transient: int = 0
    permanent: int = 0
    strikes: int = 0
    """Rests in a row, without an outcome between them."""
    resting: bool = False
    """It failed, and is not drawn for a while."""
    until: int = 0
    """When its rest ends (the run's clock, ns); 0 while that is not decided."""

    @property
    def level(self) -> int:
        """`raw` in units of 1 / SCALE."""
        return int(self.raw * SCALE)

    @property
    def mean(self) -> float | None:
        """Of its scores."""
        return self.total / self.count if self.count else None
