"""A corridor with a sign: walk to the end that the sign shows. Any Gymnasium environment will do in its place."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """Seen: the place from -1 to 1, and the sign, -1 or 1. Done: 0 steps left, 1 steps right."""

    def __init__(self, length: int = 11, limit: int = 40) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.half = length // 2
        self.limit = limit

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """In the middle, under a new sign."""
        super().reset(seed=seed, options=options)
        self.place, self.steps = 0, 0
        self.sign = 1 if self.np_random.random() < 0.5 else -1
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """+1 at the end that the sign shows, -1 at the other, -0.01 for every step."""
        self.place += 1 if action == 1 else -1
        self.steps += 1
        arrived = abs(self.place) >= self.half
        reward = -0.01 + (float(np.sign(self.place)) * self.sign if arrived else 0.0)
        return self._seen(), reward, arrived, self.steps >= self.limit and not arrived, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.place / self.half, self.sign], np.float32)
