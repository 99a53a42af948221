"""The scripted model solves its questions from their text, and is worth optimising for."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.scoring import dataset, grading
from actors.scoring.template import fill, placeholders
from actors.scripted.answering import UNKNOWN
from actors.scripted.draws import Draws
from actors.scripted.editing import lacks
from actors.scripted.model import read, reply
from actors.scripted.questions import KINDS, find
from actors.scripted.themes import FLUFF, THEMES, VAGUE, strengths
from tests.actors.simulation import GOOD_TEMPLATE, SEED_TEMPLATE

QUESTIONS = Path(__file__).parents[2] / "runs" / "questions"
TRAINING = dataset.load(QUESTIONS / "training.jsonl", ["question", "answer"])
VALIDATION = dataset.load(QUESTIONS / "validation.jsonl", ["question", "answer"])


def asked(text: str, seed: int = 1, attempt: str = "1", **shares: float) -> str:
    messages = [{"role": "user", "content": text}]
    return reply(read(messages), Draws(seed, messages, attempt), **shares)


def mean(template: str, seeds: int = 6, tasks: Any = VALIDATION) -> float:
    rewards = [grading.exact(t, asked(fill(template, t), seed))[0] for seed in range(seeds) for t in tasks]
    return sum(rewards) / len(rewards)


def test_the_shipped_questions_are_solved_from_their_text() -> None:
    assert (len(TRAINING), len(VALIDATION)) == (24, 48)
    for task in (*TRAINING, *VALIDATION):
        (question,) = find(task["question"])
        assert (question.text, question.answer) == (task["question"], task["answer"])
        assert question.slip != question.answer
    assert not {t["question"] for t in TRAINING} & {t["question"] for t in VALIDATION}
    for tasks in (TRAINING, VALIDATION):
        assert {t["kind"] for t in tasks[:8]} == set(KINDS), "the first eight are of every kind"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("A boat yard has 33 tiles. It gets 9 boxes of 7 tiles and sells 17 tiles. How many tiles are left?", "79"),
        ("A bus leaves at 21:55 and travels for 5 hours and 30 minutes. When does it arrive?", "03:25"),
        ("Today is Sunday. Which day of the week is it in 8 days?", "Monday"),
        ("Put these words in alphabetical order: weir, canal, brook, river.", "brook, canal, river, weir"),
        ("How often does the letter s occur in the word possession?", "4"),
        ("How many seconds are 3 minutes and 7 seconds?", "187"),
        ("Ana reads 5 pages on each of 3 days and 4 pages on the day after. How many pages is that in all?", "19"),
    ],
)
def test_other_questions_of_these_kinds_are_solved_too(question: str, answer: str) -> None:
    (found,) = find(f"Some words before it. {question} And after.")
    assert found.answer == answer


def test_what_it_does_not_know_it_says() -> None:
    assert asked("What is the capital of France?") == UNKNOWN


@given(st.text(max_size=300))
def test_any_text_gets_a_reply(text: str) -> None:
    assert isinstance(asked(text), str)


@given(st.integers(0, 9), st.integers(0, 47), st.text(max_size=5))
def test_a_reply_is_a_function_of_seed_messages_and_attempt(seed: int, item: int, attempt: str) -> None:
    text = fill(SEED_TEMPLATE, VALIDATION[item])
    assert asked(text, seed, attempt) == asked(text, seed, attempt)


def test_seeds_attempts_and_templates_make_a_difference() -> None:
    text = fill(SEED_TEMPLATE, VALIDATION[0])
    assert len({asked(text, seed) for seed in range(20)}) > 2
    assert len({asked(text, 1, str(attempt)) for attempt in range(20)}) > 2


def test_templates_differ_in_what_they_are_worth() -> None:
    brief, bare = "Be brief.\n" + SEED_TEMPLATE, "Reply with the answer alone.\n" + SEED_TEMPLATE
    steps = "Work step by step.\n"
    worth = {t: mean(t) for t in (SEED_TEMPLATE, brief, bare, steps + SEED_TEMPLATE, steps + bare, GOOD_TEMPLATE)}
    assert 0.2 <= worth[SEED_TEMPLATE] <= 0.35, worth
    assert worth[SEED_TEMPLATE] + 0.04 < worth[brief] < worth[bare], worth
    assert worth[steps + SEED_TEMPLATE] < worth[SEED_TEMPLATE], "steps that are shown spoil the answer"
    assert worth[bare] + 0.1 < worth[steps + bare] < worth[GOOD_TEMPLATE] - 0.2, worth
    assert 0.92 <= worth[GOOD_TEMPLATE] <= 0.98, worth
    assert abs(mean(FLUFF[0] + "\n" + SEED_TEMPLATE) - worth[SEED_TEMPLATE]) < 0.08


def test_every_phrase_means_what_it_is_for() -> None:
    for name, theme in THEMES.items():
        for strength, phrases in ((1.0, theme.strong_phrases), (0.5, theme.weak_phrases)):
            for phrase in phrases:
                assert strengths(phrase)[name] == strength, phrase
        found = strengths(theme.complaint)
        assert {other for other, strength in found.items() if strength} == {name}, theme.complaint
    for empty in (*FLUFF, *VAGUE, SEED_TEMPLATE):
        assert not any(strengths(empty).values()), empty


def transcript(task: dict[str, Any], answer: str, reward: float) -> str:
    return f"question: {task['question']}\nanswer: {answer}\nreward: {reward}"


def test_a_critique_names_what_the_failed_transcripts_lack() -> None:
    (times,) = [t for t in TRAINING[:8] if t["kind"] == "arrival"]
    (lists,) = [t for t in TRAINING[:8] if t["kind"] == "sorting"]
    wrapped = lacks(SEED_TEMPLATE, transcript(lists, f"It is {lists['answer']}.", 0.0))
    assert max(wrapped, key=wrapped.__getitem__) == "bare"
    assert wrapped["clock"] == wrapped["digits"] == 0
    late = lacks(SEED_TEMPLATE, transcript(times, "6:40 pm", 0.0))
    assert late["clock"] > 0
    assert late["lists"] == 0
    assert not any(lacks(SEED_TEMPLATE, transcript(lists, lists["answer"], 1.0)).values())
    assert lacks(THEMES["clock"].strong_phrases[0], transcript(times, "6:40 pm", 0.0))["clock"] == 0


def test_an_edit_answers_its_critique_and_keeps_the_placeholders() -> None:
    criticism = THEMES["clock"].complaint
    request = f"<template>\n{SEED_TEMPLATE}\n</template>\n<critique>\n{criticism}\n</critique>\nWrite a new template."
    edited = {asked(request, seed) for seed in range(30)}
    assert len(edited) > 1
    for one in edited:
        text = one.removeprefix("<template>\n").removesuffix("\n</template>")
        assert placeholders(text) == {"question"}
        assert strengths(text)["clock"] > 0
    broken = [asked(request, seed, broken=1.0) for seed in range(10)]
    assert all("{question}" not in one for one in broken)


def test_a_critique_may_be_empty_and_asks_for_no_template() -> None:
    request = f"<template>\n{SEED_TEMPLATE}\n</template>\n\nSay what it lacks. Do not write a new template."
    assert read([{"role": "user", "content": request}]).role == "critique"
    assert asked(request, empty=1.0) == ""


def test_critiques_and_edits_climb() -> None:
    """The best of four edits, five times over, on the training questions: as an optimiser would, but greedily."""
    template = SEED_TEMPLATE
    for step in range(5):
        shown = "\n\n".join(
            transcript(t, a := asked(fill(template, t)), grading.exact(t, a)[0])
            for t in TRAINING[step * 4 : step * 4 + 8]
        )
        children = [template]
        for branch in range(4):
            place = f"{step}.{branch}"
            told = asked(f"Say what is wrong.\n<template>\n{template}\n</template>\n\n{shown}", attempt=place)
            request = f"<template>\n{template}\n</template>\n<critique>\n{told}\n</critique>\nEdit the template."
            found = re.fullmatch(r"<template>\n(.*)\n</template>", asked(request, attempt=place), re.DOTALL)
            assert found is not None
            children.append(found[1])
        template = max(children, key=lambda child: mean(child, 1, TRAINING))
    assert mean(template) > mean(SEED_TEMPLATE) + 0.3, template


def test_draws_by_weight_and_share() -> None:
    draws = [Draws(seed, [], "") for seed in range(2000)]
    counted = Counter(d.weighted("w", {"a": 3.0, "b": 1.0, "c": 0.0}) for d in draws)
    assert set(counted) == {"a", "b"}
    assert 0.7 < counted["a"] / 2000 < 0.8
    assert Draws(1, [], "").weighted("w", {"a": 0.0}) is None
    assert 0.25 < sum(d.chance("x", 0.3) for d in draws) / 2000 < 0.35
