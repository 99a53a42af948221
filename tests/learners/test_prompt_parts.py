"""What a search is made of, each part by itself: racing, the front, the messages and replies, the budget."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.scoring.template import MAX_TEMPLATE
from broker.delivery import MAX_BODY, body_text
from learners.prompts import budget, messages, pareto, racing
from learners.prompts.requests import Answered, Usage, read
from learners.prompts.settings import SearchSettings


@given(st.integers(1, 40), st.integers(1, 6), st.floats(0.05, 1.0), st.integers(1, 64))
def test_successive_rejects_keeps_its_budget(arms: int, keep: int, part: float, batch: int) -> None:
    limit = max(arms, int(part * arms * batch))
    schedule = racing.rejects(arms, keep, limit, batch)
    assert len(schedule) == max(0, arms - keep)
    assert schedule == sorted(schedule)
    assert all(1 <= pulls <= batch for pulls in schedule)
    taken = sum(schedule) + (keep * schedule[-1] if schedule else 0)
    assert taken <= limit + arms, "roundings: one for each at most"


def test_successive_rejects_is_that_of_the_paper() -> None:
    """20 arms, 160 pulls: log-bar of 20 is 3.0977, n_1 = ceil(140 / (3.0977 x 20)), n_16 = ceil(140 / (3.0977 x 5))."""
    schedule = racing.rejects(20, 4, 160, 16)
    assert (schedule[0], schedule[-1]) == (3, 10)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 40), st.integers(0, 400))
def test_ucb_ends_within_its_budget(means: list[float], wide: int, batch: int, limit: int) -> None:
    pulls = [min(batch, racing.step_size(batch))] * len(means)
    began = sum(pulls)
    while step := racing.next_pulls(means, pulls, wide=wide, budget=limit, batch=batch, exploration=0.5):
        for arm, had in step.items():
            assert pulls[arm] < had <= batch
            pulls[arm] = had
    assert sum(pulls) <= max(limit, began)


def test_ucb_pulls_whom_it_knows_least_and_who_is_best() -> None:
    assert racing.next_pulls([0.9, 0.5, 0.1], [8, 8, 8], wide=1, budget=99, batch=16, exploration=0.5) == {0: 10}
    assert racing.next_pulls([0.5, 0.5, 0.5], [8, 8, 2], wide=1, budget=99, batch=16, exploration=0.5) == {2: 4}


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.sampled_from([0, 0.5, 1]), min_size=n, max_size=n), min_size=1, max_size=6)
    )
)
def test_the_front_covers_every_instance(scores: list[list[float]]) -> None:
    shares = pareto.front(scores)
    for column in zip(*scores, strict=True):
        assert any(column[k] == max(column) for k in shares), "somebody on the front is best there"
    for k in shares:
        others = [other for other in shares if other != k]
        alone = [i for i in range(len(scores[0])) if scores[k][i] > max((scores[o][i] for o in others), default=-1)]
        assert alone, "nobody on the front could be left out"


def test_the_front_of_an_example() -> None:
    """A specialist stays beside the one of the highest mean; who is best nowhere alone goes."""
    assert pareto.front([[1, 1, 0], [0, 0, 1], [1, 0.5, 0.5]]) == {0: 2, 1: 1}
    assert pareto.draw({0: 2, 1: 1}, random.Random(1)) in (0, 1)


@pytest.mark.parametrize(
    ("reply", "template"),
    [
        ("<template>\nDo {question}\n</template>", "Do {question}"),
        ("Here it is:\n<template>Do {question}</template>\nGood luck", "Do {question}"),
        ("<template>\n```text\nDo\n{question}\n```\n</template>", "Do\n{question}"),
        ("<think>Old <template> {x}</think>\n<template>Do {question}</template>", "Do {question}"),
        ("I keep it.</think><template>Do {question}</template>", "Do {question}"),
        (
            "<template>Write <think>..</think> first. {q}</template>",
            "Write <think>..</think> first. {q}",
        ),
        ("Of <template>Old {question}</template> I make\n<template>Do {question}</template>", "Do {question}"),
        ("<template>Write <template> first. {question}</template>", "Write <template> first. {question}"),
        ("Sure! Here is a better one:\n\nDo {question}\n\nLet me know if you want changes.", None),
        ("```\nDo {question}\n```", None),
        ("<think>I keep {question}.</think>\n\nDo {question}", None),
        ("</template>", None),
        ("<think><template>Do {question}</template>", ""),
        ("", ""),
    ],
)
def test_template_of_reads_tags_alone(reply: str, template: str | None) -> None:
    assert messages.template_of(reply) == template


def test_equal_messages_of_two_candidates_are_two_completions() -> None:
    told = [messages.Transcript({"question": "q"}, Answered(0.0, True, "", "timed out", Usage()))]
    one, again, two = (messages.critique("T {question}", told, sequence) for sequence in (1, 1, 2))
    assert one.name == again.name != two.name
    assert one.body == two.body
    assert "the rollout failed" in one.body["messages"][1]["content"]
    assert len(one.name) < 200


def test_the_largest_messages_fit_into_a_task() -> None:
    task = {"question": '"' * 5000}
    told = [messages.Transcript(task, Answered(0.5, False, '"' * 2000, '"' * 500, Usage()))] * 64
    largest = messages.critique('"' * MAX_TEMPLATE, told, 1)
    assert len(body_text(largest.body)) < MAX_BODY
    edit = messages.edit("T" * MAX_TEMPLATE, '"' * messages.LONGEST_CRITIQUE, frozenset({"q"}), (1, 1), 1)
    assert len(body_text(edit.body)) < MAX_BODY


@pytest.mark.parametrize(
    ("note", "told"),
    [
        (None, "mapping"),
        ({"do": "dance"}, "dance"),
        ({"do": "answer", "reward": 7.0}, "reward"),
        ({"do": "answer", "reward": float("nan")}, "reward"),
        ({"do": "answer", "reward": 1.0, "usage": [{"calls": -1}]}, r"usage\.calls"),
        ({"do": "answer", "reward": 1.0, "usage": 3}, "usage"),
    ],
)
def test_a_result_that_cannot_be_is_refused(note: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(note)


def test_a_failed_rollout_is_a_nought_whatever_it_says() -> None:
    assert read({"do": "answer", "reward": 1.0, "failed": True}).reward == 0.0  # type: ignore[union-attr]


@given(st.integers(1, 10_000), st.integers(1, 10**6), st.integers(1, 500), st.integers(0, 500), st.integers(1, 10**6))
def test_what_is_begun_ends_within_the_budget(calls: int, tokens: int, answers: int, under_way: int, used: int) -> None:
    settings_ = SearchSettings(calls=calls, tokens=tokens)
    more = budget.room(settings_, Usage(answers, used), answers, under_way)
    if more > 0 and under_way + more > 1:
        whole = answers + under_way + more
        assert whole <= calls
        assert used / answers * whole <= tokens * (1 + 1e-9)
    assert more > 0 or under_way > 0
    assert budget.room(settings_, Usage(), 0, 0) == budget.FIRST


def test_spending_does_not_depend_on_its_order() -> None:
    usages = [Usage(1, 2, cost) for cost in (0.1, 0.2, 0.3, 1e-9, 7.7)]
    assert len({budget.added(order) for order in (usages, usages[::-1], usages[2:] + usages[:2])}) == 1
