from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.tracker import bodies as b
from tests.tracker.fuzzing import nested
from tracker.chronicle import TOLD
from tracker.core import Core
from tracker.document import standings_document
from tracker.exchange import Joined, Now, Settings
from tracker.facts import OF_THE_TRACKER, Unfit, _of_sources, decode
from tracker.leases import Request
from tracker.live import Live
from tracker.standard import standard_folds
from tracker.template_facts import OF_SEARCHES

models = {**_of_sources, **OF_SEARCHES}

huge = st.sampled_from([10**400, -(10**400), 2**63 - 1, 2**63, 1e308, -1e308, float("inf")])
words = st.text(max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | huge | words
anything = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
objects = st.dictionaries(words, anything, max_size=4)


def drawn(schema: Any, named: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON schema as pydantic writes it, at their limits more often than not."""
    if "$ref" in schema:
        return drawn(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        return st.one_of([drawn(option, named) for option in schema["anyOf"]])
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = {name: drawn(field, named) for name, field in schema["properties"].items()}
            needed = {name: field for name, field in fields.items() if name in schema["required"]}
            some = {name: field for name, field in fields.items() if name not in needed}
            return st.fixed_dictionaries(needed, optional=some)
        case "object":
            pattern, values = next(
                iter(schema.get("patternProperties", {"": schema.get("additionalProperties")}).items())
            )
            keys = st.from_regex(pattern, fullmatch=True) if pattern else words
            return st.dictionaries(keys, drawn(values, named) if isinstance(values, dict) else anything, max_size=3)
        case "array" if "prefixItems" in schema:
            return st.tuples(*[drawn(item, named) for item in schema["prefixItems"]]).map(list)
        case "array":
            return st.lists(drawn(schema["items"], named), max_size=4)
        case "integer":
            low, most = schema.get("minimum"), schema.get("exclusiveMaximum")
            return st.integers(low, None if most is None else most - 1) | st.sampled_from([0, 1, 2**63 - 1])
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False) | st.integers(-9, 9)
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True)
        case "string":
            return st.text(min_size=schema.get("minLength", 0), max_size=8)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case _:
            return anything


@st.composite
def facts(draw: st.DrawFn) -> tuple[str, str]:
    """Of any kind: as its model has it, mostly, or with fields that it has not, or anything."""
    kind = draw(st.sampled_from([*sorted(models), *sorted(OF_THE_TRACKER), "of-nobody"]))
    if kind not in models:
        return kind, text(draw(objects))
    schema = TypeAdapter(models[kind]).json_schema()
    body = draw(drawn(schema, schema.get("$defs", {})))
    if draw(st.integers(0, 3)) == 0:
        body |= draw(objects)
    if body and draw(st.integers(0, 7)) == 0:
        body[draw(st.sampled_from(sorted(body)))] = draw(anything)
    return kind, text(body)


def text(body: Any) -> str:
    return json.dumps(body).replace("Infinity", "1e999")  # which is JSON


def test_every_kind_that_is_read_has_a_model_or_is_the_trackers_own() -> None:
    read = TOLD.union(*(fold.kinds for fold in standard_folds().folds.values()))
    assert read <= models.keys() | OF_THE_TRACKER
    assert not models.keys() & OF_THE_TRACKER


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(["actor-0", "learner-p", "launcher"]), facts()), max_size=25))
def test_nothing_that_a_source_can_say_ends_the_tracker(history: list[tuple[str, tuple[str, str]]]) -> None:
    folds = standard_folds()
    core = Core(Settings(stop_return=1.0, stop_env_steps=100), folds, b.TWO)
    core.handle(Joined("actor-0", "actor", b.ONE))
    sequences: dict[str, int] = {}
    for source, (kind, body) in history:
        sequences[source] = sequences.get(source, 0) + 1
        core.accept(source, b.ONE, sequences[source], ((1, kind, body),))
    for step in range(4):
        now = Now(step * 10**9, float(step))
        core.handle(Request("actor-0", b.ONE, step + 1, 1024))
        batch = core.gather(now)
        out = core.committed(range(folds.position + 1, folds.position + 1 + len(batch.rows)))
        for answer in out.answers:
            answer.message(now.clock)
    kept = json.dumps(folds.snapshots(), allow_nan=False)
    again = standard_folds()
    for name, fold in again.folds.items():
        fold.restore(json.loads(kept)[name]["state"])
    assert json.dumps(again.snapshots(), allow_nan=False) == kept
    json.dumps(standings_document(core.standings, Live(), 4.0, tasks=core.tasks), allow_nan=False)


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
        ("exited", {**b.exited("actor-0"), "last_words": "x" * 20_001}, "last_words"),
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
