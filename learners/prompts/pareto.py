"""The Pareto front per instance, and who is drawn from it: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can
Outperform Reinforcement Learning" (arXiv 2507.19457), algorithm 2.

Invariant: whoever is best on some instance is on the front, or somebody is who is as good as it wherever it is best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random


def front(scores: Sequence[Sequence[float | None]]) -> dict[int, int]:
    """By candidate (its place in `scores`), the number of instances on which it stands at the front: f of algorithm 2.

    `scores[k][i]` is candidate k's score on instance i; None if it is missing, and then it is not compared there. The
    best candidates of each instance are collected. Then, in order of rising means (the last of equals first), each one
    is removed that shares every instance on which it is best with another remaining one.
    """
    best: list[set[int]] = []
    for column in zip(*scores, strict=True):
        top = max((score for score in column if score is not None), default=None)
        if top is not None:
            best.append({k for k, score in enumerate(column) if score == top})
    if not best:
        return dict.fromkeys(range(len(scores)), 1)
    left = sorted(set().union(*best), key=lambda k: (_mean(scores[k]), -k))
    for k in list(left):
        others = set(left) - {k}
        if all(instance & others for instance in best if k in instance):
            left.remove(k)
    return {k: sum(k in instance for instance in best) for k in sorted(left)}


def draw(shares: dict[int, int], random: Random) -> int:
    """A candidate, drawn in proportion to its instances."""
    return random.choices(list(shares), weights=list(shares.values()))[0]


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else 0.0
