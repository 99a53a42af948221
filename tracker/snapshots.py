"""Snapshots into the ledger, a little at each turn of the tracker.

Invariant: a snapshot is in the ledger from the commit that stores its heads, whole, and until then the older one is. So
a restart finds one or the other, and the tracker is held up for no longer than a slice and the copying of what a fold
cannot keep apart (`tracker.parts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tracker.ledger import Ledger
from tracker.parts import Draft

SLICE = 0.01
"""Seconds that one turn of the tracker spends on a snapshot, and a part longer at most."""
CLEARED = 8
"""Parts that are cleared away in one commit."""


class Snapshots:
    """Begins a draft when one is due, makes some parts of it each turn, and stores them with the facts."""

    def __init__(self, ledger: Ledger, begin: Callable[[], Draft]) -> None:
        self._ledger, self._begin = ledger, begin
        self._draft: Draft | None = None
        self._parts: Iterator[tuple[str, int, str]] = iter(())
        self._pending: list[tuple[str, int, str]] = []
        self._whole = False
        self._untidy = True
        """There may be parts of older snapshots, or of one that was never whole."""

    @property
    def under_way(self) -> bool:
        """Whether there is something to store, or to go on with."""
        return self._draft is not None or self._untidy

    def go_on(self, *, due: bool, at_once: bool = False) -> None:
        """Make parts for some time; for as long as it takes if `at_once`, of what the folds are now."""
        if due and (at_once or self._draft is None):
            self._draft = self._begin()
            self._parts, self._pending, self._whole = self._draft.parts(), [], False
        until = time.monotonic() + SLICE
        while self._draft is not None and not self._whole and (at_once or time.monotonic() < until):
            part = next(self._parts, None)
            if part is None:
                self._whole = True
            else:
                self._pending.append(part)

    def store(self) -> None:
        """Within a commit: store what was made since the last one. Between two snapshots: clear the older one away."""
        draft = self._draft
        if draft is None:
            self._untidy = self._untidy and self._ledger.clear_parts(CLEARED)
        else:
            self._ledger.store_parts(draft.position, self._pending)
            if self._whole:
                self._ledger.store_heads(draft.position, draft.heads())

    def stored(self) -> None:
        """The commit is on disk."""
        self._pending = []
        if self._whole:
            self.abandon()
            self._untidy = True

    def abandon(self) -> None:
        """Make no more of this one. What is stored of it is no snapshot, and is cleared away with the next one."""
        self._draft, self._parts, self._pending, self._whole = None, iter(()), [], False
        self._untidy = False
