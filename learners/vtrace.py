"""V-trace: value targets and advantages corrected for a behaviour policy that lags behind.

Espeholt et al. 2018, "IMPALA", section 4.1, with λ in the trace (remark 2) and the bootstrap of the advantage
interpolated by λ as rlax does, so that on-policy, with both bars at least 1, the targets are the λ-returns and the
advantages those of GAE(λ) (Schulman et al. 2016); at λ = 1 they are the paper's own.

Invariant: nothing crosses the end of an episode. Termination has no value behind it; truncation is bootstrapped from
V(x[t+1]), which under next-step autoreset is the value of the final observation itself. Traces are cut after both and
at rows that are not valid, whose target is their own value and whose advantage is 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Targets(NamedTuple):
    """Float32 [T, B]: what the critic learns, and what the actor is weighted by."""

    values: Array
    advantages: Array


def vtrace(  # noqa: PLR0917  (seven arrays of one shape, in the order of the formula)
    log_ratios: Array,
    values: Array,
    rewards: Array,
    terminated: Array,
    truncated: Array,
    valid: Array,
    *,
    gamma: float,
    lam: float = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> Targets:
    """Targets of one batch of fragments.

    `log_ratios` [T, B] is log π(a|x) - log μ(a|x) of the learner's policy π and the behaviour policy μ; `values`
    [T+1, B] is V, its last row the bootstrap; `rewards` [T, B]; `terminated`, `truncated`, `valid` bool [T, B].
    `rho_bar` bounds the weight of a step's own error (it decides which policy is evaluated), `c_bar` that of the trace
    (it decides how fast). Raises ValueError when shapes disagree.
    """
    steps, width = rewards.shape
    if values.shape != (steps + 1, width) or any(
        a.shape != (steps, width) for a in (log_ratios, terminated, truncated, valid)
    ):
        raise ValueError(f"for rewards [{steps}, {width}] values must be [{steps + 1}, {width}] and the rest alike")
    ratios = np.exp(np.minimum(log_ratios, 20.0)) * valid
    rho = np.minimum(ratios, rho_bar)
    trace = np.minimum(ratios, c_bar)
    trace *= lam
    discounts = np.float32(gamma) * ~terminated
    errors = rewards + discounts * values[1:]
    errors -= values[:-1]
    errors *= rho
    # Row t + 1 continues row t only if t ended nothing and t + 1 is a real row.
    going = ~(terminated | truncated)
    going[:-1] &= valid[1:]
    carry = discounts * going
    weight = trace * carry
    corrections = np.empty((steps + 1, width), np.float32)
    corrections[steps] = 0.0
    for t in range(steps - 1, -1, -1):  # v[t] - V[t] = ρ δ + γ c (v[t+1] - V[t+1])
        np.multiply(weight[t], corrections[t + 1], out=corrections[t])
        corrections[t] += errors[t]
    advantages = corrections[1:] * carry
    advantages *= lam
    advantages *= rho
    advantages += errors
    return Targets(corrections[:-1] + values[:-1], advantages)
