"""Random histories: whatever happens, the fold equals its rebuild, and nothing is lost, doubled or made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.tracker import bodies as b
from tests.tracker.pools import Pooled
from tracker.curriculum.pool import Curriculum

ACTORS = ["actor-0", "actor-1", "actor-2"]
BEGUN = [
    {"capacity": 12, "min_samples": 2, "min_presentations": 3, "keep_share": 0.2, "evict_share": 0.5, "failures": 2},
    {"capacity": 6, "min_samples": 1, "min_presentations": 1, "keep_share": 0.0, "scorer": "replay", "generate": 3},
    {"capacity": 8, "min_samples": 2, "min_presentations": 2, "scorer": "variance", "permanent_failures": 2},
]


class Histories(RuleBasedStateMachine):
    """Several sources at once, restarts from snapshots and resumed launches at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: Pooled
        self.given = dict(BEGUN[0])
        self.pool = Pooled(**self.given)
        self.names = 0
        self.launch = 1
        self.scores: dict[str, list[float]] = {}
        self.drawn: list[tuple[str, int, str]] = []

    @rule(count=st.integers(1, 5), actor=st.sampled_from(ACTORS), again=st.booleans(), label=st.sampled_from("xyz"))
    def mint(self, count: int, actor: str, again: bool, label: str) -> None:
        if not again:
            self.names += count
        names = [f"t{max(self.names - index, 0)}" for index in range(count)]
        self.pool.mint(*names, label=label, source=actor)

    @rule(label=st.sampled_from([3, "", None, "y" * 300]))
    def mint_what_is_wrong(self, label: Any) -> None:
        declined = self.pool.fold.counts.declined
        self.pool.mint("wrong", label=label)
        assert "wrong" not in self.pool.fold.entries
        assert self.pool.fold.counts.declined == declined + 1

    @rule(
        asks=st.lists(st.tuples(st.sampled_from(ACTORS), st.integers(1, 4), st.booleans()), max_size=3),
        lost=st.sets(st.sampled_from(ACTORS), max_size=1),
        later=st.integers(0, 40),
        closing=st.booleans(),
    )
    def decide(self, asks: list[Any], lost: set[str], later: int, closing: bool) -> None:
        requests = [self.pool.ask(most, actor, generate=generate) for actor, most, generate in asks]
        gone = [(actor, b.ONE, "lost") for actor in lost]
        for kind, body in self.pool.decide(*requests, lost=gone, later=later, closing=closing):
            if kind == "draw":
                self.drawn += [(body["to"], n, task) for n, task in enumerate(body["tasks"], body["first"])]
            if kind == "pool_evict" and body["reason"] == "score":
                assert body["outcomes"] >= self.given["min_presentations"]
        if closing:
            self.pool.write("tracker", "epoch", {"epoch": len(self.pool.fold.epochs.closed) + 1, "env_steps": 0})

    @rule(data=st.data(), score=st.floats(0, 1), wrong=st.sampled_from([None, None, None, 1.5, "nan", "actor"]))
    def outcome(self, data: Any, score: float, wrong: Any) -> None:
        if not self.drawn:
            return
        actor, number, task = self.drawn.pop(data.draw(st.integers(0, len(self.drawn) - 1)))
        fold = self.pool.fold
        there, counted = task in fold.entries, fold.counts.outcomes
        if wrong == "actor":
            actor = "actor-9"
        sent = {1.5: 1.5, "nan": None}.get(wrong, score)
        self.pool.outcome(number, task, sent, actor)
        counts = there and wrong is None
        assert fold.counts.outcomes - counted == counts
        if counts:
            self.scores.setdefault(task, []).append(score)

    @rule(data=st.data(), permanent=st.booleans())
    def fail(self, data: Any, permanent: bool) -> None:
        if self.drawn:
            actor, number, task = self.drawn.pop(data.draw(st.integers(0, len(self.drawn) - 1)))
            self.pool.error(number, task, permanent=permanent, actor=actor)

    @rule(data=st.data(), failed=st.booleans())
    def generated(self, data: Any, failed: bool) -> None:
        works = list(self.pool.fold.presentations.generating.items())
        if works:
            name, work = data.draw(st.sampled_from(works))
            if failed:
                self.pool.write(work.source, "generation_failed", {"generation": name, "reason": "no"})
            else:
                self.pool.mint(*[f"{name}.{i}" for i in range(work.most)], source=work.source, generation=name)

    @rule()
    def restart(self) -> None:
        self.pool.fold = self.pool.restored()

    @rule(given=st.sampled_from(BEGUN), theta=st.sampled_from([0.1, 0.3]))
    def resume(self, given: dict[str, Any], theta: float) -> None:
        self.launch += 1
        self.given = {**given, "theta": theta}
        migrate = {"capacity": "fit", "scorer": "reset", "schema": "keep"}
        self.pool.begin(self.launch, **self.given, migrate=migrate)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        fold = self.pool.fold
        assert fold.counts.outcomes == sum(map(len, self.scores.values()))
        for name, entry in fold.entries.items():
            assert entry.count == len(self.scores.get(name, []))
            assert abs(entry.total - sum(self.scores.get(name, []))) < 1e-9
        assert not fold.entries.keys() & fold.ended.fresh.keys()
        assert fold.counts.minted == len(fold.entries) + len(fold.ended.fresh)
        assert fold.counts.evicted == len(fold.ended.fresh) == sum(fold.evictions.values())
        slots = [entry.slot for entry in fold.entries.values()]
        assert len(slots) == len(set(slots))
        for count in ("tasks", "minted", "outcomes", "evicted", "transient", "permanent"):
            whole = len(fold.entries) if count == "tasks" else getattr(fold.counts, count)
            assert sum(getattr(tally, count) for tally in fold.labels.values()) == whole

    @invariant()
    def what_can_be_drawn_sums_to_1(self) -> None:
        fold = self.pool.fold
        assert fold.urn is not None
        found = fold.urn.probabilities(fold.counts.draws)
        assert found.keys() == {name for name, entry in fold.entries.items() if not entry.resting}
        assert not found or abs(sum(found.values()) - 1) < 1e-9
        ranked = [entry for entry in fold.entries.values() if not entry.resting]
        eligible = [entry for entry in ranked if entry.count >= fold.settings.min_samples]
        assert len(fold.urn.ranking) == len(eligible)
        assert fold.urn.ranking.total == sum(entry.level for entry in eligible)
        assert sum(tally.levels for tally in fold.labels.values()) == sum(e.level for e in fold.entries.values())

    def teardown(self) -> None:
        self.pool.decide()
        whole = self.pool.rebuilt()
        assert json.dumps(whole.snapshot()) == json.dumps(self.pool.fold.snapshot())
        # and what comes next is the same too
        before, request = Pooled(facts=self.pool.facts, **self.given), self.pool.ask(8)
        before.now = self.pool.now
        self.pool.fold = self.pool.restored()
        assert before.decide(request) == self.pool.decide(request)


Histories.TestCase.settings = limits(max_examples=60, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase


STORY = """
import json, sys
from tests.tracker.pools import Pooled
pool = Pooled(capacity=30, min_samples=3, min_presentations=5, keep_share=0.1, evict_share=0.3)
pool.mint(*[f"t{n}" for n in range(30)], label="größe")
for step in range(120):
    for draw, task in pool.draw(5, f"actor-{step % 3}"):
        pool.outcome(draw, task, (step * 31 % 97) / 97 if task != "t3" else 0.0, f"actor-{step % 3}")
    pool.decide(closing=step % 10 == 9)
    pool.mint(f"n{step}", label=f"l{step % 4}")
print(json.dumps(pool.fold.snapshot()))
"""


def test_nothing_depends_on_the_seed_of_hashes() -> None:
    told = set()
    for seed in ("0", "1", "4242"):
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", STORY], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
        told.add(done.stdout)
    assert len(told) == 1
    plain = json.loads(told.pop())
    fold = Curriculum()
    fold.restore(plain)
    assert fold.counts.evicted > 0
    assert {"größe", "l1"} <= fold.labels.keys()
