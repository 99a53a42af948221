"""The pool in the tracker's core: a real ledger, requests, lives and launches."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from broker.delivery import MAX_BODY, body_text
from broker.errors import RequestError
from broker.liveness import Event
from broker.names import policy_of
from broker.wire import Codec, Identity
from launcher.reading import from_plain, resume_differences
from launcher.runfile import RunFile
from tests.tracker import bodies as b
from tests.tracker.pools import settings
from tests.tracker.test_core import Shell
from tracker.curriculum.cut import unpacked
from tracker.curriculum.pool import Curriculum
from tracker.curriculum.report import section
from tracker.document import standings_document
from tracker.exchange import Joined
from tracker.leases import Answer, Request
from tracker.live import Live
from tracker.requests import PARKED
from tracker.standard import standard_folds
from tracker.summary import summarise

POOL = {"capacity": 20, "min_samples": 2, "min_presentations": 4, "generate": 5}


class Run(Shell):
    """A run with a pool; every answer is kept."""

    def __init__(self, path: Path, incarnation: str = b.TWO, curriculum: Any = None, **given: Any) -> None:
        super().__init__(path, incarnation, curriculum=settings(**{**POOL, **(curriculum or {})}), seed=3, **given)
        self.start()

    def mint(self, *names: str, source: str = "learner-p", **more: Any) -> None:
        tasks = [{"task": name, "label": "l", "body": {"n": name}} for name in names]
        self.send(source, ("mint", {"policy": policy_of(source), "tasks": tasks, **more}))
        self.ticks(2)

    def ask(self, number: int, count: int, actor: str = "actor-0", *, generate: bool = False) -> Answer:
        self.core.handle(Request(actor, b.ONE, number, count, None, generate))
        (answer,) = self.tick().answers or self.tick(PARKED).answers
        return answer

    def finish(self, answer: Answer, score: float, actor: str = "actor-0") -> None:
        done = [("outcome", {"task": task.task, "score": score, "draw": task.draw}) for task in answer.drawn]
        self.send(actor, *done)
        self.tick()


def test_the_same_request_has_the_same_answer_and_the_task_comes_back(tmp_path: Path) -> None:
    run = Run(tmp_path, lease_seconds=30.0)
    assert run.ask(1, 3).drawn == ()
    run.mint("a", "b")
    assert run.ask(1, 3).drawn == ()  # it was answered, and stays as it was answered
    answer = run.ask(2, 3)
    assert len(answer.drawn) == 3
    assert {(task.policy, task.label) for task in answer.drawn} == {("p", "l")}
    draws = run.core.pool.counts.draws
    assert run.ask(2, 3) == answer
    assert run.core.pool.counts.draws == draws == 3
    run.finish(answer, 1.0)
    assert run.core.pool.counts.outcomes == 3
    assert run.core.tasks.unknown == 0
    assert len(run.ask(3, 2).drawn) == 2
    run.core.handle(Event("actor-0", b.ONE, "lost"))
    run.ticks()
    assert run.core.pool.counts.returned == 2
    run.core.handle(Joined("actor-1", "actor", b.ONE))
    assert len(run.ask(1, 1, "actor-1").drawn) == 1
    run.tick(31.0)
    run.ticks()
    assert run.core.pool.counts.returned == 3


def test_tasks_that_are_played_once_go_on_beside_the_pool(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.mint("pooled")
    run.send("learner-p", ("mint", {"policy": "p", "tasks": [{"task": "once", "body": {}}]}))
    run.tick()
    answer = run.ask(1, 3)
    assert [task[0] for task in answer.tasks] == ["once"]
    assert [task.task for task in answer.drawn] == ["pooled", "pooled"]
    run.send("actor-0", ("outcome", {"task": "once", "score": 1.0}))
    run.finish(answer, 0.5)
    assert (run.core.tasks.done, run.core.tasks.minted, run.core.pool.counts.outcomes) == (1, 1, 2)
    run.mint("once", "other")
    assert list(run.core.pool.entries) == ["pooled", "other"]
    assert run.core.pool.counts.declined == 1


def test_without_a_curriculum_a_label_means_nothing(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    shell.send("learner-p", ("mint", {"policy": "p", "tasks": [{"task": "a", "label": 7, "body": {}}]}))
    shell.tick()
    shell.core.handle(Request("actor-0", b.ONE, 1, 5, None, True))
    (answer,) = shell.tick().answers
    assert ([task[0] for task in answer.tasks], answer.drawn) == (["a"], ())
    assert section(shell.core.pool) is None


def test_generation_work_comes_with_a_request_that_offers_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    answer = run.ask(1, 2, generate=True)
    ((name, policy, body, label, draw),) = answer.drawn
    assert (name, policy, json.loads(body), label, draw) == ("generation-1", None, {"generate": 5}, None, None)
    assert run.ask(1, 2, generate=True) == answer
    run.mint(*[f"{name}.{index}" for index in range(5)], source="actor-0", generation=name)
    assert len(run.core.pool.entries) == 5
    assert run.core.pool.presentations.generating == {}
    assert len(run.ask(2, 2, generate=True).drawn) == 2  # a draw, and more to make


def test_epochs_close_by_outcomes_and_evict(tmp_path: Path) -> None:
    run = Run(tmp_path, b.TWO, {"epoch_outcomes": 40, "capacity": 4, "keep_share": 0.0, "evict_share": 0.5})
    run.mint("a", "b", "c", "d")
    for number in range(1, 13):
        run.finish(run.ask(number, 8), 0.0)
    run.ticks()
    kinds = [row[5] for row in run.ledger.read_all() if row[1] == "tracker" and row[5] in ("pool_evict", "epoch")]
    assert kinds[0] == "pool_evict"
    assert kinds[1] == "epoch"
    closed = run.core.pool.epochs.closed
    assert [epoch["epoch"] for epoch in closed] == [1, 2]
    assert closed[0]["evictions"] == {"score": 1}
    assert closed[0]["outcomes"] >= 40
    assert run.core.epochs.epoch == 2


def test_a_resumed_run_goes_on_with_tasks_labels_scores_counters_and_random_state(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.mint("a", "b", "c")
    for number in range(1, 8):
        run.finish(run.ask(number, 4), number / 8)
    pool = run.core.pool
    before = pool.snapshot()
    assert json.dumps(json.loads(json.dumps(before))) == json.dumps(before)
    with run.ledger.commit():
        run.ledger.store_snapshots(run.folds.snapshots(), run.folds.position)
    run.finish(run.ask(8, 2), 0.9)
    before = pool.snapshot()
    run.ledger.close()

    folds = standard_folds()
    again = Run(tmp_path, "3" * 32, {"theta": 0.2}, launch=2)
    after = again.core.pool
    (change,) = [json.loads(row[6]) for row in again.ledger.read_all() if row[5] == "curriculum"][1:]
    assert (change["changed"], change["migrated"]) == ({"theta": [0.1, 0.2]}, {})
    assert "theta 0.1 -> 0.2" in " ".join(event[2] for event in again.core.standings.events)
    assert after.random == before["random"]
    assert list(after.labels) == ["l"]
    for entry, plain in zip(after.entries.values(), unpacked(*before["entries"]), strict=True):
        entry.raw = plain.raw  # looked at with another θ
        assert astuple(entry) == astuple(plain)
    assert after.counts.plain() == before["counts"]
    folds.restore(again.ledger)
    rebuilt = folds.folds["curriculum"]
    assert isinstance(rebuilt, Curriculum)
    assert rebuilt.random == after.random
    assert rebuilt.epochs.plain() == after.epochs.plain()
    again.ledger.close()
    with pytest.raises(RequestError, match=r"curriculum\.capacity: 20 -> 30"):
        Run(tmp_path, "4" * 32, {"capacity": 30}, launch=3)


def test_the_launcher_says_the_same_of_a_resumed_run_before_it_starts() -> None:
    run = from_plain({"policies": {"names": ["p"]}, "actors": {"rollout": "a:B"}})

    def asked(**curriculum: Any) -> RunFile:
        return from_plain({**run.to_plain(), "curriculum": {"generator": "a:make", **curriculum}})

    assert from_plain(asked().to_plain()) == asked()
    assert resume_differences(asked(), asked(generator="a:other")) == {"curriculum.generator": ("a:make", "a:other")}
    assert resume_differences(asked(), asked(alpha=0.2)) == {"curriculum.alpha": (0.1, 0.2)}
    with pytest.raises(RequestError, match=r"curriculum\.migrate\.scorer"):
        resume_differences(asked(), asked(scorer="uniform"))
    assert resume_differences(asked(), asked(scorer="uniform", migrate={"scorer": "reset"}))
    with pytest.raises(RequestError, match=r"keeps its \[curriculum\]"):
        resume_differences(asked(), asked().model_copy(update={"curriculum": None}))
    with pytest.raises(RequestError, match="min_presentations"):
        from_plain({**run.to_plain(), "curriculum": {"min_samples": 10, "min_presentations": 5}})


def test_the_standings_and_the_summary_show_the_pool(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.mint("a", "b")
    run.finish(run.ask(1, 6), 0.5)
    made = section(run.core.pool)
    document = standings_document(run.core.standings, Live(), 0.0, tasks=run.core.tasks, pool=made)
    assert document["pool"]["counts"]["outcomes"] == 6
    run.ledger.close()
    summary = summarise(tmp_path)
    assert summary["pool"] == document["pool"]
    assert summary["pool_epochs"] == []


def test_whatever_is_minted_an_answer_can_be_sent(tmp_path: Path) -> None:
    run = Run(tmp_path, curriculum={"capacity": 200})
    numbers = ", ".join(["1e15"] * 40_000)  # three times as long as the tracker writes them
    faces = "\N{GRINNING FACE}" * 100_000
    texts = [f'{{"tasks": [{{"task": "grown", "label": "l", "body": {{"n": [{numbers}]}}}}]}}']
    for n in range(20):
        texts.append(body_text({"tasks": [{"task": f"pooled-{n}", "label": "l", "body": {"text": faces}}]}))
        texts.append(body_text({"tasks": [{"task": f"once-{n}", "body": {"text": faces}}]}))
    assert max(map(len, texts)) < MAX_BODY
    run.core.accept("learner-p", b.ONE, 1, tuple((0, "mint", text) for text in texts))
    run.ticks(2)
    assert run.core.pool.counts.declined == 1
    assert "grown" not in run.core.pool.entries
    answer = run.ask(1, 1024)
    assert len(answer.tasks) >= 10
    assert len(answer.drawn) >= 5
    codec = Codec(Identity("0" * 32, "tracker", b.TWO), "hub")
    assert codec.encode(answer.message(0), "actor-0")
