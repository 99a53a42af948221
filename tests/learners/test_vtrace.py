"""V-trace against the definition, GAE, and the ends of episodes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.vtrace import vtrace


def trajectories(seed: int, steps: int, width: int, *, on_policy: bool) -> dict[str, np.ndarray]:
    """Random arrays in which a row after an end is a dummy, as with next-step autoreset, and some agents are absent."""
    random = np.random.default_rng(seed)
    terminated, truncated = (random.random((steps, width)) < 0.15 for _ in range(2))
    valid = random.random((steps, width)) < 0.9
    for t in range(1, steps):
        valid[t] &= ~((terminated | truncated)[t - 1])
    terminated &= valid
    truncated &= valid & ~terminated
    shift = np.zeros((steps, width)) if on_policy else random.normal(0, 0.5, (steps, width))
    return {
        "log_ratios": shift.astype(np.float32),
        "values": random.standard_normal((steps + 1, width), dtype=np.float32),
        "rewards": random.standard_normal((steps, width), dtype=np.float32) * valid,
        "terminated": terminated,
        "truncated": truncated,
        "valid": valid,
    }


def reference(arrays, gamma, lam, rho_bar, c_bar):
    """Equation 1 of Espeholt et al. as it is written: a sum over the rest of the episode, column by column."""
    steps, width = arrays["rewards"].shape
    targets, advantages = np.zeros((steps, width)), np.zeros((steps, width))
    for b in range(width):

        def delta(t, b=b):
            after = 0.0 if arrays["terminated"][t, b] else gamma * arrays["values"][t + 1, b]
            return arrays["rewards"][t, b] + after - arrays["values"][t, b]

        def weight(t, bar, b=b):
            return min(bar, math.exp(arrays["log_ratios"][t, b])) if arrays["valid"][t, b] else 0.0

        ends = arrays["terminated"][:, b] | arrays["truncated"][:, b]
        for s in range(steps - 1, -1, -1):
            total, product, t = 0.0, 1.0, s
            while t < steps and arrays["valid"][t, b]:
                total += product * weight(t, rho_bar) * delta(t)
                product *= gamma * lam * weight(t, c_bar)
                if ends[t]:
                    break
                t += 1
            targets[s, b] = arrays["values"][s, b] + total
            goes_on = s + 1 < steps and not ends[s] and arrays["valid"][s + 1, b]
            ahead = gamma * lam * (targets[s + 1, b] - arrays["values"][s + 1, b]) if goes_on else 0.0
            advantages[s, b] = weight(s, rho_bar) * (delta(s) + ahead)
    return targets, advantages


unit = st.floats(0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4), unit, unit, st.sampled_from([0.7, 1.0, 1.5]))
def test_targets_are_the_definition(seed, steps, width, gamma, lam, bar):
    arrays = trajectories(seed, steps, width, on_policy=False)
    found = vtrace(**arrays, gamma=gamma, lam=lam, rho_bar=bar, c_bar=1.0)
    targets, advantages = reference(arrays, gamma, lam, bar, 1.0)
    np.testing.assert_allclose(found.values, targets, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.advantages, advantages, rtol=1e-3, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 4), unit, unit)
def test_on_policy_it_is_gae(seed, steps, width, gamma, lam):
    arrays = trajectories(seed, steps, width, on_policy=True)
    found = vtrace(**arrays, gamma=gamma, lam=lam)
    values, last = arrays["values"], np.zeros(width)
    expected = np.zeros((steps, width))
    for t in range(steps - 1, -1, -1):  # as CleanRL writes it, with the ends told apart
        delta = arrays["rewards"][t] + gamma * values[t + 1] * ~arrays["terminated"][t] - values[t]
        last = (delta + gamma * lam * last * ~(arrays["terminated"][t] | arrays["truncated"][t])) * arrays["valid"][t]
        expected[t] = last
    np.testing.assert_allclose(found.advantages, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.values, expected + values[:-1], rtol=1e-3, atol=1e-4)


def test_truncation_is_bootstrapped_and_termination_is_not():
    off = np.zeros((1, 1), bool)
    arrays = {
        "log_ratios": np.zeros((1, 1), np.float32),
        "values": np.array([[1.0], [10.0]], np.float32),
        "rewards": np.ones((1, 1), np.float32),
        "valid": ~off,
    }
    assert vtrace(**arrays, terminated=off, truncated=~off, gamma=0.5).values.item() == 6.0
    assert vtrace(**arrays, terminated=~off, truncated=off, gamma=0.5).values.item() == 1.0


def test_huge_ratios_stay_finite():
    arrays = trajectories(0, 4, 2, on_policy=True)
    arrays["log_ratios"][:] = 1e4
    assert np.isfinite(vtrace(**arrays, gamma=0.9, rho_bar=2.0).advantages).all()


def test_shapes_must_agree():
    arrays = trajectories(0, 4, 2, on_policy=True)
    with pytest.raises(ValueError, match=r"values must be \[5, 2\]"):
        vtrace(**{**arrays, "values": arrays["values"][:-1]}, gamma=0.9)
