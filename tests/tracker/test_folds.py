from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tracker import bodies as b
from tracker.facts import Fact, Unfit, decode
from tracker.folds import Folds
from tracker.ledger import Ledger
from tracker.standard import standard_folds
from tracker.standings import Standings
from tracker.tallies import Returns, quantile

numbers = st.one_of(st.none(), st.floats(-1e6, 1e6))
policies = st.sampled_from(["p", "q"])
tasks = st.sampled_from([f"t{index}" for index in range(6)])
actors = st.sampled_from(["actor-0", "actor-1"])
some = st.integers(0, 500)
templates = st.sampled_from(["a", "b", "c"])
items = st.integers(0, 3)
splits = st.sampled_from(["training", "validation"])
places = st.tuples(st.integers(0, 2), st.integers(0, 2))


def body(kind: str, make: Any, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(kind), st.builds(make, *parts))


stops = st.sampled_from([{}, {"return": 1.0}, {"seconds": 9}])
phases = st.sampled_from(["starting", "running"])
bodies: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    body("episode", lambda value, n, p: b.episode(value, agents=n, policy=p), numbers, st.integers(0, 3), policies),
    body("progress", b.progress, some, some, policies),
    body("update", b.update, some, some, policies),
    body("fragments", b.fragments, policies),
    body("quarantine", b.quarantine, some),
    body("run", b.run, st.integers(1, 3), stops),
    body("spawned", b.spawned, actors, st.integers(1, 4)),
    body("exited", b.exited, actors),
    body("mint", lambda p, t: {"policy": p, "tasks": [{"task": t, "body": {"q": 1}}]}, policies, tasks),
    body(
        "assign",
        lambda t, to, n: {"task": t, "to": to, "incarnation": b.ONE, "request": n, "deadline": n * 10},
        tasks, actors, st.integers(1, 100),
    ),
    body("outcome", lambda t: {"task": t, "score": 0.5, "policy": "p"}, tasks),
    body("outcome", lambda t: {"task": t, "score": 0.5, "policy": "p", "result": {"a": 1}}, tasks),
    body("delivered", lambda t, told: {"task": t, "given_up": told}, tasks, st.booleans()),
    body("given_up", lambda t: {"task": t, "reason": "r"}, tasks),
    body(
        "rollout_error",
        lambda t, p, tell: {"task": t, "traceback": "E", "permanent": p, "tell": tell},
        tasks, st.booleans(), st.booleans(),
    ),
    body(
        "lease_returned",
        lambda t, why: {"task": t, "from": "actor-0", "reason": why},
        tasks, st.sampled_from(["expired", "lost"]),
    ),
    body("mint", lambda n, i, split: b.minted(b.answer(n, i, split)), templates, items, splits),
    body("outcome", lambda n, i, r, split: b.answered(n, i, r, split=split), templates, items, st.floats(0, 1), splits),
    body("outcome", lambda t, failed: b.completed(t, failed=failed), tasks, st.booleans()),
    body("template", lambda n, place: b.template(n, place=place), templates, places),
    body("refused_template", b.refused_template, places),
    body("round", b.prompt_round, items, templates, st.one_of(st.none(), st.floats(0, 1))),
    body("evict", lambda t: {"task": t, "reason": "r"}, st.builds(lambda n, i: b.answer(n, i)[0], templates, items)),
    body("clock", lambda seconds: {"seconds": seconds}, st.floats(0, 1e5)),
    body("phase", lambda phase: {"phase": phase, "reason": "r", "failed": False, "launch": 1}, phases),
    body("epoch", lambda n: {"epoch": n, "env_steps": n}, some),
    body("liveness", lambda role: {"role": role, "state": "lost", "incarnation": b.ONE}, actors),
    body("alarm", lambda text: {"text": text}, st.text(max_size=20)),
    body("life", b.life, some, policies),
    body(
        "checkpoint",
        lambda p, n, best: {"policy": p, "version": [1, n], "file": f"{n}", "size": 1, "score": 1.0, "best": best},
        policies, some, st.booleans(),
    ),
)  # fmt: skip


def feed(folds: Folds, facts: list[Fact]) -> None:
    for fact in facts:
        rows = [(fact.source, fact.incarnation, fact.sequence, fact.time, fact.kind, "")]
        folds.apply(range(fact.position, fact.position + 1), rows, [fact.body])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(actors, bodies), max_size=150), st.integers(0, 150))
def test_a_snapshot_and_the_tail_give_what_the_whole_gives(history: list[Any], cut: int) -> None:
    facts = b.facts(*[(source, kind, body) for source, (kind, body) in history])
    whole, first, second = standard_folds(), standard_folds(), standard_folds()
    feed(whole, facts)
    feed(first, facts[:cut])
    kept = json.loads(json.dumps(first.snapshots(), allow_nan=False))
    for name, fold in second.folds.items():
        fold.restore(kept[name]["state"])
    for name, ended in second.ended.items():
        ended.find = dict(first.ended[name].fresh).get  # as the ledger's table has it
    feed(second, facts[cut:])
    assert json.dumps(second.snapshots()) == json.dumps(whole.snapshots())


def test_restored_from_a_ledger_as_from_its_start(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    folds = standard_folds()
    for part in range(4):
        rows = [
            ("actor-0", b.ONE, part * 50 + index + 1, index, "episode", b.text(b.episode(part + index / 7)))
            for index in range(50)
        ]
        with ledger.commit():
            positions = ledger.append(rows)
        folds.apply(positions, rows, [decode(row[4], row[5]) for row in rows])
        if part == 1:
            with ledger.commit():
                ledger.store_snapshots(folds.snapshots(), folds.position)
    again = standard_folds()
    again.restore(ledger)
    assert again.position == folds.position == 200
    assert again.snapshots() == folds.snapshots()
    # a snapshot of another version is no help: from the start then
    afresh = standard_folds()
    for fold in afresh.folds.values():
        fold.version = 99
    afresh.restore(ledger)
    assert afresh.folds["standings"].snapshot() == folds.folds["standings"].snapshot()
    ledger.close()


@pytest.mark.parametrize(
    ("kind", "body", "where"),
    [
        ("episode", "{}", "length"),
        ("episode", '{"length": 1, "returns": {"a": "x"}, "policies": {}}', "returns.a"),
        ("episode", '{"length": 1, "returns": {"a": NaN}, "policies": {}}', "Invalid JSON"),
        ("episode", '{"length": 1, "returns": {"a": 1e999}, "policies": {}}', "returns.a"),
        ("progress", '{"env_steps": -1, "agent_steps": {}}', "env_steps"),
        ("update", "[1, 2]", "Input should be"),
        ("alarm", '{"text": "x", "more": [NaN]}', "Invalid JSON"),
        ("of-nobody", '{"x": -Infinity}', "Invalid JSON"),
        ("of-nobody", "7", "Input should be"),
        ("of-nobody", "{", "Invalid JSON"),
        ("resumed", '{"policy": "p", "from": 3, "life": 1, "updates_lost": 0}', "from"),
    ],
)
def test_a_body_that_is_unfit_is_named(kind: str, body: str, where: str) -> None:
    with pytest.raises(Unfit, match=where):
        decode(kind, body)


def test_a_snapshot_that_is_none_is_made_anew(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        with ledger.commit():
            ledger.append([("a", "1" * 32, 1, 1, "episode", json.dumps(b.episode(1.0)))])
            ledger.store_heads(1, {"standings": "{}", "tasks": "7"})
        folds = standard_folds()
        folds.restore(ledger)
    assert folds.folds["standings"].episodes == 1
    assert len(folds.flaws) == 2


def test_what_is_not_known_may_be_there() -> None:
    assert decode("alarm", '{"text": "NaN is not Infinity"}')["text"]
    assert decode("of-nobody", '{"a": [1, null]}') == {"a": [1, None]}
    assert decode("alarm", '{"text": "x", "more": 1}')["more"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), max_size=700))
def test_returns(values: list[float]) -> None:
    tally = Returns()
    for value in values:
        tally.add(value)
    if values:
        assert tally.first == pytest.approx(statistics.fmean(values[:100]), abs=1e-9)
        assert tally.mean == pytest.approx(statistics.fmean(values[-100:]), abs=1e-9)
        assert 1 <= len(tally.sparkline) <= 60
        assert min(values) - 1e-9 <= min(tally.sparkline) <= max(tally.sparkline) <= max(values) + 1e-9
    else:
        assert tally.first is tally.mean is None


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 20), max_size=20), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_is_the_nearest_rank(histogram: dict[int, int], share: float) -> None:
    values = sorted(value for value, count in histogram.items() for _ in range(count))
    found = quantile(histogram, share)
    if not values:
        assert found is None
    else:
        assert sum(value <= found for value in values) >= share * len(values)
        assert sum(value < found for value in values) < share * len(values)


def test_the_standings_count() -> None:
    fold = Standings()
    told = [
        ("launcher", "run", b.run(stop={"return": 2.0})),
        ("launcher", "spawned", b.spawned("actor-0")),
        ("launcher", "exited", b.exited("actor-0")),
        ("launcher", "spawned", b.spawned("actor-0", 2)),
        ("tracker", "phase", {"phase": "running", "reason": "", "failed": False, "launch": 1}),
        ("actor-0", "progress", b.progress(10, 30)),
        ("actor-0", "episode", b.episode(None)),
        ("learner-p", "update", b.update(5, 3)),
        ("learner-p", "update", b.update(6, 9)),
        ("learner-p", "fragments", b.fragments()),
        ("learner-p", "quarantine", b.quarantine(2)),
        ("tracker", "quarantine", b.quarantine(3)),
        *[("actor-0", "episode", b.episode(2.0, agents=3)) for _ in range(99)],
        ("tracker", "clock", {"seconds": 50.0, "duplicates": 2}),
        ("actor-0", "episode", b.episode(2.0)),
        ("launcher", "run", b.run(2, stop={"return": 2.0})),
        ("launcher", "spawned", b.spawned("actor-0")),
    ]
    for fact in b.facts(*told):
        fold.apply(fact)
    assert (fold.env_steps, fold.agent_steps, fold.episodes, fold.nonfinite) == (10, 30, 101, 1)
    assert fold.returns.mean == 2.0
    assert fold.solved_at == pytest.approx(50.0, abs=1e-3)
    role = fold.roles["actor-0"]
    assert (role.restarts, role.exits, role.running) == (1, 1, True)
    policy = fold.policies["p"]
    assert policy.version == (1, 6)
    assert policy.staleness == {1: 2, 3: 2, 7: 1, 9: 2}
    assert policy.fragments == {"consumed": 7, "stale": 6, "refused": 5, "lost": 6, "dropped": 0}
    assert (policy.updates, policy.agent_steps_used) == (2, 64 + 64 + 36)
    assert fold.quarantined == 5
    assert fold.duplicates == 2
    assert "actor-0 died (SIGKILL): ValueError: no" in [event[2] for event in fold.events]


class Halves:
    """A fold that cannot take an odd number of env steps."""

    version = 1
    kinds = frozenset({"progress"})

    def __init__(self) -> None:
        self.total = 0

    def apply(self, fact: Fact) -> None:
        half, odd = divmod(fact.body["env_steps"], 2)
        if odd:
            raise ValueError(f"{fact.body['env_steps']} has no half")
        self.total += half

    def snapshot(self) -> int:
        return self.total

    def restore(self, plain: int) -> None:
        self.total = plain


def test_a_fold_that_raises_passes_over_the_fact(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    folds = Folds({"halves": Halves(), "standings": Standings()})
    for first, steps in ((1, (4, 7, 6)), (4, (9, 8))):
        rows = [
            ("actor-0", b.ONE, number, 1, "progress", b.text(b.progress(count)))
            for number, count in enumerate(steps, first)
        ]
        with ledger.commit():
            positions = ledger.append(rows)
            ledger.store_snapshots(folds.snapshots(), folds.position)
        folds.apply(positions, rows, [decode(row[4], row[5]) for row in rows])
    assert folds.alarms == (
        "halves fold passed over the progress fact at position 2 of actor-0: ValueError: 7 has no half",
    )
    assert folds.snapshots()["halves"]["state"] == 9
    assert folds.folds["standings"].snapshot()["env_steps"] == 34
    again = Folds({"halves": Halves(), "standings": Standings()})
    again.restore(ledger)  # from the snapshot at position 3
    assert again.snapshots() == folds.snapshots()
    assert "position 4 of" in again.alarms[0]
    assert ledger.last_position == 5


def test_a_fold_that_has_no_memory_left_is_not_passed_over() -> None:
    class Full(Halves):
        def apply(self, fact: Fact) -> None:
            raise MemoryError

    with pytest.raises(MemoryError):
        feed(Folds({"full": Full()}), b.facts(("actor-0", "progress", b.progress(1))))
