"""Running mean and variance, by which observations and rewards are normalised.

The statistics are part of a version of the parameters: whoever owns the policy updates them, and everyone else applies
the arrays that came with a version.

Invariant: `update` in any split of the same rows gives the same moments, up to rounding (the parallel form of Welford's
algorithm; Chan, Golub and LeVeque, 1983, "Algorithms for computing the sample variance", eq. 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class RunningMoments:
    """Mean and variance, element by element, of every array of `shape` seen so far.

    `count` rows so far, their `mean` and the sum `squares` of squared distances from it, as float64.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0.0
        self.mean = np.zeros(shape, np.float64)
        self.squares = np.zeros(shape, np.float64)

    def update(self, batch: NDArray[Any]) -> None:
        """Take in a batch [..., *shape]. Rows that are not finite are left out: one NaN would stay for ever."""
        shape = self.mean.shape
        leading = batch.ndim - len(shape)
        if leading < 0 or batch.shape[leading:] != shape:
            raise ValueError(f"a batch of shape {batch.shape} does not end in {shape}")
        rows = batch.reshape(math.prod(batch.shape[:leading]), *shape).astype(np.float64)
        finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        rows = rows if finite.all() else rows[finite]
        if len(rows) == 0:
            return
        mean = rows.mean(axis=0)
        total = self.count + len(rows)
        distance = mean - self.mean
        self.squares += np.square(rows - mean).sum(axis=0) + np.square(distance) * (self.count * len(rows) / total)
        self.mean += distance * (len(rows) / total)
        self.count = total

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation (of the population), 1 before there are two rows, never below 1e-4."""
        if self.count < 2:
            return np.ones_like(self.mean)
        return np.maximum(np.sqrt(self.squares / self.count), 1e-4)

    def normalise(self, x: NDArray[Any], clip: float = 10.0) -> NDArray[np.float32]:
        """Observations [..., *shape]: (x - mean) / deviation within ±clip, as float32."""
        return np.clip((x - self.mean) / self.deviation, -clip, clip).astype(np.float32)

    def scale(self, x: NDArray[Any], clip: float = 10.0) -> NDArray[np.float32]:
        """Rewards: x / deviation within ±clip, as float32, by the moments of returns; a shift would change the task."""
        return np.clip(x / self.deviation, -clip, clip).astype(np.float32)

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """The state as arrays of its own: {"count": [], "mean": shape, "squares": shape}."""
        return {"count": np.array(self.count), "mean": self.mean.copy(), "squares": self.squares.copy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The inverse of `to_arrays`."""
        moments = cls(arrays["mean"].shape)
        moments.count = float(arrays["count"])
        moments.mean[...] = arrays["mean"]
        moments.squares[...] = arrays["squares"]
        return moments
