"""Drawing the next task: p = ε U(all) + κ U(too few samples) + (1 - ε - κ) S(eligible), each part normalised by itself.

Invariants: a draw costs O(log n) or less and is exact: it follows the distribution that `probabilities` writes out, in
which tasks that are not eligible have no part in S and take nothing from it; the share of an empty part goes to the
others in proportion. All sums are of integers, so that they do not depend on the order in which tasks came and went.
"""

from __future__ import annotations

import math
from typing import Protocol

from tracker.curriculum.dice import Dice
from tracker.curriculum.entry import SCALE, Entry
from tracker.curriculum.ranking import Bag, Ranking
from tracker.curriculum.settings import CurriculumSettings
from tracker.curriculum.trees import AgeTree


def sigmoid(z: float) -> float:
    """1 / (1 + e^-z)."""
    return 1.0 / (1.0 + math.exp(-z)) if z > -700.0 else 0.0


class Part(Protocol):
    """S: how eligible tasks are drawn by their raw score."""

    def __len__(self) -> int:
        """How many tasks it may draw."""

    def put(self, entry: Entry) -> None:
        """An eligible task came, or its score or last draw changed."""

    def take(self, entry: Entry) -> None:
        """A task is no longer eligible."""

    def draw(self, dice: Dice, draws: int) -> Entry:
        """Draw one, when there have been `draws` draws of the pool."""

    def probabilities(self, draws: int) -> dict[str, float]:
        """Every task's probability, by name: for tests and for people, O(n)."""

    def order(self) -> list[Entry]:
        """Tasks in the order in which putting them again gives an equal part."""


class Smooth:
    """Tasks with progress, in proportion to the sigmoid of their z-score.

    Every outcome moves the mean and the deviation, and with them every weight. So nothing is kept per weight: a
    uniform task is accepted with the sigmoid of its z, which gives the exact distribution. z > -2 holds for 4 of 5
    tasks at least (Cantelli), so that a draw takes at most 11 tries on average, and about 2 as a rule.
    """

    def __init__(self, settings: CurriculumSettings) -> None:
        self._least = int(settings.least_progress * SCALE)
        self._moving = Bag()
        self._levels: dict[int, int] = {}
        self._sum = self._squares = 0

    def __len__(self) -> int:
        return len(self._moving)

    def put(self, entry: Entry) -> None:
        """See `Part`."""
        level = entry.level
        if level <= self._least:
            self.take(entry)
            return
        before = self._levels.get(entry.slot)
        if before is None:
            before = 0
            self._moving.add(entry)
        self._levels[entry.slot] = level
        self._sum += level - before
        self._squares += level * level - before * before

    def take(self, entry: Entry) -> None:
        """See `Part`."""
        before = self._levels.pop(entry.slot, None)
        if before is not None:
            self._moving.remove(entry)
            self._sum -= before
            self._squares -= before * before

    def _moments(self) -> tuple[float, float]:
        """Mean of the levels, and 1 over their deviation (0 where all are equal)."""
        n = len(self._moving)
        variance = n * self._squares - self._sum * self._sum  # exact: n² times the variance
        return self._sum / n, n / math.sqrt(variance) if variance > 0 else 0.0

    def draw(self, dice: Dice, draws: int) -> Entry:
        """See `Part`."""
        mean, scale = self._moments()
        items, levels = self._moving.items, self._levels
        while True:
            entry = items[dice.below(len(items))]
            if dice.unit() < sigmoid((levels[entry.slot] - mean) * scale):
                return entry

    def probabilities(self, draws: int) -> dict[str, float]:
        """See `Part`."""
        mean, scale = self._moments()
        weights = {entry.name: sigmoid((self._levels[entry.slot] - mean) * scale) for entry in self._moving.items}
        whole = math.fsum(weights.values())
        return {name: weight / whole for name, weight in weights.items()}

    def order(self) -> list[Entry]:
        """See `Part`."""
        return list(self._moving.items)


class Ranked:
    """Prioritised level replay: (1 - ρ) by rank, in proportion to rank^(-1/β), and ρ by draws since the last draw.

    Tasks whose scores are equal (to 1/4096) share the weights of their ranks evenly.
    """

    def __init__(self, settings: CurriculumSettings, ranking: Ranking) -> None:
        self._power, self._share = -1.0 / settings.temperature, settings.staleness
        self._ranking, self._ages = ranking, AgeTree()
        self._slots: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._ages)

    def put(self, entry: Entry) -> None:
        """See `Part`."""
        self._slots[entry.slot] = entry
        self._ages.put(entry.slot, entry.drawn_at)

    def take(self, entry: Entry) -> None:
        """See `Part`."""
        if self._slots.pop(entry.slot, None) is not None:
            self._ages.take(entry.slot)

    def draw(self, dice: Dice, draws: int) -> Entry:
        """See `Part`."""
        old = self._ages.total(draws)
        if old and dice.unit() < self._share:
            return self._slots[self._ages.find(dice.below(old), draws)]
        return self._ranking.draw(dice, self._power)

    def probabilities(self, draws: int) -> dict[str, float]:
        """See `Part`."""
        old = self._ages.total(draws)
        share = self._share if old else 0.0
        ranked = self._ranking.probabilities(self._power)
        births = self._ages.births
        return {
            entry.name: (1.0 - share) * ranked[entry.name] + (share * (draws - births[slot]) / old if old else 0.0)
            for slot, entry in self._slots.items()
        }

    def order(self) -> list[Entry]:
        """See `Part`: sums do not depend on it."""
        return []


class Urn:
    """All tasks that can be drawn, sorted into the parts of the mixture. `ranking` holds the eligible ones by score."""

    def __init__(self, settings: CurriculumSettings) -> None:
        self._epsilon, self._kappa, self._needed = settings.epsilon, settings.kappa, settings.min_samples
        self.all, self.few = Bag(), Bag()
        self.ranking = Ranking(int(settings.least_progress * SCALE))
        if settings.scorer == "uniform":
            self._epsilon, self._kappa = 1.0, 0.0
        replay = settings.scorer == "replay"
        self._part: Part = Ranked(settings, self.ranking) if replay else Smooth(settings)

    def put(self, entry: Entry) -> None:
        """A task can be drawn, or something about it changed."""
        slot = entry.slot
        if slot not in self.all:
            self.all.add(entry)
        if entry.count < self._needed:
            if slot not in self.few:
                self.few.add(entry)
            return
        if slot in self.few:
            self.few.remove(entry)
        self.ranking.put(entry)
        self._part.put(entry)

    def take(self, entry: Entry) -> None:
        """A task cannot be drawn: it is gone, or rests."""
        if entry.slot in self.all:
            self.all.remove(entry)
        if entry.slot in self.few:
            self.few.remove(entry)
        self.ranking.take(entry)
        self._part.take(entry)

    def _shares(self) -> tuple[float, float, float]:
        """The shares of all, few and eligible, of which empty parts have none; they need not sum to 1."""
        few = self._kappa if len(self.few) else 0.0
        part = 1.0 - self._epsilon - self._kappa if len(self._part) else 0.0
        if self._epsilon + few + part <= 1e-12:  # nothing that has a share has a task: all alike
            return 1.0, 0.0, 0.0
        return self._epsilon, few, part

    def draw(self, dice: Dice, draws: int) -> Entry | None:
        """Draw one task, when there have been `draws` draws before; None from an empty urn."""
        if not len(self.all):
            return None
        every, few, part = self._shares()
        place = dice.unit() * (every + few + part)
        if place < part:
            return self._part.draw(dice, draws)
        bag = self.few if place - part < few else self.all
        return bag.items[dice.below(len(bag))]

    def probabilities(self, draws: int) -> dict[str, float]:
        """The distribution that `draw` follows, by name: for tests and for people, O(n)."""
        if not len(self.all):
            return {}
        every, few, part = self._shares()
        whole = every + few + part
        found = {entry.name: every / whole / len(self.all) for entry in self.all.items}
        for entry in self.few.items:
            found[entry.name] += few / whole / len(self.few)
        if part:
            for name, probability in self._part.probabilities(draws).items():
                found[name] += part / whole * probability
        return found

    def orders(self) -> dict[str, list[Entry]]:
        """Tasks in the orders that `refill` needs to give an urn that draws the same. The lists are the caller's."""
        every, few = list(self.all.items), list(self.few.items)
        return {"all": every, "few": few, "ranking": self.ranking.order(), "part": self._part.order()}

    def refill(self, orders: dict[str, list[Entry]]) -> None:
        """Fill an empty urn as `orders` says."""
        for entry in orders["all"]:
            self.all.add(entry)
        for entry in orders["few"]:
            self.few.add(entry)
        for entry in orders["ranking"]:
            self.ranking.put(entry)
        for entry in orders["part"] or orders["ranking"]:
            self._part.put(entry)
