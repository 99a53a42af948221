"""Races: whom to score on how many questions of the validation batch, where all on all is too dear.

Successive rejects: Audibert, Bubeck and Munos 2010, "Best Arm Identification in Multi-Armed Bandits", figure 3, ended
when as many are left as are wanted (so do Pryzant et al. 2023, section 3.2). UCB: Auer et al. 2002, "Finite-time
Analysis of the Multiarmed Bandit Problem", figure 1, several arms a step, since rollouts run side by side. A pull is
the next question of the batch, in the batch's order for everybody: whoever is compared has met the same questions.

Invariant: pure; nobody is ever scored on more than the whole batch, and a race takes at most `budget` pulls where that
is at least one for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def rejects(arms: int, keep: int, budget: int, batch: int) -> list[int]:
    """Pulls that everybody who is still in has had at the end of phases 1, 2, …: after each the worst one leaves.

    Empty where nobody has to leave. `batch` is the most pulls of one arm.
    """
    if arms <= keep:
        return []
    spread = 0.5 + math.fsum(1.0 / rank for rank in range(2, arms + 1))
    pulls = [
        math.ceil((budget - arms) / (spread * (arms + 1 - phase))) if budget > arms else 1
        for phase in range(1, arms - keep + 1)
    ]
    return [max(1, min(batch, count)) for count in pulls]


def step_size(batch: int) -> int:
    """Questions of one pull in a race of UCB: an eighth of the batch."""
    return max(1, batch // 8)


def upper_bound(mean: float, pulls: int, taken: int, exploration: float) -> float:
    """Mean reward + exploration x sqrt(2 ln t / n): t pulls of all, n of this one."""
    return mean + exploration * math.sqrt(2.0 * math.log(max(taken, 2)) / pulls)


def next_pulls(
    means: Sequence[float], pulls: Sequence[int], *, wide: int, budget: int, batch: int, exploration: float
) -> dict[int, int]:
    """UCB's next step: by arm (its place), how many pulls it will have had after it; empty when the race is over.

    The `wide` arms of the highest bounds are pulled, the first of equals first, as far as the budget goes.
    """
    left = budget - sum(pulls)
    bounds = [upper_bound(mean, had, sum(pulls), exploration) for mean, had in zip(means, pulls, strict=True)]
    order = sorted(range(len(pulls)), key=lambda arm: (-bounds[arm], arm))
    chosen: dict[int, int] = {}
    for arm in order[:wide]:
        more = min(step_size(batch), batch - pulls[arm], left)
        if more > 0:
            chosen[arm] = pulls[arm] + more
            left -= more
    return chosen
