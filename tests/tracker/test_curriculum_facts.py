"""Facts of the pool in any order, as no tracker would write them: the fold takes all, and a snapshot holds all."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from tests.tracker import bodies as b
from tests.tracker.pools import settings
from tracker.curriculum.pool import Curriculum
from tracker.standard import standard_folds

names = st.sampled_from([f"t{index}" for index in range(5)])
actors = st.sampled_from(["actor-0", "actor-1"])
numbers = st.integers(0, 12)
labels = st.sampled_from(["x", "y", 3, None])


def settled(launch: int, scorer: str, capacity: int) -> dict[str, Any]:
    plain = settings(scorer=scorer, capacity=capacity, min_samples=1, min_presentations=1).to_plain()
    return {"launch": launch, "settings": plain, "changed": {}, "migrated": {"scorer": "reset", "schema": "evict"}}


def minted(tasks: list[tuple[str, Any]], generation: str | None) -> dict[str, Any]:
    listed = [{"task": task, "label": label, "body": {}} for task, label in tasks]
    return {"tasks": listed, **({"generation": generation} if generation else {})}


def dealt(tasks: list[str], first: int, to: str, request: int) -> dict[str, Any]:
    own = {"to": to, "incarnation": b.ONE, "request": request, "deadline": request * 10}
    return {**own, "first": first, "tasks": tasks, "random": "00000000000000ff"}


def kind(name: str, make: Any, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(name), st.builds(make, *parts))


works = st.sampled_from(["generation-1", "generation-2"])
facts = st.one_of(
    kind("curriculum", settled, st.integers(1, 3), st.sampled_from(["learning_progress", "replay"]), st.integers(1, 4)),
    kind("mint", minted, st.lists(st.tuples(names, labels), max_size=3), st.none() | works),
    kind("pool_accept", lambda of: {"of": of, "accepted": 0, "declined": [[1, "t", "no"]]}, numbers),
    kind("draw", dealt, st.lists(names, min_size=1, max_size=3), numbers, actors, numbers),
    kind("outcome", lambda t, s, d: {"task": t, "score": s, "draw": d}, names, st.none() | st.floats(-1, 2), numbers),
    kind("rollout_error", lambda t, p, d: {"task": t, "traceback": "E", "permanent": p, "draw": d},
         names, st.booleans(), numbers),
    kind("draw_returned", lambda d: {"draws": d, "from": "actor-0", "reason": "lost"}, st.lists(numbers, max_size=3)),
    kind("outcome_refused", lambda t, n: {"task": t, "of": n, "from": "a", "reason": "r"}, names, numbers),
    kind("late_outcome", lambda t, n: {"task": t, "of": n, "from": "a"}, names, numbers),
    kind("pool_rest", lambda t, n: {"task": t, "until": n}, names, numbers),
    kind("pool_ready", lambda t: {"tasks": t}, st.lists(names, max_size=2)),
    kind("pool_evict", lambda t, r: {"task": t, "reason": r, "note": ""}, names, st.sampled_from(["score", "schema"])),
    kind("generate", lambda g, n, to: {"generation": g, "most": n, "to": to, "incarnation": b.ONE, "request": n,
         "deadline": n}, works, numbers, actors),
    kind("generation_failed", lambda g, p: {"generation": g, "reason": "r", "permanent": p}, works, st.booleans()),
    kind("generation_ended", lambda g, f: {"generation": g, "from": "a", "reason": "r", "failed": f, "until": 5},
         works, st.booleans()),
    kind("liveness", lambda role: {"role": role, "state": "lost", "incarnation": b.ONE}, actors),
    kind("epoch", lambda n: {"epoch": n, "env_steps": n}, numbers),
)  # fmt: skip


@limits(max_examples=300, deadline=None)
@given(st.lists(st.tuples(actors, facts), max_size=60), st.integers(0, 60))
def test_a_snapshot_and_the_tail_give_what_the_whole_gives(history: list[Any], cut: int) -> None:
    told = b.facts(*[(source, *fact) for source, fact in history])
    whole, first, second = Curriculum(), Curriculum(), Curriculum()
    for fact in told:
        whole.apply(fact)
    for fact in told[:cut]:
        first.apply(fact)
    second.restore(json.loads(json.dumps(first.snapshot(), allow_nan=False)))
    for fact in told[cut:]:
        second.apply(fact)
    assert json.dumps(second.snapshot()) == json.dumps(whole.snapshot())


@limits(max_examples=50, deadline=None)
@given(st.lists(st.tuples(actors, facts), max_size=40))
def test_all_folds_of_a_run_take_them(history: list[Any]) -> None:
    folds = standard_folds()
    for fact in b.facts(*[(source, *fact) for source, fact in history]):
        rows = [(fact.source, fact.incarnation, fact.sequence, fact.time, fact.kind, "")]
        folds.apply(range(fact.position, fact.position + 1), rows, [fact.body])
    json.dumps(folds.snapshots(), allow_nan=False)
