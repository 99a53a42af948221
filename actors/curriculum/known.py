"""Known tasks in turns: what an evaluation plays in place of drawn ones.

Invariant: `episodes` tasks are handed out, in an order that the seed decides, none of them twice before all the others
once; each ends in a score or is counted as failed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from actors.curriculum.drawn import DrawnTask


class Known(NamedTuple):
    """A task as its pool has it."""

    task: str
    label: str
    body: Mapping[str, Any]


class KnownTasks:
    """`actors.curriculum.drawn.Tasks`, without a tracker."""

    def __init__(self, tasks: Sequence[Known], episodes: int, seed: int) -> None:
        order = random.Random(seed).sample(tasks, len(tasks))
        turns = islice(cycle(order), episodes)
        self._stock = deque(DrawnTask(known.task, known.label, n, dict(known.body)) for n, known in enumerate(turns))
        self._left = episodes
        self.scores: dict[str, list[float]] = {}
        """By label."""
        self.failures: dict[str, int] = {}
        """By label, how many could not be played or judged."""
        self.trouble = ""
        """What the last one of them said."""

    @property
    def stock(self) -> int:
        """Tasks that can be taken now."""
        return len(self._stock)

    @property
    def left(self) -> int:
        """Tasks that have not been played to their end."""
        return self._left

    @property
    def over(self) -> bool:
        """Whether every task has been played."""
        return self._left == 0

    def tend(self, wanted: int = 0) -> None:
        """There are no more to be had."""

    def hungry(self) -> bool:
        """Whether nothing is left to take."""
        return not self._stock

    def take(self) -> DrawnTask | None:
        """The next task, if there is one."""
        return self._stock.popleft() if self._stock else None

    def outcome(self, drawn: DrawnTask, score: float) -> None:
        """It was played to its end. A score that is not from 0 to 1 is an error of the task, as it is in training."""
        if not 0.0 <= score <= 1.0:
            self.failed(drawn, f"a score is from 0 to 1, not {score}", permanent=False)
            return
        self._left -= 1
        self.scores.setdefault(drawn.label, []).append(score)

    def failed(self, drawn: DrawnTask, traceback: str, *, permanent: bool) -> None:
        """It could not be played."""
        self._left -= 1
        self.failures[drawn.label] = self.failures.get(drawn.label, 0) + 1
        self.trouble = traceback.strip().splitlines()[-1]
