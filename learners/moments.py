"""Moments of value targets: PopArt (van Hasselt et al. 2016, "Learning values across many orders of magnitude").

The critic learns targets of mean 0 and variance 1. Invariant: when the moments move, the value layer is rescaled with
them (algorithm 1 there), so that the values it stands for stay what they were.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

Array = np.ndarray[Any, Any]
FLOOR = 1e-4
"""Smallest deviation: targets that are all alike are not blown up."""


class Moments:
    """Exponential moving mean and mean square, unbiased from the first batch on."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._weight = self._mean = self._square = 0.0

    @property
    def mean(self) -> float:
        """0 before the first batch."""
        return self._mean / self._weight if self._weight else 0.0

    @property
    def deviation(self) -> float:
        """1 before the first batch."""
        if not self._weight:
            return 1.0
        return max(FLOOR, math.sqrt(max(0.0, self._square / self._weight - self.mean**2)))

    def observe(self, targets: Array, layer: nn.Module | None = None) -> None:
        """Take a batch of targets in, and rescale `layer`, the last one of the critic, if it is a Linear."""
        mean, deviation = self.mean, self.deviation
        self._weight += self.rate * (1.0 - self._weight)
        self._mean += self.rate * (float(targets.mean(dtype=np.float64)) - self._mean)
        self._square += self.rate * (float(np.square(targets, dtype=np.float64).mean()) - self._square)
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight.mul_(deviation / self.deviation)
                if layer.bias is not None:
                    layer.bias.mul_(deviation).add_(mean - self.mean).div_(self.deviation)

    def shrink(self, values: Array) -> Array:
        """In the critic's units."""
        return (values - np.float32(self.mean)) / np.float32(self.deviation)

    def grow(self, values: Array) -> Array:
        """In units of the reward."""
        return values * np.float32(self.deviation) + np.float32(self.mean)

    def snapshot(self) -> dict[str, float]:
        """The state, exactly."""
        return {"weight": self._weight, "mean": self._mean, "square": self._square}

    def restore(self, tree: dict[str, float]) -> None:
        """Go on from a snapshot."""
        self._weight, self._mean, self._square = (float(tree[name]) for name in ("weight", "mean", "square"))
