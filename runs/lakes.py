"""Gymnasium's `FrozenLake-v1` with its map as the level: how large it is, and which of that size.

A lake is crossed from one corner to the other and around the holes. The reward, 1 at the goal, is all that says where
it is: small lakes are found by chance, large ones as good as never.

Invariant: the maps are made by Gymnasium's own `generate_random_map`, and size and seed give the same one always. What
is seen is the map and where one stands.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from numpy.typing import NDArray

LARGEST = 12
"""Cells along a side of the largest lake; smaller ones are seen in its corner."""


class Seen(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Float32 [3 * 12 * 12]: where one stands, where ice is, where the goal is, each 1.0 there and 0.0 elsewhere."""

    def __init__(self, environment: gymnasium.Env[Any, Any], rows: list[str]) -> None:
        super().__init__(environment)
        self._size = len(rows)
        self._planes = np.zeros((3, LARGEST, LARGEST), np.float32)
        cells = np.array([list(row) for row in rows])
        self._planes[1, : self._size, : self._size] = cells != "H"
        self._planes[2, : self._size, : self._size] = cells == "G"
        self.observation_space = spaces.Box(0.0, 1.0, (self._planes.size,), np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """See gymnasium.ObservationWrapper."""
        seen = self._planes.copy()
        seen[0, observation // self._size, observation % self._size] = 1.0
        return seen.reshape(-1)


def lake(size: int, map: int, ice: float, closed: bool) -> list[str]:
    """A map as rows of S (start), G (goal), F (ice) and H (hole); `closed`: holes lie all around the goal."""
    rows = generate_random_map(size, ice, map)
    if closed:
        rows[-1] = rows[-1][:-2] + "HG"
        rows[-2] = rows[-2][:-1] + "H"
    return rows


def level(
    size: int = 4, map: int = 0, closed: bool = False, ice: float = 0.8, slippery: bool = False, most_steps: int = 100
) -> gymnasium.Env[Any, Any]:
    """Lake number `map` of `size` x `size` cells, of which about a share of `ice` is no hole, for `most_steps` steps.

    Raises ValueError for a size that is not from 2 to 12.
    """
    if not 2 <= size <= LARGEST:
        raise ValueError(f"size is {size}: a lake has from 2 to {LARGEST} cells along a side")
    rows = lake(size, map, ice, closed)
    environment = gymnasium.make(
        "FrozenLake-v1", desc=rows, is_slippery=slippery, max_episode_steps=most_steps, disable_env_checker=True
    )
    return Seen(environment, rows)
