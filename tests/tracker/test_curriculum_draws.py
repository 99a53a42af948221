from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from tests.tracker.pools import Pooled, settings
from tracker.curriculum.dice import Dice
from tracker.curriculum.drawing import Urn
from tracker.curriculum.entry import Entry
from tracker.curriculum.trees import AgeTree, SumTree


def urn_of(raws: list[float | None], **given: Any) -> tuple[Urn, list[Entry]]:
    """Tasks with these raw scores; None is a task with too few samples."""
    urn = Urn(settings(**given))
    entries = []
    for slot, raw in enumerate(raws):
        entry = Entry(f"t{slot}", slot, slot, "l", None, "{}", 1, count=0 if raw is None else 50, raw=raw or 0.0)
        entry.drawn_at = (slot * 7) % 11
        entries.append(entry)
        urn.put(entry)
    return urn, entries


def chi_square(urn: Urn, draws: int, at: int) -> tuple[float, int]:
    expected = urn.probabilities(at)
    dice, seen = Dice.seeded(3), dict.fromkeys(expected, 0)
    for _ in range(draws):
        entry = urn.draw(dice, at)
        assert entry is not None
        seen[entry.name] += 1
    assert not any(seen[name] for name, p in expected.items() if p == 0.0)
    rare = [name for name, p in expected.items() if 0 < p * draws < 5]
    cells = [(seen[name], p * draws) for name, p in expected.items() if p * draws >= 5]
    if rare:
        cells.append((sum(seen[name] for name in rare), sum(expected[name] for name in rare) * draws))
    return sum((found - want) ** 2 / want for found, want in cells if want > 0), len(cells) - 1


RAWS: list[float | None] = [None, None, None, 0.0, 0.0, 0.02, 0.05, 0.1, 0.1, 0.2, 0.35, 0.4, 0.41, 0.9, 1.0]


@pytest.mark.parametrize("scorer", ["learning_progress", "variance", "replay", "uniform"])
@pytest.mark.parametrize("shares", [(0.1, 0.2), (0.0, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_draws_follow_the_exact_distribution(scorer: str, shares: tuple[float, float]) -> None:
    epsilon, kappa = shares
    urn, _ = urn_of(RAWS, scorer=scorer, epsilon=epsilon, kappa=kappa, temperature=0.7, staleness=0.3)
    found, freedom = chi_square(urn, 20_000, at=40)
    # Wilson and Hilferty: the cube root is nearly normal; 5 deviations are one false alarm in millions.
    z = ((found / max(freedom, 1)) ** (1 / 3) - (1 - 2 / (9 * max(freedom, 1)))) / math.sqrt(2 / (9 * max(freedom, 1)))
    assert freedom >= 2
    assert z < 5


def test_the_lp_part_is_the_sigmoid_of_z_over_tasks_with_progress() -> None:
    urn, _ = urn_of([None, 0.0, 0.1, 0.2, 0.6], epsilon=0.0, kappa=0.0)
    raws = [0.1, 0.2, 0.6]
    mean = sum(raws) / 3
    deviation = math.sqrt(sum((raw - mean) ** 2 for raw in raws) / 3)
    weights = [1 / (1 + math.exp(-(raw - mean) / deviation)) for raw in raws]
    found = urn.probabilities(0)
    assert [found[f"t{slot}"] for slot in (2, 3, 4)] == pytest.approx([w / sum(weights) for w in weights])
    assert found["t0"] == found["t1"] == 0.0


@limits(max_examples=200, deadline=None)
@given(
    st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=40),
    st.sampled_from(["learning_progress", "replay", "uniform"]),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_it_sums_to_1_whatever_part_is_empty(
    raws: list[float | None], scorer: str, epsilon: float, kappa: float
) -> None:
    urn, _ = urn_of(raws, scorer=scorer, epsilon=epsilon, kappa=kappa * (1 - epsilon))
    found = urn.probabilities(50)
    assert len(found) == len(raws)
    assert min(found.values()) >= 0.0
    assert math.fsum(found.values()) == pytest.approx(1.0)


def test_ineligible_tasks_do_not_dilute_the_others() -> None:
    few: list[float | None] = [None]
    alone, _ = urn_of([0.1, 0.3], epsilon=0.1, kappa=0.2)
    among, _ = urn_of([0.1, 0.3, *few * 1000], epsilon=0.1, kappa=0.2)
    part = among._part.probabilities(0)
    assert part == alone._part.probabilities(0)
    found = among.probabilities(0)
    assert found["t0"] + found["t1"] == pytest.approx(0.7 + 0.1 * 2 / 1002)
    assert sum(alone.probabilities(0).values()) == pytest.approx(
        1.0
    )  # nobody has too few: the share goes to the others


def test_what_rests_or_is_gone_is_not_drawn() -> None:
    pool = Pooled(min_samples=1, min_presentations=1)
    pool.mint("a", "b", "c")
    pool.error(pool.lease("a"), "a")
    pool.error(pool.lease("b"), "b", permanent=True)
    pool.decide()
    assert {task for _, task in pool.draw(200)} == {"c"}
    assert pool.fold.urn is not None
    assert pool.fold.urn.probabilities(0) == {"c": pytest.approx(1.0)}


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 9)), min_size=1, max_size=60))
def test_a_sum_tree_finds_as_a_list_does(changes: list[tuple[int, int]]) -> None:
    tree, plain = SumTree(16), [0] * 16
    for place, weight in changes:
        tree.add(place, weight - plain[place])
        plain[place] = weight
    assert tree.total == sum(plain)
    laid = [(place, within) for place, weight in enumerate(plain) for within in range(weight)]
    assert [tree.find(target) for target in range(tree.total)] == laid


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9) | st.none()), max_size=60))
def test_ages_lie_end_to_end(changes: list[tuple[int, int | None]]) -> None:
    tree = AgeTree()
    plain: dict[int, int] = {}
    for place, birth in changes:
        if birth is None:
            tree.take(place)
            plain.pop(place, None)
        else:
            tree.put(place, birth)
            plain[place] = birth
    now = 12
    laid = [place for place in sorted(plain) for _ in range(now - plain[place])]
    assert tree.total(now) == len(laid)
    assert [tree.find(target, now) for target in range(len(laid))] == laid


def test_dice_are_even_and_repeat() -> None:
    one, other = Dice.seeded(5), Dice.seeded(5)
    assert [one.bits() for _ in range(5)] == [other.bits() for _ in range(5)]
    assert Dice.of(one.text).bits() == other.bits()
    rolls = [one.below(6) for _ in range(60_000)]
    assert all(9_500 < rolls.count(side) < 10_500 for side in range(6))
    assert sum(one.unit() for _ in range(20_000)) / 20_000 == pytest.approx(0.5, abs=0.02)
    assert Dice(0).bits() == 0xE220A8397B1DCDAF  # of the reference implementation, seed 0
