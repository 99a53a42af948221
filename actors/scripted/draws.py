"""Chance that depends on what was asked and on nothing else.

Invariant: a draw is a function of the seed, the messages, the attempt and the draw's own name; no order of calls and no
other draw changes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Draws:
    """All draws of one request."""

    def __init__(self, seed: int, messages: Sequence[Mapping[str, Any]], attempt: str = "") -> None:
        asked = json.dumps([seed, [[m.get("role"), m.get("content")] for m in messages], attempt])
        self.key = hashlib.sha256(asked.encode()).digest()
        """Names the request among all requests of this seed."""

    def uniform(self, name: str) -> float:
        """From [0, 1)."""
        drawn = hashlib.blake2b(name.encode(), key=self.key, digest_size=8).digest()
        return int.from_bytes(drawn, "big") / 2**64

    def chance(self, name: str, probability: float) -> bool:
        """Whether it happens."""
        return self.uniform(name) < probability

    def choose(self, name: str, choices: Sequence[T]) -> T:
        """One of them, each as likely."""
        return choices[int(self.uniform(name) * len(choices))]

    def weighted(self, name: str, weights: Mapping[T, float]) -> T | None:
        """One of them, as likely as its weight says; None where no weight is above 0."""
        total = sum(weights.values())
        point = self.uniform(name) * total
        for choice, weight in weights.items():
            point -= weight
            if weight > 0 and point < 0:
                return choice
        return None
