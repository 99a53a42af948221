"""A pool between facts and decisions, for the tests of the curriculum: every fact goes through JSON, as in a run."""

from __future__ import annotations

import json
from typing import Any

from tests.tracker import bodies as b
from tracker.curriculum import decisions
from tracker.curriculum.pool import Curriculum
from tracker.curriculum.settings import CurriculumSettings
from tracker.facts import Fact, decode
from tracker.leases import Request

SECOND = 10**9


def settings(**given: Any) -> CurriculumSettings:
    """Settings under the names of the run file."""
    return CurriculumSettings.model_validate(given)


class Pooled:
    """A pool, and the commit that stands between a decision and its facts. `now` is the run's clock in ns."""

    def __init__(self, *, seed: int = 7, launch: int = 1, facts: list[Fact] | None = None, **given: Any) -> None:
        self.fold = Curriculum()
        self.facts: list[Fact] = []
        self.now = 1000 * SECOND
        self.requests = 0
        for fact in facts or []:
            self.facts.append(fact)
            if fact.kind in self.fold.kinds:
                self.fold.apply(fact)
        self.begin(launch, seed, **given)

    def begin(self, launch: int = 1, seed: int = 7, **given: Any) -> None:
        for kind, body in decisions.begin(self.fold, settings(**given), launch, seed):
            self.write("tracker", kind, body)

    def write(self, source: str, kind: str, body: Any, incarnation: str = b.ONE) -> None:
        position = len(self.facts) + 1
        fact = Fact(position, source, incarnation, position, self.now, kind, decode(kind, json.dumps(body)))
        self.facts.append(fact)
        if kind in self.fold.kinds:
            self.fold.apply(fact)

    def decide(self, *requests: Request, lost: Any = (), later: float = 0.0, **more: Any) -> list[tuple[str, Any]]:
        self.now += int(later * SECOND)
        asked = [(request, request.most) for request in requests]
        facts = decisions.decide(self.fold, self.now, asked, lost, 60.0, **more).facts
        for kind, body in facts:
            self.write("tracker", kind, body)
        return facts

    def mint(self, *names: str, label: Any = "easy", source: str = "actor-0", **more: Any) -> None:
        tasks = [{"task": name, "label": label, "body": {"name": name}} for name in names]
        self.write(source, "mint", {"policy": None, "tasks": tasks, **more})
        self.decide()

    def ask(self, count: int = 1, actor: str = "actor-0", *, generate: bool = False) -> Request:
        self.requests += 1
        return Request(actor, b.ONE, self.requests, count, None, generate)

    def draw(self, count: int = 1, actor: str = "actor-0") -> list[tuple[int, str]]:
        """Ask for so many: (draw, task) of each."""
        drawn = [body for kind, body in self.decide(self.ask(count, actor)) if kind == "draw"]
        return [(number, name) for body in drawn for number, name in enumerate(body["tasks"], body["first"])]

    def outcome(self, draw: int, task: str, score: Any, actor: str = "actor-0") -> None:
        self.write(actor, "outcome", {"task": task, "score": score, "draw": draw})

    def lease(self, task: str, actor: str = "actor-0") -> int:
        """A draw of this very task, as if chance had chosen it."""
        first = self.fold.counts.draws + 1
        self.requests += 1
        body = {"to": actor, "incarnation": b.ONE, "request": self.requests, "deadline": self.now + 60 * SECOND}
        self.write("tracker", "draw", {**body, "first": first, "tasks": [task], "random": self.fold.random})
        return first

    def play(self, task: str, *scores: float, actor: str = "actor-0") -> None:
        """Draws of this task with these outcomes."""
        for score in scores:
            self.outcome(self.lease(task, actor), task, score, actor)

    def error(self, draw: int, task: str, *, permanent: bool = False, actor: str = "actor-0") -> None:
        body = {"task": task, "traceback": "Traceback\nE: no", "permanent": permanent, "draw": draw}
        self.write(actor, "rollout_error", body)

    def restored(self) -> Curriculum:
        """A fold from this one's snapshot, through JSON."""
        again = Curriculum()
        again.restore(json.loads(json.dumps(self.fold.snapshot(), allow_nan=False)))
        again.ended = self.fold.ended  # rows of the ledger, which a restart finds
        return again

    def rebuilt(self) -> Curriculum:
        """A fold from every fact, from the start."""
        again = Curriculum()
        for fact in self.facts:
            if fact.kind in again.kinds:
                again.apply(fact)
        return again
