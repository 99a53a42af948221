from __future__ import annotations

import json
from typing import Any

import pytest

from tests.tracker import bodies as b
from tests.tracker.fuzzing import nested
from tracker.chronicle import TOLD
from tracker.core import Core
from tracker.curriculum.settings import CurriculumSettings
from tracker.exchange import Settings
from tracker.facts import OF_THE_TRACKER, Unfit, _of_sources, decode
from tracker.standard import standard_folds
from tracker.template_facts import OF_SEARCHES

models = {**{kind: model for kind, (model, _) in _of_sources.items()}, **OF_SEARCHES}


def text(body: Any) -> str:
    return json.dumps(body).replace("Infinity", "1e999")  # which is JSON


def test_every_kind_that_is_read_has_a_model_or_is_the_trackers_own() -> None:
    read = TOLD.union(*(fold.kinds for fold in standard_folds().folds.values()))
    assert read <= models.keys() | OF_THE_TRACKER
    assert not models.keys() & OF_THE_TRACKER


FITTING: dict[str, dict[str, Any]] = {
    "run": b.run(),
    "spawned": b.spawned("actor-0", 1),
    "exited": b.exited("actor-0"),
    "stop_request": {"reason": "enough", "failed": True},
    "alarm": {"text": "smoke"},
    "episode": b.episode(),
    "progress": b.progress(),
    "environment_error": {"traceback": "t"},
    "outcome": {"task": "t", "score": 1.0},
    "delivered": {"task": "t"},
    "rollout_error": {"task": "t", "traceback": "t", "permanent": False},
    "update": b.update(),
    "finished": {"policy": "p", "reason": "done"},
    "fragments": b.fragments(),
    "refusal": {"policy": "p", "from": "actor-0", "reason": "no", "steps": 1},
    "quarantine": b.quarantine(),
    "mint": {"policy": "p", "tasks": []},
    "generation_failed": {"generation": "generation-1", "reason": "r"},
    "resumed": {"policy": "p", "from": None, "life": 1, "updates_lost": 0},
    "of-my-own": {},
}
LAUNCHER = {"run", "spawned", "exited", "stop_request", "alarm"}
LEARNER = {"update", "finished", "fragments", "refusal", "quarantine", "mint", "resumed"}
ACTOR = {
    "episode", "progress", "environment_error", "outcome", "delivered", "rollout_error", "generation_failed",
}  # fmt: skip


def taken(source: str, kind: str, body: dict[str, Any], *, pooled: bool = False) -> bool:
    """Whether the tracker takes such a fact of this source as it stands; if not it is stored as refused."""
    curriculum = CurriculumSettings() if pooled else None
    core = Core(Settings(curriculum=curriculum), standard_folds(), b.TWO)
    core.accept(source, b.ONE, 1, ((1, kind, text(body)),))
    (row,) = core._rows
    assert row[4] in {kind, "refused"}
    return row[4] == kind


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("launcher", LAUNCHER),
        ("learner-p", LEARNER),
        ("learner-q", {"quarantine"}),
        ("actor-0", ACTOR),
        ("endpoint-web", set()),
        ("dashboard-x", set()),
    ],
)
def test_every_kind_has_its_writers(source: str, kinds: set[str]) -> None:
    assert FITTING.keys() == _of_sources.keys() | {"of-my-own"}
    assert {kind for kind, body in FITTING.items() if taken(source, kind, body)} == kinds | {"of-my-own"}
    assert not any(taken(source, kind, {}) for kind in OF_THE_TRACKER - {"refused"})
    assert not any(taken("tracker", kind, body) for kind, body in FITTING.items()), "its own do not come from outside"


def test_what_an_actor_may_mint_and_when_it_may_end_a_run() -> None:
    work = {"tasks": [], "generation": "generation-1"}
    assert taken("actor-0", "mint", work)
    assert not taken("actor-0", "mint", {**work, "policy": "p"})
    assert not taken("actor-0", "mint", {"tasks": []})
    dry = {"reason": "no task for 120 s", "failed": True}
    assert taken("actor-0", "stop_request", dry, pooled=True)
    assert not taken("actor-0", "stop_request", {**dry, "failed": False}, pooled=True)


@pytest.mark.parametrize(
    ("kind", "body", "where"),
    [
        ("quarantine", {}, "source"),
        ("quarantine", {**b.quarantine(), "count": -1}, "count"),
        ("refusal", {"policy": "p", "from": "actor-0", "reason": "ValueError: no"}, "steps"),
        ("fragments", {**b.fragments(), "staleness": {"-1": 1}}, "staleness"),
        ("mint", {"policy": "no name", "tasks": []}, "policy"),
        ("episode", b.episode(1e301), "returns"),
        ("episode", {**b.episode(), "returns": {"x" * 257: 1.0}}, "returns"),
        ("progress", b.progress(2**40 + 1), "env_steps"),
        ("progress", {**b.progress(), "dropped": dict.fromkeys(map(str, range(4097)), 1)}, "dropped"),
        ("update", {**b.update(), "version": [2**53, 0]}, "version"),
        ("exited", {**b.exited("actor-0"), "last_words": "x" * 70_000}, "last_words"),
        ("finished", {"policy": "p", "reason": "x" * 4097}, "reason"),
        ("outcome", {"task": "t@life-" + "9" * 5000, "score": 1.0}, "task"),
        ("outcome", {"task": "t", "score": 1.0, "result": nested({}, 250)}, "recursion"),
        ("run", {**b.run(), "seed": 2**63}, "seed"),
    ],
)
def test_what_would_poison_the_run_is_unfit(kind: str, body: Any, where: str) -> None:
    with pytest.raises(Unfit, match=where):
        decode(kind, text(body))


def test_a_limit_that_is_no_number_of_use_is_none() -> None:
    stop = {"seconds": 10**400, "env_steps": 50, "return": float("inf")}
    (fact,) = b.facts(("launcher", "run", b.run()))
    fold = standard_folds().folds["standings"]
    fold.apply(fact._replace(body=decode("run", text({**b.run(stop=stop), "config": {"stop": stop, "deep": [stop]}}))))
    assert json.loads(json.dumps(fold.snapshot(), allow_nan=False))["stop"] == {"env_steps": 50.0}


def test_more_may_be_there() -> None:
    assert decode("quarantine", text(b.quarantine()))["size"] == 7
    refusal = {"policy": "p", "from": "actor-0", "reason": "ValueError: no", "steps": 4}
    assert decode("refusal", text(refusal)) == refusal
