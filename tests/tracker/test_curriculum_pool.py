from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import pytest

from broker.errors import RequestError
from tests.tracker import bodies as b
from tests.tracker.pools import SECOND, Pooled, settings
from tracker.curriculum.answers import drawn_for
from tracker.curriculum.report import Section, section
from tracker.curriculum.settings import CurriculumSettings


def kinds(facts: list[tuple[str, Any]]) -> list[str]:
    return [kind for kind, _ in facts]


def test_minted_tasks_are_accepted_by_a_fact_and_drawn_again_and_again() -> None:
    pool = Pooled()
    assert pool.draw() == []  # an empty pool answers empty
    pool.mint("a", "b", label="räume/eng")
    request = pool.ask(20)
    facts = pool.decide(request)
    assert kinds(facts) == ["draw"]
    answer = drawn_for(pool.fold, request)
    assert answer is not None
    assert [task.draw for task in answer.drawn] == list(range(1, 21))
    assert {(task.task, task.label, task.body) for task in answer.drawn} == {
        ("a", "räume/eng", '{"name":"a"}'), ("b", "räume/eng", '{"name":"b"}'),
    }  # fmt: skip
    for task in answer.drawn:
        pool.outcome(task.draw or 0, task.task, 0.5)
    assert pool.fold.counts.outcomes == 20
    assert not pool.fold.presentations.open
    assert len(pool.draw(3)) == 3  # it is not done: it goes back


def test_an_id_is_used_once_ever() -> None:
    pool = Pooled(min_samples=1)
    pool.mint("a", "a")
    pool.error(pool.lease("a"), "a", permanent=True)
    pool.decide()
    assert set(pool.fold.ended.fresh) == {"a"}
    pool.mint("a")
    assert [body["declined"] for kind, body in told(pool, "pool_accept")] == [
        [(1, "a", "the id was used already")], [(0, "a", "the id was used already")],
    ]  # fmt: skip
    assert (pool.fold.counts.minted, pool.fold.counts.declined) == (1, 2)


def told(pool: Pooled, kind: str) -> list[tuple[str, Any]]:
    return [(fact.kind, fact.body) for fact in pool.facts if fact.kind == kind]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (7, "a label is a text, not int"),
        (None, "a label is a text, not NoneType"),
        (["x"], "a label is a text, not list"),
        ("", "a label has 1 to 256 characters, not 0"),
        ("x" * 257, "a label has 1 to 256 characters, not 257"),
    ],
)
def test_a_wrong_label_costs_its_task_alone(label: Any, why: str) -> None:
    pool = Pooled()
    tasks = [{"task": "bad", "label": label, "body": {}}, {"task": "good", "label": "l", "body": {}}]
    pool.write("actor-0", "mint", {"tasks": tasks})
    ((_, body),) = pool.decide()
    assert body == {"of": len(pool.facts) - 1, "accepted": 1, "declined": [[0, "bad", why]]}
    assert list(pool.fold.entries) == ["good"]


def test_a_full_pool_declines_and_says_so() -> None:
    pool = Pooled(capacity=2)
    pool.mint("a", "b", "c")
    ((_, body),) = told(pool, "pool_accept")
    assert body["declined"] == [(2, "c", "the pool is full")]
    assert len(pool.fold.entries) == 2


def test_a_late_outcome_of_an_evicted_task_touches_no_other() -> None:
    pool = Pooled(min_samples=1)
    pool.mint("a", "b")
    late, bad = pool.lease("a"), pool.lease("a")
    pool.error(bad, "a", permanent=True)
    assert kinds(pool.decide()) == ["pool_evict"]
    pool.mint("c")  # has the slot that was the evicted task's
    before = [astuple(entry) for entry in pool.fold.entries.values()]
    pool.outcome(late, "a", 1.0)
    facts = pool.decide()
    assert facts == [("late_outcome", {"task": "a", "from": "actor-0", "of": facts[0][1]["of"], "score": 1.0})]
    assert [astuple(entry) for entry in pool.fold.entries.values()] == before
    assert set(pool.fold.ended.fresh) == {"a"}
    assert (pool.fold.counts.late, pool.fold.counts.outcomes) == (1, 0)
    assert pool.decide() == []


@pytest.mark.parametrize("score", [1.0001, -0.1, 1e300, None])
def test_a_wrong_score_is_an_error_of_the_task_and_not_a_score(score: float | None) -> None:
    pool = Pooled()
    pool.mint("a")
    pool.play("a", 0.5)
    pool.outcome(pool.lease("a"), "a", score)
    refused, rest = pool.decide()
    assert refused[0] == "outcome_refused"
    assert "a score is a number from 0 to 1" in refused[1]["reason"]
    assert rest[0] == "pool_rest"
    entry = pool.fold.entries["a"]
    assert (entry.count, entry.total, entry.transient) == (1, 0.5, 1)
    assert not pool.fold.presentations.open


def test_outcomes_that_cannot_count_are_answered_by_a_fact() -> None:
    pool = Pooled()
    pool.mint("a", "b")
    number = pool.lease("a")
    pool.outcome(99, "a", 0.5)  # no such draw
    pool.outcome(number, "b", 0.5)  # of another task
    pool.outcome(number, "a", 0.5, actor="actor-1")  # of another actor
    pool.outcome(number, "nobody", 0.5)
    pool.outcome(number, "x" * 256, 0.5)
    reasons = [body["reason"] for kind, body in pool.decide() if kind == "outcome_refused"]
    assert len(reasons) == 5
    assert reasons[0] == "draw 99 of this task is not open for actor-0"
    assert reasons[3] == reasons[4] == "no task of the pool has this id"
    assert pool.fold.counts.outcomes == 0
    pool.outcome(number, "a", 0.5)
    pool.outcome(number, "a", 0.5)  # of one draw one outcome counts
    assert kinds(pool.decide()) == ["outcome_refused"]
    assert pool.fold.entries["a"].count == 1
    assert pool.fold.counts.refused == 6


def test_a_lost_actor_returns_its_presentations_without_a_score() -> None:
    pool = Pooled()
    pool.mint("a")
    pool.play("a", 1.0)
    drawn = [pool.lease("a"), pool.lease("a")]
    pool.lease("a", "actor-1")
    entry = pool.fold.entries["a"]
    before = (entry.count, entry.total, entry.raw, entry.transient)
    facts = pool.decide(lost=[("actor-0", b.ONE, "lost")])
    assert facts == [("draw_returned", {"draws": drawn, "from": "actor-0", "reason": "lost"})]
    assert (entry.count, entry.total, entry.raw, entry.transient) == before
    assert (entry.returned, len(pool.fold.presentations.open)) == (2, 1)
    assert kinds(pool.decide(later=61)) == ["draw_returned"]  # the other's lease ran out
    assert pool.decide(later=61) == []
    pool.outcome(drawn[0], "a", 0.0)  # it was only late: it is an outcome like others, once
    pool.outcome(drawn[0], "a", 0.0)
    assert kinds(pool.decide()) == ["outcome_refused"]
    assert (entry.count, entry.total) == (2, 1.0)


def test_failures_have_their_own_counters_and_never_touch_scores() -> None:
    pool = Pooled(failures=3, backoff_seconds=2.0)
    pool.mint("a", "b", label="l")
    pool.play("a", 1.0, 0.0)
    for strike in (1, 2):
        numbers = [pool.lease("a"), pool.lease("a")]
        for number in numbers:  # at one time: one strike
            pool.error(number, "a")
        ((kind, body),) = pool.decide()
        assert (kind, body["until"] - pool.now) == ("pool_rest", 2 * strike * SECOND)
        assert {task for _, task in pool.draw(30)} == {"b"}
        assert pool.decide(later=2 * strike - 0.5) == []
        assert kinds(pool.decide(later=0.6)) == ["pool_ready"]
    entry = pool.fold.entries["a"]
    assert (entry.count, entry.total, entry.transient, entry.permanent) == (2, 1.0, 4, 0)
    tally = pool.fold.labels["l"]
    assert (tally.transient, tally.permanent, tally.outcomes) == (4, 0, 2)
    pool.error(pool.lease("a"), "a")
    ((kind, body),) = pool.decide()
    assert (kind, body["reason"], body["note"]) == ("pool_evict", "transient failures", "3 transient failures in a row")
    assert pool.fold.labels["l"].evicted == 1


def test_an_outcome_ends_a_row_of_failures() -> None:
    pool = Pooled(failures=2)
    pool.mint("a")
    for _ in range(3):
        pool.error(pool.lease("a"), "a")
        assert kinds(pool.decide()) == ["pool_rest"]
        assert kinds(pool.decide(later=300)) == ["pool_ready"]
        pool.play("a", 1.0)
    assert pool.fold.entries["a"].transient == 3


def worn(pool: Pooled, count: int = 8, presentations: int = 20) -> None:
    """Tasks of which t0 makes progress, and all have had their presentations."""
    pool.mint(*[f"t{index}" for index in range(count)])
    for index in range(count):
        last = [1.0] * 3 if index == 0 else [0.0] * 3
        pool.play(f"t{index}", *[0.0] * (presentations - 3), *last)


def test_only_the_worst_go_and_only_after_their_presentations() -> None:
    given = {"capacity": 10, "min_samples": 5, "evict_share": 0.5, "worst_share": 0.5, "keep_share": 0.0}
    pool = Pooled(min_presentations=20, **given)
    worn(pool, presentations=19)
    assert pool.decide(closing=True) == []
    pool.play("t1", 0.0)
    pool.play("t3", 0.0)
    facts = pool.decide(closing=True)
    assert [(kind, body["task"], body["reason"]) for kind, body in facts] == [
        ("pool_evict", "t1", "score"), ("pool_evict", "t3", "score"),
    ]  # fmt: skip
    assert "t0" in pool.fold.entries
    assert "outcomes" in facts[0][1]["note"]


def test_a_task_is_never_evicted_before_it_could_be_drawn_for_its_score() -> None:
    with pytest.raises(ValueError, match="under min_samples"):
        settings(min_samples=10, min_presentations=5)
    pool = Pooled(capacity=40, min_samples=10, min_presentations=10, keep_share=0.0, evict_share=1.0, worst_share=1.0)
    pool.mint(*[f"t{index}" for index in range(40)])
    eligible_draws = 0
    for number in range(60):
        for draw, task in pool.draw(20):
            eligible_draws += pool.fold.entries[task].count >= 10
            pool.outcome(draw, task, (number % 10) / 10)
        for kind, body in pool.decide(closing=number % 5 == 4):
            assert kind == "pool_evict"
            assert body["outcomes"] >= 10
    assert pool.fold.counts.evicted > 0
    assert eligible_draws > 0


def test_evictions_of_an_epoch_are_differences_and_every_reader_sees_the_same() -> None:
    pool = Pooled(capacity=10, min_samples=5, min_presentations=20, evict_share=0.2, keep_share=0.0)
    worn(pool)
    pool.decide(closing=True)
    pool.write("tracker", "epoch", {"epoch": 1, "env_steps": 10})
    pool.error(pool.lease("t0"), "t0", permanent=True)
    pool.decide()
    first, second = section(pool.fold), section(pool.fold)
    assert first is not None
    assert first == second
    assert first["epoch"]["evictions"] == {"permanent failure": 1}
    assert first["evictions"] == {"score": 2, "permanent failure": 1}
    pool.write("tracker", "epoch", {"epoch": 2, "env_steps": 20})
    closed = list(pool.fold.epochs.closed)
    assert [epoch["evictions"] for epoch in closed] == [{"score": 2}, {"permanent failure": 1}]
    assert sum(epoch["evicted"] for epoch in closed) == pool.fold.counts.evicted == 3
    assert pool.fold.counts.evicted == 3  # nothing was read and reset


def test_labels_are_texts_and_cover_every_source() -> None:
    pool = Pooled()
    for number in range(4):
        pool.mint(f"x{number}", label="7", source=f"actor-{number}")
        pool.play(f"x{number}", number / 4, actor=f"actor-{3 - number}")
    assert list(pool.fold.labels) == ["7"]
    made = section(pool.restored())
    assert made is not None
    assert made["labels"]["7"] == made["labels"]["7"] | {
        "tasks": 4, "minted": 4, "draws": 4, "outcomes": 4, "score_mean": 0.375,
    }  # fmt: skip


def test_generation_work_is_leased_while_there_is_room() -> None:
    pool = Pooled(capacity=50, generate=32, generating=2, generate_seconds=10.0, backoff_seconds=2.0)
    assert pool.decide(pool.ask(1)) == []  # this actor makes no tasks
    one, two, three = pool.ask(2, generate=True), pool.ask(1, "actor-1", generate=True), pool.ask(1, generate=True)
    assert [(kind, body["most"]) for kind, body in pool.decide(one, two, three)] == [("generate", 32), ("generate", 18)]
    answer = drawn_for(pool.fold, one)
    assert answer is not None
    ((name, _, body, _, draw),) = answer.drawn
    assert (name, json.loads(body), draw) == ("generation-1", {"generate": 32}, None)
    pool.mint("a", "b", generation="generation-1", last=False)
    pool.mint("c", generation="generation-1")
    pool.write("actor-1", "generation_failed", {"generation": "generation-2", "reason": "E: no"})
    ((kind, ended),) = pool.decide()
    assert (kind, ended["until"] - pool.now) == ("generation_ended", 2 * SECOND)
    assert pool.fold.presentations.generating == {}
    assert [kind for kind, _ in pool.decide(pool.ask(2, generate=True))] == ["draw"]  # it waits after the failure
    facts = pool.decide(pool.ask(2, generate=True), later=2.1)
    assert [kind for kind, _ in facts] == ["generate", "draw"]
    assert pool.decide(later=11)[0][1]["reason"] == "expired"
    pool.decide(pool.ask(1, generate=True), later=100)
    assert pool.decide(lost=[("actor-0", b.ONE, "lost")])[-1][1]["failed"] is False
    pool.decide(pool.ask(1, generate=True))
    name = next(iter(pool.fold.presentations.generating))
    pool.write(
        "actor-0", "generation_failed", {"generation": name, "reason": "the list is at its end", "permanent": True}
    )
    pool.decide()
    assert pool.fold.exhausted == "the list is at its end"
    assert [kind for kind, _ in pool.decide(pool.ask(1, generate=True), later=1000)] == ["draw"]


def test_settings_that_tune_may_change_and_those_that_shape_are_migrated_by_name() -> None:
    pool = Pooled(capacity=10, min_samples=2, min_presentations=4)
    pool.mint("a", "b", "c")
    pool.play("a", 0.0, 0.0, 0.0, 1.0, 1.0)
    pool.play("b", 0.0, 0.0, 0.0, 0.0, 0.0)
    raw = pool.fold.entries["a"].raw
    with pytest.raises(RequestError, match=r"curriculum.capacity: 10 -> 1\n(.|\n)*curriculum.scorer"):
        pool.begin(2, capacity=1, scorer="variance")
    with pytest.raises(RequestError, match=r"curriculum\.schema: 1 -> 2"):
        pool.begin(2, capacity=10, schema=2)
    pool.begin(2, capacity=10, min_samples=2, min_presentations=4, theta=0.5)
    assert pool.facts[-1].body["changed"] == {"theta": (0.1, 0.5)}
    assert 0.0 < pool.fold.entries["a"].raw < raw  # looked at with the new θ
    random = pool.fold.random
    pool.begin(3, capacity=1, min_samples=2, min_presentations=4, migrate={"capacity": "fit"})
    assert pool.facts[-1].body["migrated"] == {"capacity": "fit"}
    assert [(body["task"], body["reason"]) for _, body in pool.decide()] == [("b", "capacity"), ("c", "capacity")]
    assert list(pool.fold.entries) == ["a"]
    assert pool.fold.random == random
    pool.begin(4, capacity=1, schema=2, scorer="variance", migrate={"schema": "keep", "scorer": "reset"})
    entry = pool.fold.entries["a"]
    assert (entry.raw, entry.initialised, entry.count, entry.total, entry.form) == (0.0, False, 5, 2.0, 1)
    assert pool.fold.labels["easy"].levels == 0
    pool.begin(5, capacity=1, schema=3, scorer="variance", migrate={"schema": "evict"})
    assert [body["reason"] for _, body in pool.decide()] == ["schema"]
    assert pool.rebuilt().snapshot() == pool.fold.snapshot()


def test_settings_are_strict() -> None:
    for wrong in ({"capacity": 0}, {"capacity": "9"}, {"unknown": 1}, {"epsilon": 0.6, "kappa": 0.6}, {"theta": 1.0}):
        with pytest.raises(ValueError, match="validation error"):
            CurriculumSettings.model_validate(wrong)


def test_the_section_is_whole_and_made_once_a_second() -> None:
    pool = Pooled(min_samples=2, min_presentations=2)
    pool.mint(*[f"t{index}" for index in range(12)])
    for index in range(8):
        pool.play(f"t{index}", *[0.0] * 4, *[index / 8] * 4)
    shown = Section()
    made = shown.read(pool.fold, 10.0)
    assert made is not None
    assert json.dumps(made, allow_nan=False)
    assert (made["tasks"], made["eligible"], made["few_samples"], made["without_progress"]) == (12, 8, 4, 1)
    assert made["bottom"][0]["task"] == "t0"
    progress = [task["progress"] for task in made["top"]]
    assert progress == sorted((entry.raw for entry in pool.fold.entries.values()), reverse=True)[:5]
    assert made["progress_mean"] == pytest.approx(sum(e.raw for e in pool.fold.entries.values()) / 8, abs=1e-9)
    assert made["gini"]["draws_per_task"] == {"gini": pytest.approx(4 / 12), "gini_most": pytest.approx(11 / 12)}
    pool.mint("new")
    assert shown.read(pool.fold, 10.9) is made
    assert (shown.read(pool.fold, 11.0) or {})["tasks"] == 13
