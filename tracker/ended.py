"""Ids of tasks that have ended: never used again, and not held in memory.

Invariant: an id is known here from the position of the fact that ended it, and asking about a position gives the same
answer whenever it is asked; so a fold that asks is a function of the ledger still. The ids are rows of the ledger's
table `ended`; what has ended since the last commit is held here until the next one takes it along (`tracker.folds`).
"""

from __future__ import annotations

from collections.abc import Callable


def nobody(_: str) -> int | None:
    """Where there is no table, or none that is to be asked."""
    return None


class Ended:
    """The ids that one fold has seen the end of."""

    def __init__(self) -> None:
        self.fresh: dict[str, int] = {}
        """Those that are not in the table yet, with the position of their end."""
        self.find: Callable[[str], int | None] = nobody
        """The position of an id's end, as the table has it. Without a ledger there is no table."""

    def add(self, name: str, position: int) -> None:
        """A task ended by the fact at `position`."""
        self.fresh[name] = position

    def before(self, name: str, position: int) -> bool:
        """Whether a task of this id had ended before `position`. The table may be ahead of a fold that is restored."""
        if name in self.fresh:
            return True
        found = self.find(name)
        return found is not None and found < position

    def __contains__(self, name: str) -> bool:
        """Whether a task of this id has ended, for a fold that is at the ledger's end."""
        return name in self.fresh or self.find(name) is not None
