from __future__ import annotations

import json
from typing import Any

import pytest

from tests.tracker import bodies as b
from tests.tracker.fuzzing import nested
from tracker.chronicle import TOLD
from tracker.facts import OF_THE_TRACKER, Unfit, _of_sources, decode
from tracker.standard import standard_folds
from tracker.template_facts import OF_SEARCHES

models = {**_of_sources, **OF_SEARCHES}


def text(body: Any) -> str:
    return json.dumps(body).replace("Infinity", "1e999")  # which is JSON


def test_every_kind_that_is_read_has_a_model_or_is_the_trackers_own() -> None:
    read = TOLD.union(*(fold.kinds for fold in standard_folds().folds.values()))
    assert read <= models.keys() | OF_THE_TRACKER
    assert not models.keys() & OF_THE_TRACKER


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
