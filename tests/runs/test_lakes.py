"""The lakes of the run `curriculum`: which can be crossed, and what is seen of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from runs.lakes import LARGEST, Lake, level

STEPS = 100


def chance(rows: list[str]) -> float:
    """The probability that random steps reach the goal within an episode."""
    size = len(rows)
    cells = np.array([list(row) for row in rows])
    at: NDArray[np.float64] = np.zeros((size, size))
    at[0, 0], crossed = 1.0, 0.0
    for _ in range(STEPS):
        walled = np.pad(at, 1, mode="edge")  # a step against the shore stays where it is
        at = (walled[:-2, 1:-1] + walled[2:, 1:-1] + walled[1:-1, :-2] + walled[1:-1, 2:]) / 4
        crossed += float(at[cells == "G"].sum())
        at[(cells == "G") | (cells == "H")] = 0.0
    return crossed


def test_open_lakes_are_found_by_chance_and_closed_ones_never() -> None:
    levels = Lake.levels()
    assert len(levels) == 200
    for label, body in levels:
        settings = body["settings"]
        found = chance(level(**settings).unwrapped.rows)  # type: ignore[attr-defined]
        if settings["closed"]:
            assert label == "closed"
            assert found == 0.0
        else:
            assert label == f"size {settings['size']}"
            assert found >= 1 / 2000


def test_the_reward_is_at_the_goal_alone() -> None:
    lake = level(size=4, number=2)
    lake.reset(seed=1)
    rng = np.random.default_rng(1)
    ends = []
    while len(ends) < 20:
        seen, reward, terminated, truncated, _ = lake.step(int(rng.integers(4)))
        planes = seen.reshape(3, LARGEST, LARGEST)
        at_goal = bool((planes[0] * planes[2]).sum())
        assert planes[0].sum() == planes[2].sum() == 1.0
        assert reward == float(at_goal)
        if terminated or truncated:
            ends.append(at_goal)
            lake.reset()
    assert any(ends)


def test_a_lake_that_is_not_seen_whole_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 9: a lake has from 3 to 8"):
        level(size=9)
