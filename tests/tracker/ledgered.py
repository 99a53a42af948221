"""Tasks between facts and decisions, for the tests of leases and recorded results: every fact goes through JSON."""

from __future__ import annotations

import json
from typing import Any

from tests.tracker import bodies as b
from tracker import assigning
from tracker.facts import Fact, decode
from tracker.leases import ATTEMPTS, Request
from tracker.tasks import Tasks

SECOND = 10**9


class Ledgered:
    """A fold with the commit that stands between a decision and its facts."""

    def __init__(self) -> None:
        self.fold = Tasks()
        self.facts: list[Fact] = []

    def write(self, source: str, kind: str, body: Any, incarnation: str = b.ONE) -> None:
        position = len(self.facts) + 1
        fact = Fact(position, source, incarnation, position, 0, kind, decode(kind, json.dumps(body)))
        self.facts.append(fact)
        if kind in self.fold.kinds:
            self.fold.apply(fact)

    def decide(
        self, now: int = 0, *requests: Request, lost: Any = (), lease: float = 60.0, attempts: int = ATTEMPTS
    ) -> list[tuple[str, Any]]:
        decision = assigning.decide(self.fold, now, requests, lost, lease, attempts=attempts)
        for kind, body in decision.facts:
            self.write("tracker", kind, body)
        return decision.facts

    def mint(self, *names: str, policy: str | None = "p") -> None:
        self.write(
            "learner-p", "mint", {"policy": policy, "tasks": [{"task": name, "body": {"n": name}} for name in names]}
        )

    def held(self, request: Request) -> list[str]:
        answer = self.fold.answered(request)
        return [] if answer is None else [task[0] for task in answer.tasks]


def result(name: str, text: str = "paid", policy: str = "p") -> dict[str, Any]:
    return {"task": name, "score": 1.0, "policy": policy, "result": {"text": text}}
