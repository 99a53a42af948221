"""The trials of one template: its rewards by task, and the means and intervals that are said of them.

Invariant: of a task (split, item, attempt) the first reward counts; what is said depends on the rewards by their tasks
and not on the order in which they came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

SPLITS = ("training", "validation")
ATTEMPTS = 1 << 16
"""Attempts of one item are numbered below this."""
Z95 = 1.959963984540054


def wilson(mean: float, trials: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of Wilson 1927 ("Probable Inference, the Law of Succession, and Statistical Inference").

    Rewards lie in [0, 1], where a variance is at most mean x (1 - mean); so what holds for right and wrong is on the
    safe side for what is between. Unlike mean ± z·s/√n it stays within [0, 1] and does not shrink to nothing where
    all of a few rewards are equal (Brown, Cai and DasGupta 2001, "Interval Estimation for a Binomial Proportion").
    """
    if not trials:
        return 0.0, 1.0
    spread = z * math.sqrt(max(0.0, mean * (1.0 - mean)) / trials + z * z / (4.0 * trials * trials))
    centre, scale = mean + z * z / (2.0 * trials), 1.0 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


class Trials:
    """Rewards of one template."""

    __slots__ = ("failed", "rewards", "sums")

    def __init__(self) -> None:
        self.rewards: dict[str, dict[int, float]] = {split: {} for split in SPLITS}
        """By split, by item x ATTEMPTS + attempt."""
        self.sums: dict[str, float] = dict.fromkeys(SPLITS, 0.0)
        """Running, for what is shown often; what is kept is summed afresh."""
        self.failed = 0

    def add(self, split: str, item: int, attempt: int, reward: float, *, failed: bool) -> bool:
        """One more; False for a task that has its reward."""
        rewards = self.rewards[split]
        key = item * ATTEMPTS + attempt
        if key in rewards:
            return False
        rewards[key] = reward
        self.sums[split] += reward
        self.failed += failed
        return True

    def count(self, split: str | None = None) -> int:
        """Trials of a split, or of both."""
        return sum(len(self.rewards[name]) for name in ([split] if split else SPLITS))

    def mean_now(self, split: str | None = None) -> float | None:
        """The mean by the running sums."""
        count = self.count(split)
        return sum(self.sums[name] for name in ([split] if split else SPLITS)) / count if count else None

    def listed(self, splits: Sequence[str] = SPLITS) -> list[float]:
        """Rewards, by split, item and attempt."""
        return [self.rewards[split][key] for split in splits for key in sorted(self.rewards[split])]

    def told(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """`{"mean", "interval": [low, high], "best", "trials"}` of these splits; None where there is no trial."""
        rewards = self.listed(splits)
        if not rewards:
            return {"mean": None, "interval": None, "best": None, "trials": 0}
        mean = math.fsum(rewards) / len(rewards)
        interval = list(wilson(mean, len(rewards)))
        return {"mean": mean, "interval": interval, "best": max(rewards), "trials": len(rewards)}

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        kept = {split: [list(rewards), list(rewards.values())] for split, rewards in self.rewards.items()}
        return {"rewards": kept, "sums": dict(self.sums), "failed": self.failed}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Trials:
        """From `plain`."""
        trials = cls()
        for split, (keys, rewards) in plain["rewards"].items():
            trials.rewards[split] = dict(zip(keys, rewards, strict=True))
        trials.sums, trials.failed = dict(plain["sums"]), plain["failed"]
        return trials
