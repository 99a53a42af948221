"""Gymnasium's `FrozenLake-v1` with its map as the level: how large it is, which of that size, and whether it is closed.

A lake is crossed from one corner to the other, around the holes. The reward, 1 at the goal, is all that tells of it:
chance finds the goal of a small lake soon, that of a large one once in a thousand episodes, and that of a closed lake,
which has holes all around its goal, never.

Invariant: the maps are Gymnasium's own (`generate_random_map`), and a level is the same one always. What is seen is the
map and where one stands; whether a lake is closed is seen in the map alone.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

LARGEST = 8
"""Cells along a side of the largest lake; smaller ones are seen in its corner."""
MAPS = {4: range(8), 5: range(8), 6: range(8), 7: range(8), 8: (1, 2, 3, 4, 7, 8, 9, 10)}
"""By size, the first eight maps of which random steps reach the goal in 1 of 2,000 episodes at least."""
CLOSED = {5: range(40), 6: range(40), 7: range(40), 8: range(40)}
"""Likewise, the closed ones: four times as many as the others."""

Level = tuple[str, dict[str, Any]]


class Lake(FrozenLakeEnv):
    """One map, without slipping. Also gives the levels of the shipped run."""

    def __init__(self, size: int, number: int, ice: float, *, closed: bool) -> None:
        self.rows = generate_random_map(size, ice, number)
        if closed:
            self.rows[-1] = self.rows[-1][:-2] + "HG"
            self.rows[-2] = self.rows[-2][:-1] + "H"
        super().__init__(desc=self.rows, is_slippery=False)

    @staticmethod
    def levels() -> list[Level]:
        """(label, body) of every level, the open ones first: a label for each size, and `closed`."""
        found = [(f"size {size}", size, number, False) for size in MAPS for number in MAPS[size]]
        found += [("closed", size, number, True) for size in CLOSED for number in CLOSED[size]]
        return [
            (label, {"settings": {"size": size, "number": number, "closed": closed}})
            for label, size, number, closed in found
        ]


class Seen(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Float32 [3 * 8 * 8]: where one stands, where no hole is, where the goal is; 1.0 there and 0.0 elsewhere."""

    def __init__(self, environment: gymnasium.Env[Any, Any], rows: list[str]) -> None:
        super().__init__(environment)
        self._size = len(rows)
        cells = np.array([list(row) for row in rows])
        self._planes = np.zeros((3, LARGEST, LARGEST), np.float32)
        self._planes[1, : self._size, : self._size] = cells != "H"
        self._planes[2, : self._size, : self._size] = cells == "G"
        self.observation_space = spaces.Box(0.0, 1.0, (self._planes.size,), np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """See gymnasium.ObservationWrapper."""
        seen = self._planes.copy()
        seen[0, observation // self._size, observation % self._size] = 1.0
        return seen.reshape(-1)


def level(
    size: int = 4, number: int = 0, closed: bool = False, ice: float = 0.85, most_steps: int = 100
) -> gymnasium.Env[Any, Any]:
    """Lake `number` of `size` x `size` cells, about a share of `ice` of which is no hole, for at most `most_steps`.

    Raises ValueError for a size that is not from 3 to 8.
    """
    if not 3 <= size <= LARGEST:
        raise ValueError(f"size is {size}: a lake has from 3 to {LARGEST} cells along a side")
    lake = Lake(size, number, ice, closed=closed)
    return Seen(TimeLimit(lake, most_steps), lake.rows)
