from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tracker.pools import Pooled, settings
from tracker.curriculum.entry import Entry
from tracker.curriculum.gini import Histogram, gini
from tracker.curriculum.scorers import LearningProgress, Scorer, make_scorer


def entry() -> Entry:
    return Entry("t", 1, 0, "easy", None, "{}", 1)


def observe(scorer: Scorer, of: Entry, score: float) -> float:
    of.count += 1
    of.total += score
    of.raw = scorer.observe(of, score)
    return of.raw


def test_learning_progress_is_the_formula_step_by_step() -> None:
    scorer = make_scorer(settings(min_samples=4, alpha=0.1, theta=0.1))
    task = entry()
    first = [0.0, 0.2, 0.4, 0.2]
    assert [observe(scorer, task, score) for score in first] == [0.0] * 4  # no progress before the baseline
    assert task.baseline == pytest.approx(0.2)
    fast = slow = None
    for score in [0.1, 0.6, 0.9, 0.2, 1.0, 1.0]:
        m = max(score - 0.2, 0) / 0.8
        if fast is None or slow is None:
            fast = slow = m
        else:
            fast += 0.1 * (m - fast)
            slow += 0.1 * (fast - slow)
        r_fast, r_slow = (p * 0.9 / (p + 0.1 * (1 - 2 * p)) for p in (fast, slow))
        assert observe(scorer, task, score) == pytest.approx(abs(r_fast - r_slow))
    assert observe(scorer, task, 0.0) == scorer.value(task)


def test_the_baseline_is_capped_so_that_a_good_start_can_get_better() -> None:
    scorer = make_scorer(settings(min_samples=2))
    task = entry()
    observe(scorer, task, 1.0)
    observe(scorer, task, 0.9)
    assert task.baseline == 0.75
    observe(scorer, task, 0.75)
    assert observe(scorer, task, 1.0) > 0.0


def test_a_zero_is_a_score_and_not_unset() -> None:
    """With 0 for "unset", the averages would begin anew at the first success and show nothing of it."""
    scorer = make_scorer(settings(min_samples=5))
    task = entry()
    for _ in range(10):
        observe(scorer, task, 0.0)
    assert task.initialised
    assert (task.fast, task.slow) == (0.0, 0.0)
    signal = [observe(scorer, task, 1.0) for _ in range(3)]
    assert min(signal) > 0.4
    assert task.fast == pytest.approx(1 - 0.9**3)


def test_reweighting_keeps_the_ends_and_draws_small_ones_apart() -> None:
    scorer = LearningProgress(settings(theta=0.1))
    assert (scorer.reweighted(0.0), scorer.reweighted(1.0)) == (0.0, 1.0)
    assert scorer.reweighted(0.1) == pytest.approx(0.5)
    assert scorer.reweighted(0.1) - scorer.reweighted(0.0) > scorer.reweighted(1.0) - scorer.reweighted(0.9)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=200), st.sampled_from(["learning_progress", "variance", "replay"])
)
def test_raw_scores_stay_between_0_and_1(scores: list[float], name: str) -> None:
    scorer, task = make_scorer(settings(scorer=name, min_samples=3)), entry()
    for score in scores:
        raw = observe(scorer, task, score)
        assert 0.0 <= raw <= 1.0
        assert math.isclose(raw, scorer.value(task)) or raw == 0.0


def test_variance_is_greatest_for_what_is_solved_half_of_the_time() -> None:
    dice = random.Random(1)
    scorer = make_scorer(settings(scorer="variance", alpha=0.01))
    found = {}
    for chance in (0.0, 0.1, 0.5, 1.0):
        task = entry()
        for _ in range(5000):
            observe(scorer, task, float(dice.random() < chance))
        found[chance] = task.raw
    assert found[0.5] == pytest.approx(0.25, abs=0.03)
    assert found[0.1] == pytest.approx(0.09, abs=0.05)
    assert found[0.0] == found[1.0] == 0.0


def test_replay_scores_the_last_surprise() -> None:
    scorer, task = make_scorer(settings(scorer="replay", alpha=0.5)), entry()
    assert [observe(scorer, task, score) for score in (0.5, 1.0, 0.75)] == [0.0, 0.5, 0.0]


def test_tasks_without_progress_are_counted_by_their_raw_score() -> None:
    pool = Pooled(min_samples=2, min_presentations=2, least_progress=0.01)
    pool.mint("flat", "moving", "new")
    pool.play("flat", *[0.0] * 20)
    pool.play("moving", *[0.0] * 10, *[1.0] * 5)
    urn = pool.fold.urn
    assert urn is not None
    assert (len(urn.ranking), urn.ranking.still) == (2, 1)
    assert "flat" not in urn._part.probabilities(0)
    assert pool.fold.entries["flat"].raw == 0.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 1, 1], 0.0),
        ([1, 2, 3, 4, 5], 4 / 15),
        ([0, 0, 0, 1], 3 / 4),
        ([0] * 99 + [7], 99 / 100),
        ([2, 8], 0.3),
        ([], 0.0),
        ([0, 0], 0.0),
    ],
)
def test_the_gini_coefficient_is_the_textbooks(values: list[int], expected: float) -> None:
    assert gini(Histogram(values).of) == pytest.approx(expected)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_gini_is_half_the_mean_difference_and_has_its_maximum(values: list[int]) -> None:
    n, found = len(values), gini(Histogram(values).of)
    assert 0.0 <= found <= (n - 1) / n + 1e-12
    if sum(values):
        apart = sum(abs(x - y) for x in values for y in values)
        assert found == pytest.approx(apart / (2 * n * sum(values)), abs=1e-12)
