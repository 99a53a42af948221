"""Both searches: whatever comes in whatever order, and whoever falls, they ask, decide and tell the same."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.scoring.template import identity, placeholders
from broker.errors import RequestError, RunError
from learners.algorithm import Fragment
from learners.prompts.missing import too_many
from learners.prompts.requests import Answered, Usage
from learners.prompts.settings import SearchSettings
from tests.learners.prompt_world import MARKS, SEED, Told, World, make, play

worlds = st.builds(
    World,
    seed=st.integers(0, 10**6),
    items=st.integers(1, 9),
    failing=st.sampled_from([0.0, 0.1, 0.4]),
    spoiled=st.sampled_from([0.0, 0.3, 0.9]),
    missing=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
)
whole_worlds = worlds.filter(lambda world: not world.missing)
chosen = st.fixed_dictionaries(
    {
        "gradient_batch": st.integers(1, 4),
        "validation_batch": st.integers(1, 10),
        "beam": st.integers(1, 3),
        "branch": st.integers(1, 3),
        "rounds": st.integers(0, 3),
        "race": st.sampled_from(["none", "successive_rejects", "ucb"]),
        "calls": st.sampled_from([None, None, 30, 100]),
    }
)
NAMES = st.sampled_from(["textual_gradients", "gepa"])


def settled(told: Told) -> dict[str, Any]:
    """All that may not depend on the order of arrival."""
    return {"facts": set(told.facts), "paid": set(told.paid), "reason": told.reason, "best": told.best}


@settings(max_examples=120, deadline=None)
@given(NAMES, worlds, chosen, st.integers(0, 99), st.randoms(use_true_random=False))
def test_order_repetition_and_falls_change_nothing(
    name: str, world: World, picked: dict[str, Any], seed: int, disorder: random.Random
) -> None:
    if name == "gepa":
        picked = {**picked, "race": "none"}
    try:
        orderly = play(lambda: make(name, world, picked, seed), world)
    except (RequestError, RunError) as error:  # every first rollout failed or is missing: then it is so in every order
        with pytest.raises(type(error), match=r"not one of the .* rollouts|every rollout of the first template is"):
            play(lambda: make(name, world, picked, seed), world, disorder, repeats=0.2)
        return
    wild = play(lambda: make(name, world, picked, seed), world, disorder, repeats=0.2, falls=0.02)
    assert settled(wild) == settled(orderly)
    assert set(wild.paid.values()) <= {1}


def mean(told: Told, world: World, template: dict[str, Any]) -> float:
    """The mean of a template over the whole validation set, straight from the world."""
    from learners.algorithm import Task

    rewards = []
    for item in range(len(world.workload.validation)):
        body = {"do": "answer", "template": template["template"], "item": item, "split": "validation", "attempt": 1}
        rewards.append(world.reply(Task("t", body), {template["template"]: template["text"]})["reward"])
    return sum(rewards) / len(rewards)


@settings(max_examples=60, deadline=None)
@given(NAMES, whole_worlds, st.integers(0, 99))
def test_the_best_is_the_best_of_all_leaders_and_the_first_of_equals(name: str, world: World, seed: int) -> None:
    try:
        told = play(lambda: make(name, world, {"rounds": 3, "beam": 2, "branch": 2}, seed), world)
    except RequestError:
        return
    templates = {fact["template"]: fact for fact in told.of("template")}
    assert told.of("template")[0]["text"] == SEED
    best, best_mean = identity(SEED), mean(told, world, templates[identity(SEED)])
    rounds = sorted(told.of("round"), key=lambda fact: fact["round"])
    assert [fact["round"] for fact in rounds] == list(range(4))
    for fact in rounds[1:]:
        leader = mean(told, world, templates[fact["leader"]])
        if leader > best_mean + 1e-12:
            best, best_mean = fact["leader"], leader
        assert fact["best"] == best
        assert fact["best_mean"] == pytest.approx(best_mean)
    assert told.best == best
    last = rounds[-1]
    assert last["calls"] == sum(told.paid.values())
    for fact in templates.values():
        assert placeholders(fact["text"]) == {"question"}
        assert fact["template"] == identity(fact["text"])
        assert fact["parent"] is None or fact["parent"] in templates
    answered = {name.split("/")[2] for name in told.paid if name.startswith("p/answer/")}
    assert answered == set(templates), "what is told as a template is tested, and nothing else is"


def test_the_defaults_are_those_of_the_specification() -> None:
    found = SearchSettings()
    assert (found.gradient_batch, found.validation_batch, found.beam, found.branch, found.rounds) == (4, 16, 4, 4, 3)


def test_a_round_takes_what_the_specification_says() -> None:
    """Nothing fails or is refused: transcripts, a critique and an edit each, beam and children on one batch."""
    world = World(items=44, failing=0.0, spoiled=0.0)
    told = play(lambda: make("textual_gradients", world, {"rounds": 1}), world)
    kinds = [name.split("/")[1] for name in told.paid]
    children = {fact["template"] for fact in told.of("template")} - {identity(SEED)}
    assert (kinds.count("critique"), kinds.count("edit")) == (16, 16)
    trained = {name for name in told.paid if "/training/" in name}
    assert {name.split("/")[2] for name in trained} == {identity(SEED)}
    assert len(trained) == 44, "16 batches of 4 are more than a pass: every score is asked for once"
    scored = {child: sum(f"/{child}/validation/" in name for name in told.paid) for child in children}
    leader = told.of("round")[1]["leader"]
    assert {child: n for child, n in scored.items() if child != leader} == dict.fromkeys(children - {leader}, 16)
    assert scored[leader] == 42
    assert len(told.of("round")[1]["beam"]) == 4


def test_no_candidate_waits_for_another() -> None:
    """One candidate's first rollout never comes back: all others are scored on the whole batch all the same."""
    world = World(items=12, failing=0.0, spoiled=0.0)
    search = make("textual_gradients", world, {"rounds": 1, "beam": 2, "branch": 2, "gradient_batch": 1})
    texts: dict[str, str] = {}
    held: list[str] = []
    waiting = []
    while True:
        if search.ready():
            search.update()
            texts |= search.parameters()["templates"]
            continue
        waiting += list(search.mint())
        stuck = [task for task in waiting if task.task in held]
        free = [task for task in waiting if task.task not in held]
        if not held and (trained := [t for t in free if t.body.get("split") == "training"]):
            held.append(trained[0].task)
            continue
        if not free:
            break
        waiting = stuck + free[1:]
        search.accept(Fragment({}, (1, 0), 1, "a", free[0].task, world.reply(free[0], texts)))
    results = search.search.machine.results
    children = {fact[1]["template"] for fact in search.facts() if fact[0] == "template"} - {identity(SEED)}
    assert len(stuck) == 1
    assert len(children) >= 2
    for child in children:
        assert sum(name.startswith(f"answer/{child}/validation/") for name in results) == 10
    assert sum(name.startswith("edit/") for name in results) == 3


def test_a_leader_whose_score_comes_late_holds_up_nothing_but_the_best() -> None:
    """The first round's leader is scored on what no round compares only after all else has come."""
    world = World(seed=4, items=30, failing=0.0, spoiled=0.0)
    picked = {"rounds": 3, "validation_batch": 4, "beam": 2, "branch": 2}
    orderly = play(lambda: make("textual_gradients", world, picked), world)
    search = make("textual_gradients", world, picked).search
    compared = {item for number in range(3) for item in search.batch("validation", 4, number)}
    leader = orderly.of("round")[1]["leader"]
    late = {f"p/answer/{leader}/validation/{item}/1" for item in search.everything if item not in compared}
    wild = play(
        lambda: make("textual_gradients", world, picked), world, random.Random(1), share_slow=0.0, last=frozenset(late)
    )
    assert settled(wild) == settled(orderly)
    assert len(set(list(wild.paid)[-len(late) :]) & late) == len(late), "all else was over by then"


@pytest.mark.parametrize("race", ["successive_rejects", "ucb"])
def test_a_race_takes_fewer_rollouts(race: str) -> None:
    world = World(seed=3, items=40, failing=0.0, spoiled=0.0)
    whole = play(lambda: make("textual_gradients", world, {"rounds": 2}), world)
    raced = play(lambda: make("textual_gradients", world, {"rounds": 2, "race": race}), world)
    assert sum(raced.paid.values()) < 0.85 * sum(whole.paid.values())
    assert raced.of("round")[-1]["best_mean"] > raced.of("round")[0]["best_mean"]


def test_the_search_climbs() -> None:
    world = World(seed=1, items=30)
    for name in ("textual_gradients", "gepa"):
        rounds = play(lambda name=name: make(name, world, {"rounds": 4}), world).of("round")
        assert rounds[0]["best_mean"] == 0.0
        assert rounds[-1]["best_mean"] > 0.5


def test_a_budget_is_kept_and_known_beforehand() -> None:
    world = World(seed=5, items=20, failing=0.0, spoiled=0.0)
    for name in ("textual_gradients", "gepa"):
        for limit in (18, 60, 150):
            told = play(lambda name=name, limit=limit: make(name, world, {"calls": limit, "rounds": 50}), world)
            assert sum(told.paid.values()) <= limit
            assert "bears no further round" in told.reason or "all rounds" in told.reason
    told = play(lambda: make("textual_gradients", world, {"money": 0.3, "rounds": 50}), world)
    assert 0.15 < 0.001 * sum(told.paid.values()) <= 0.3
    with pytest.raises(RequestError, match=r"learner\.settings\.calls: 17 calls do not even"):
        make("gepa", world, {"calls": 17})


class Dearer(World):
    """Completions take 40 calls each, which nobody could know."""

    def reply(self, task: Any, texts: dict[str, str]) -> dict[str, Any]:
        note = super().reply(task, texts)
        if note["do"] == "complete":
            note["usage"][0]["calls"] = 40
        return note


def test_a_budget_that_is_spent_by_surprise_ends_the_search_with_the_best_so_far() -> None:
    world = Dearer(seed=5, items=20, failing=0.0, spoiled=0.0)
    told = play(lambda: make("textual_gradients", world, {"calls": 900, "rounds": 50}), world)
    completions = sum("/critique/" in name or "/edit/" in name for name in told.paid)
    assert told.reason.startswith("the budget of 900 calls is spent: the best template is ")
    assert completions * 40 < 900 + 40 * 16, "no more than what was under way"
    assert told.best == identity(SEED)


class Chatty(World):
    """An agent that makes 50 calls for one answer, which nobody could know."""

    def reply(self, task: Any, texts: dict[str, str]) -> dict[str, Any]:
        note = super().reply(task, texts)
        note["usage"][0]["calls"] = 50
        return note


@pytest.mark.parametrize("algorithm", ["textual_gradients", "gepa"])
def test_a_budget_holds_from_the_first_template_on(algorithm: str) -> None:
    world = Chatty(items=202, failing=0.0)
    told = play(lambda: make(algorithm, world, {"calls": 1000}), world)
    assert told.reason.startswith("the budget of 1,000 calls is spent, and the first template is not scored on all")
    assert sum(told.paid.values()) == 20


def test_a_first_template_that_never_succeeds_is_a_wrong_request() -> None:
    world = World(failing=1.0)
    with pytest.raises(RequestError, match=r"not one of the 5 rollouts of the first template succeeded.*timed out"):
        play(lambda: make("textual_gradients", world, {}), world)


@pytest.mark.parametrize("algorithm", ["textual_gradients", "gepa"])
def test_what_was_given_up_is_missing_and_waited_for_no_longer(algorithm: str) -> None:
    world = World(seed=3, missing=0.3)
    given_up = play(lambda: make(algorithm, world, {"rounds": 3}), world, gives_up=True)
    missing = play(lambda: make(algorithm, world, {"rounds": 3}), world)
    assert (given_up.reason, given_up.best, given_up.paid) == (missing.reason, missing.best, missing.paid)
    for kind in ("template", "refused_template"):
        assert given_up.of(kind) == missing.of(kind) != []
    assert [fact["best"] for fact in given_up.of("round")] == [fact["best"] for fact in missing.of("round")] != []


# --- trials that are missing


@settings(max_examples=60, deadline=None)
@given(NAMES, worlds, chosen, st.integers(0, 99), st.sampled_from([0.1, 0.5, 1.0]))
def test_a_resumed_search_comes_to_what_it_would_have_come_to(
    name: str, world: World, picked: dict[str, Any], seed: int, missing: float
) -> None:
    """Missing trials are asked for again, also those of a search that went on to its end; others are not."""
    if name == "gepa":
        picked = {**picked, "race": "none"}
    picked = {**picked, "calls": None}
    whole, disturbed = replace(world, missing=0.0), replace(world, missing=missing)
    try:
        undisturbed = play(lambda: make(name, whole, picked, seed), whole)
    except RequestError:
        return
    recorded: dict[str, dict[str, Any]] = {}
    search = make(name, whole, picked, seed)
    with suppress(RequestError, RunError):
        play(lambda: search, disturbed, recorded=recorded)
    again = make(name, whole, picked, seed)
    again.restore(search.snapshot())
    measured = {task: note for task, note in recorded.items() if not note.get("missing")}
    resumed = play(lambda: again, whole, recorded=dict(measured))
    assert (resumed.reason, resumed.best) == (undisturbed.reason, undisturbed.best)
    assert [f["beam"] for f in resumed.of("round")] == [f["beam"] for f in undisturbed.of("round")]
    assert not resumed.paid.keys() & measured.keys()


class Absent(World):
    """All trials of one template on validation questions are missing, however often it is scored."""

    absent = ""

    def reply(self, task: Any, texts: dict[str, str]) -> dict[str, Any]:
        note = super().reply(task, texts)
        if note["do"] == "answer" and note["split"] == "validation" and note["template"] == self.absent:
            note |= {"reward": None, "failed": True, "missing": "time", "reason": "not done within 50 s"}
        return note


@pytest.mark.parametrize("race", ["none", "successive_rejects", "ucb"])
def test_a_candidate_that_is_missing_is_neither_best_nor_gone(race: str) -> None:
    picked = {"rounds": 2, "beam": 2, "branch": 2, "race": race}
    world = Absent(seed=3, items=12, failing=0.0, spoiled=0.0)
    first = play(lambda: make("textual_gradients", world, picked), world).of("round")[1]
    Absent.absent = first["leader"]
    try:
        told = play(lambda: make("textual_gradients", world, picked), world)
    finally:
        Absent.absent = ""
    rounds = told.of("round")
    for fact in rounds[1:]:
        assert fact["leader"] != first["leader"]
        assert fact["best"] != first["leader"]
        assert fact["beam"][-1] == first["leader"], "it stays, behind those that were compared"
        assert len(fact["beam"]) == 3


def test_more_than_a_small_share_that_is_missing_fails_the_run() -> None:
    world = World(seed=3, items=40, missing=0.3)
    with pytest.raises(
        RunError, match=r"^[45] of 38 trials are missing, more than prompts\.max_missing_share = 0\.1.*no"
    ):
        play(lambda: make("textual_gradients", world, {}, max_missing_share=0.1), world)
    few = replace(world, missing=0.02)
    assert "all rounds" in play(lambda: make("gepa", few, {"rounds": 1}, max_missing_share=0.1), few).reason
    with pytest.raises(RunError, match=r"max_missing_share = 0, "):
        play(lambda: make("gepa", few, {"rounds": 1}, max_missing_share=0.0), few)


def test_when_too_many_are_missing() -> None:
    def wrong(kind: str, missing: int, asked: int, *, ended: bool = False, share: float = 0.1) -> str:
        names = [f"answer/t{number % 2}/validation/{number}/1" for number in range(asked)]
        result = Answered(0.0, True, "", f"the {kind}", Usage(), kind)
        return too_many(dict.fromkeys(names[:missing], result), names, share, ended=ended) or ""

    assert not wrong("endpoint", 0, 10)
    assert not wrong("endpoint", 1, 4), "one by itself ends no search that goes on"
    assert "1 of 4 trials are missing" in wrong("endpoint", 1, 4, ended=True)
    assert not wrong("endpoint", 2, 20)
    assert "3 of 20 trials are missing, more than" in wrong("endpoint", 3, 20)
    assert wrong("account", 1, 1000).startswith("the account: 1 of 1,000 trials are missing; repair that")
    assert not wrong("grader", 1, 4, share=1.0)
    assert "the grader gave no answer of template t0 a reward: the grader" in wrong("grader", 4, 4, share=1.0)


def test_what_came_to_nothing_is_told_with_its_reason() -> None:
    world = World(seed=2, items=12, spoiled=0.9)
    told = play(lambda: make("textual_gradients", world, {"rounds": 3}), world)
    reasons = " | ".join(fact["reason"] for fact in told.of("refused_template"))
    assert "the critique is empty" in reasons
    world = World(seed=2, items=12, spoiled=0.5)
    told = play(lambda: make("gepa", world, {"rounds": 3}), world)
    reasons = " | ".join(fact["reason"] for fact in told.of("refused_template"))
    for part in (
        "it lost {question}",
        "it added {other}",
        "the brace '{'",
        "it was tested already",
        "the edit is empty",
    ):
        assert part in reasons


def test_twins_are_tested_once_and_belong_to_the_first_candidate() -> None:
    class Twins(World):
        def reply(self, task: Any, texts: dict[str, str]) -> dict[str, Any]:
            note = super().reply(task, texts)
            if note["do"] == "complete" and note["role"] == "edit":
                note["text"] = f"<template>{MARKS[0]} {SEED}</template>"
            return note

    world = Twins(failing=0.0, spoiled=0.0)
    told = play(lambda: make("textual_gradients", world, {"rounds": 1, "beam": 2, "branch": 2}), world)
    refused = {fact["candidate"]: fact["reason"] for fact in told.of("refused_template")}
    assert set(refused) == {1, 2, 3}
    assert all("candidate 0 of this round wrote it too" in reason for reason in refused.values())
    assert set(told.paid.values()) == {1}


@pytest.mark.parametrize(
    ("picked", "told"),
    [
        ({"beem": 3}, r"learner\.settings\.beem.*known are gradient_batch"),
        ({"beam": 0}, r"learner\.settings\.beam"),
        ({"race": "quick"}, r"learner\.settings\.race"),
    ],
)
def test_wrong_settings_are_named(picked: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        make("textual_gradients", World(), picked)


def test_gepa_has_nothing_to_race() -> None:
    with pytest.raises(RequestError, match=r"learner\.settings\.race: gepa scores"):
        make("gepa", World(), {"race": "ucb"})


def test_a_snapshot_of_another_algorithm_is_refused() -> None:
    snapshot = make("gepa", World(), {}).snapshot()
    with pytest.raises(RunError, match="gepa"):
        make("textual_gradients", World(), {}).restore(snapshot)
