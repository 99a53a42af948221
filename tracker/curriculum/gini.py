"""How unevenly something is spread: the Gini coefficient, from a histogram.

Invariant: 0 when all have the same; at most (n - 1) / n, reached when one of n has everything. So 0.75 of four tasks
is as uneven as it can be, and coefficients of pools of different size compare only after division by that maximum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Histogram:
    """How many have each count, kept up to date at O(1) a change: the coefficient needs no look at all of them."""

    __slots__ = ("of",)

    def __init__(self, counts: Iterable[int] = ()) -> None:
        self.of: dict[int, int] = {}
        """count -> how many have it"""
        for count in counts:
            self.add(count)

    def add(self, count: int) -> None:
        """One more that has `count`."""
        self.of[count] = self.of.get(count, 0) + 1

    def remove(self, count: int) -> None:
        """One that had `count` is gone."""
        left = self.of[count] - 1
        if left:
            self.of[count] = left
        else:
            del self.of[count]

    def move(self, before: int, after: int) -> None:
        """One that had `before` has `after` now."""
        self.remove(before)
        self.add(after)


def gini(histogram: Mapping[int, int]) -> float:
    """The Gini coefficient of n counts x, given as count -> how many have it; 0.0 for none or all zero.

    G = sum over i of (2 i - n - 1) x_i / (n sum x), x ascending, i from 1 (Dixon et al., "Bootstrapping the Gini
    coefficient of inequality", Ecology 68, 1987). It is the plain coefficient, not scaled by n / (n - 1): its maximum
    is (n - 1) / n. Takes O(k log k) for k different counts.
    """
    n = sum(histogram.values())
    total = sum(count * have for count, have in histogram.items())
    if not n or not total:
        return 0.0
    below = 0
    weighted = 0
    for count in sorted(histogram):
        have = histogram[count]
        weighted += count * have * (2 * below + have - n)  # the sum of 2 i - n - 1 over the ranks of equal counts
        below += have
    return weighted / (n * total)
