"""Bags and ranks: tasks to pick from at random, and tasks in the order of their score.

Invariant: coming, going and moving cost O(log of 4,096), however many tasks there are. Scores are sorted into 4,096
equal steps of [0, 1]; tasks within a step count as equal.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain

from tracker.curriculum.dice import Dice
from tracker.curriculum.entry import SCALE, Entry
from tracker.curriculum.trees import SumTree

STEPS = 4096
_STEP = SCALE // STEPS


class Bag:
    """Tasks by slot, in a list from which one is picked by its index. Removal moves the last one into the gap."""

    __slots__ = ("_places", "items")

    def __init__(self) -> None:
        self.items: list[Entry] = []
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, slot: int) -> bool:
        return slot in self._places

    def add(self, entry: Entry) -> None:
        """Put in a task that is not there."""
        self._places[entry.slot] = len(self.items)
        self.items.append(entry)

    def remove(self, entry: Entry) -> None:
        """Take out a task that is there."""
        place = self._places.pop(entry.slot)
        last = self.items.pop()
        if last is not entry:
            self.items[place] = last
            self._places[last.slot] = place


class Ranking:
    """Tasks in the order of their raw score, the best first."""

    def __init__(self, least: int) -> None:
        """`least`: a level (see `Entry.level`) at or below which there is no progress."""
        self._least = least
        self._levels: dict[int, int] = {}
        self._bags: dict[int, Bag] = {}
        """By step, those that are not empty."""
        self._tree = SumTree(STEPS)
        self._weights: list[float] = [0.0]
        """Sums of rank^power over the first ranks, as far as they were needed."""
        self._power = 0.0
        self.total = 0
        """Sum of all levels."""
        self.still = 0
        """Tasks without progress: raw score at or below the least."""

    def __len__(self) -> int:
        return len(self._levels)

    def put(self, entry: Entry) -> None:
        """A task came, or its score changed."""
        level = entry.level
        before = self._levels.get(entry.slot)
        if before == level:
            return
        if before is not None:
            self._forget(before)
        self._levels[entry.slot] = level
        self.total += level
        self.still += level <= self._least
        step = min(level // _STEP, STEPS - 1)
        old = -1 if before is None else min(before // _STEP, STEPS - 1)
        if step != old:
            if old >= 0:
                self._leave(entry, old)
            bag = self._bags.get(step)
            if bag is None:
                bag = self._bags[step] = Bag()
            bag.add(entry)
            self._tree.add(step, 1)

    def take(self, entry: Entry) -> None:
        """A task is gone."""
        before = self._levels.pop(entry.slot, None)
        if before is not None:
            self._forget(before)
            self._leave(entry, min(before // _STEP, STEPS - 1))

    def _forget(self, level: int) -> None:
        self.total -= level
        self.still -= level <= self._least

    def _leave(self, entry: Entry, step: int) -> None:
        bag = self._bags[step]
        bag.remove(entry)
        if not len(bag):
            del self._bags[step]
        self._tree.add(step, -1)

    def worst_first(self) -> Iterator[list[Entry]]:
        """Groups of tasks that count as equal, the worst first."""
        below = 0
        while below < len(self):
            step, _ = self._tree.find(below)
            yield self._bags[step].items
            below += len(self._bags[step])

    def best_first(self) -> Iterator[list[Entry]]:
        """The same, the best first."""
        left = len(self)
        while left:
            step, _ = self._tree.find(left - 1)
            yield self._bags[step].items
            left -= len(self._bags[step])

    def draw(self, dice: Dice, power: float) -> Entry:
        """Draw a rank r of 1 .. n in proportion to r^power, and one of the tasks that share it."""
        n = len(self)
        sums = self._sums(power, n)
        rank = min(bisect_right(sums, dice.unit() * sums[n], 1, n + 1), n)
        step, _ = self._tree.find(n - rank)
        items = self._bags[step].items
        return items[dice.below(len(items))]

    def probabilities(self, power: float) -> dict[str, float]:
        """What `draw` follows, by name."""
        n = len(self)
        sums = self._sums(power, n)
        found: dict[str, float] = {}
        ahead = 0
        for items in self.best_first():
            each = (sums[ahead + len(items)] - sums[ahead]) / sums[n] / len(items)
            found.update((entry.name, each) for entry in items)
            ahead += len(items)
        return found

    def _sums(self, power: float, n: int) -> list[float]:
        sums = self._weights
        if power != self._power:
            sums[1:] = []
            self._power = power
        for rank in range(len(sums), n + 1):
            sums.append(sums[-1] + rank**power)
        return sums

    def order(self) -> list[Entry]:
        """Tasks in an order in which putting them again gives an equal ranking."""
        return list(chain.from_iterable(self.worst_first()))
