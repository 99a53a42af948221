"""Running moments equal those of all rows at once, however they came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.environments.normalise import RunningMoments


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.floats(-1e3, 1e3), st.integers(0, 2**32 - 1))
def test_any_split_gives_the_moments_of_the_whole(sizes: list[int], shift: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(shift, 2.0, (sum(sizes), 3))
    moments = RunningMoments((3,))
    for part in np.split(rows, np.cumsum(sizes)[:-1]):
        moments.update(part)
    assert moments.count == len(rows)
    if len(rows) >= 2:
        np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(moments.deviation, np.maximum(rows.std(axis=0), 1e-4), rtol=1e-6)


def test_the_state_travels_as_arrays() -> None:
    moments = RunningMoments((2,))
    moments.update(np.arange(12.0).reshape(3, 2, 2))
    copy = RunningMoments.from_arrays(moments.to_arrays())
    moments.update(np.ones((1, 2)))
    assert copy.count == 6
    assert moments.count == 7
    x = np.array([[5.0, 6.0]])
    np.testing.assert_allclose(copy.normalise(x), (x - [5, 6]) / np.arange(0, 12, 2).std(), atol=1e-6)
    assert copy.normalise(x).dtype == np.float32
    assert RunningMoments.from_arrays(RunningMoments().to_arrays()).count == 0


def test_what_is_not_finite_and_what_does_not_vary() -> None:
    moments = RunningMoments()
    np.testing.assert_array_equal(moments.normalise(np.array([3.0])), [3.0])  # nothing seen: as it came
    moments.update(np.array([1.0, np.nan, 1.0, np.inf]))
    assert moments.count == 2
    np.testing.assert_array_equal(moments.normalise(np.array([1.0, 2.0])), [0.0, 10.0])  # clipped
    np.testing.assert_array_equal(moments.scale(np.array([-1.0])), [-10.0])
    with pytest.raises(ValueError, match="does not end in"):
        RunningMoments((3,)).update(np.zeros((4, 2)))
