"""Hill climbing over a dictionary: the policy mints candidates as tasks, a rollout scores each, the best one stays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.rollout import LeasedTask, Outcome, Parameters, Piece, RolloutContext
from broker.arrays import Tree
from learners.algorithm import AlgorithmContext, Fragment, Task


class Throw:
    """The rollout: how far a stone flies when it is thrown at an angle. Made once in each actor."""

    def __init__(self, context: RolloutContext) -> None:
        self.noise = float(context.settings.get("noise", 0.0))
        self.random = np.random.default_rng([context.seed, context.index])

    def run(self, task: LeasedTask, parameters: Mapping[str, Parameters]) -> Outcome:
        """Score one candidate; `parameters` holds the newest version of every policy, should it be needed."""
        angle = task.body["angle"]
        score = max(0.0, math.sin(2.0 * math.radians(angle)) + self.random.normal(0.0, self.noise))
        piece = Piece(task.policy, {"score": np.array([score])}, note={"angle": angle})
        return Outcome(score=min(score, 1.0), pieces=[piece])


class Climb:
    """The policy: its parameters are a dictionary, and a version is better than the one before or equal to it."""

    def __init__(self, context: AlgorithmContext) -> None:
        self.candidates = int(context.settings.get("candidates", 8))
        self.random = np.random.default_rng(context.seed)
        self.best: dict[str, Any] = {"angle": 5.0, "score": 0.0}
        self.scored: list[dict[str, Any]] = []
        self.minted = 0  # a task's name is used once
        self.open: set[str] = set()

    def mint(self) -> Sequence[Task]:
        """A handful of candidates around the best one, as soon as an update has taken those before them."""
        if self.open or self.scored:
            return ()
        angles = np.clip(self.random.normal(self.best["angle"], 5.0, self.candidates), 0.0, 90.0).tolist()
        tasks = [Task(f"angle-{self.minted + i}", {"angle": angle}) for i, angle in enumerate(angles)]
        self.minted += len(tasks)
        self.open = {task.task for task in tasks}
        return tasks

    def accept(self, fragment: Fragment) -> None:
        """One scored candidate."""
        if fragment.task not in self.open:  # a runner was lost after it had sent this, and another did it again
            return
        self.open.discard(fragment.task)
        note = fragment.note or {}
        self.scored.append({"angle": float(note["angle"]), "score": float(fragment.arrays["score"][0])})

    def given_up(self, task: str, reason: str) -> None:
        """Nobody could score it: the others decide."""
        self.open.discard(task)

    def ready(self) -> bool:
        """Whether all candidates are scored."""
        return not self.open and bool(self.scored)

    def update(self) -> Mapping[str, float]:
        """Keep the best."""
        self.best = max([self.best, *self.scored], key=lambda candidate: float(candidate["score"]))
        self.scored = []
        return {"score": self.best["score"], "angle": self.best["angle"]}

    def parameters(self) -> Tree:
        """What a version is made of."""
        return dict(self.best)

    def snapshot(self) -> Tree:
        """All that is needed to go on. Tasks that are open now are forgotten: others are minted in their place."""
        return {"best": dict(self.best), "minted": self.minted}

    def restore(self, tree: Tree) -> None:
        """Go on from a checkpoint."""
        self.best, self.minted = dict(tree["best"]), int(tree["minted"])
