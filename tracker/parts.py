"""Snapshots of folds as plain values and texts, in parts that are made while the folds go on.

Invariant: all parts describe one position, the one at which the draft was begun, whatever the folds took since.

    state = head, then for each part: every list in it is added to the head's list of the same name
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

PIECE = 1_000
"""Items in a part."""


@runtime_checkable
class Parted(Protocol):
    """A fold whose snapshot is long. Folds of bounded size need none of this: their `snapshot` is the head."""

    version: int

    def parts(self) -> Iterator[dict[str, Any]]:
        """The head first: with it the position is taken, and it must be quick. Then pieces of its lists."""


def pieces(key: str, items: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """A list of which nothing will change, cut into parts."""
    for first in range(0, len(items), PIECE):
        yield {key: list(items[first : first + PIECE])}


def whole(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the parts make together."""
    rest = iter(parts)
    state = next(rest)
    for part in rest:
        for key, items in part.items():
            state[key].extend(items)
    return state


def text(plain: Any) -> str:
    """As it is stored. ValueError: a number that is not finite."""
    return json.dumps(plain, allow_nan=False, separators=(",", ":"))


class Draft:
    """Snapshots of several folds, begun at one position."""

    def __init__(self, folds: Mapping[str, Any], position: int) -> None:
        """Take the heads, at once."""
        self.position = position
        self._heads: dict[str, tuple[int, str]] = {}
        self._rest: list[tuple[str, Iterator[dict[str, Any]]]] = []
        self._counts = dict.fromkeys(folds, 0)
        for name, fold in folds.items():
            if isinstance(fold, Parted):
                parts = fold.parts()
                self._heads[name] = (fold.version, text(next(parts)))
                self._rest.append((name, parts))
            else:
                self._heads[name] = (fold.version, text(fold.snapshot()))

    def parts(self) -> Iterator[tuple[str, int, str]]:
        """(name, number from 1, text) of every part that is still to be stored."""
        for name, parts in self._rest:
            for part in parts:
                self._counts[name] += 1
                yield name, self._counts[name], text(part)

    def heads(self) -> dict[str, str]:
        """Once all parts are stored: the rows that make them a snapshot, by name."""
        return {
            name: f'{{"version":{version},"parts":{self._counts[name]},"state":{head}}}'
            for name, (version, head) in self._heads.items()
        }
