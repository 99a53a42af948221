"""Sum trees (Fenwick): change one weight, or find the place of a drawn number, in O(log n).

Invariant: weights are integers, so that a sum is exact and does not depend on the order of changes.
"""

from __future__ import annotations


class SumTree:
    """Weights of `size` places; `size` is a power of two."""

    __slots__ = ("_sums", "size", "total")

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self._sums = [0] * (size + 1)

    def add(self, place: int, change: int) -> None:
        """The weight of `place` (0 .. size - 1) changes by `change`."""
        self.total += change
        sums, size = self._sums, self.size
        place += 1
        while place <= size:
            sums[place] += change
            place += place & -place

    def find(self, target: int) -> tuple[int, int]:
        """The place in whose part of the whole `target` (0 .. total - 1) falls, and how far into that part."""
        sums = self._sums
        place = 0
        step = self.size
        while step:
            ahead = place + step
            if ahead <= self.size and sums[ahead] <= target:
                place = ahead
                target -= sums[ahead]
            step >>= 1
        return place, target


class AgeTree:
    """Places with a birth each, drawn in proportion to their age `now - birth`. It grows as places are used."""

    __slots__ = ("_births", "_births_sums", "_counts", "births", "count", "size")

    def __init__(self) -> None:
        self.size = 1
        self.births: dict[int, int] = {}
        self._births = 0
        self._counts = [0, 0]
        self._births_sums = [0, 0]

    def __len__(self) -> int:
        return len(self.births)

    def put(self, place: int, birth: int) -> None:
        """`place` is there, born at `birth` (again, if it was there)."""
        if place >= self.size:
            self._grow(place)
        before = self.births.get(place)
        self.births[place] = birth
        if before is None:
            self._add(place, 1, birth)
        elif before != birth:
            self._add(place, 0, birth - before)

    def take(self, place: int) -> None:
        """`place` is gone."""
        birth = self.births.pop(place, None)
        if birth is not None:
            self._add(place, -1, -birth)

    def total(self, now: int) -> int:
        """The sum of all ages at `now`."""
        return len(self.births) * now - self._births

    def find(self, target: int, now: int) -> int:
        """The place in whose age `target` (0 .. total - 1) falls, the ages laid end to end."""
        counts, births = self._counts, self._births_sums
        place = 0
        step = self.size
        while step:
            ahead = place + step
            if ahead <= self.size:
                ages = counts[ahead] * now - births[ahead]
                if ages <= target:
                    place = ahead
                    target -= ages
            step >>= 1
        return place

    def _add(self, place: int, count: int, birth: int) -> None:
        self._births += birth
        counts, births, size = self._counts, self._births_sums, self.size
        place += 1
        while place <= size:
            counts[place] += count
            births[place] += birth
            place += place & -place

    def _grow(self, place: int) -> None:
        while self.size <= place:
            self.size *= 2
        self._births = 0
        self._counts, self._births_sums = [0] * (self.size + 1), [0] * (self.size + 1)
        for there, birth in self.births.items():
            self._add(there, 1, birth)
