"""Who is to be sent the current version again.

A version goes to `all` once when it is made. A spoke that is behind the pulse says Hello and gets the version under its
own name, once for each version and pulse; where more than half of the spokes are behind it goes once to `all`.
Invariant: between two pulses nobody is sent the same version twice.
"""

from __future__ import annotations

Version = tuple[int, int]


class CatchUp:
    """What each spoke has applied, and whom to answer at the next pulse."""

    def __init__(self) -> None:
        self.current: Version | None = None
        self._applied: dict[str, Version | None] = {}
        self._behind: set[str] = set()

    def published(self, version: Version) -> None:
        """A version has gone to `all`: nobody is behind until he says so again."""
        self.current = version
        self._behind.clear()

    def hello(self, name: str, applied: Version | None) -> None:
        """A spoke says what it has applied."""
        self._applied[name] = applied
        if self.current is not None and (applied is None or applied < self.current):
            self._behind.add(name)
        else:
            self._behind.discard(name)

    def forget(self, name: str) -> None:
        """The spoke is gone."""
        self._applied.pop(name, None)
        self._behind.discard(name)

    def due(self, all_name: str) -> list[str]:
        """At a pulse: to whom the current version goes. Clears the list."""
        behind, self._behind = self._behind, set()
        if not behind:
            return []
        if len(behind) > 1 and 2 * len(behind) > len(self._applied):
            return [all_name]
        return sorted(behind)
