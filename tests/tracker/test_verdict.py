"""What a run came to: it may have reached its end and failed all the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tracker import bodies as b
from tracker.standings import Standings
from tracker.verdict import UNSOUND_UPDATES, shortfall

FLAW = {"traceback": "the observation of agent is not finite in environment 3", "seed": 5, "step": 7, "environment": 3}
PLAYED = ("actor-0", "progress", b.progress())
USED = ("learner-p", "fragments", {**b.fragments(), "refused": 0})
REFUSED = ("learner-p", "fragments", {**b.fragments(), "consumed": 0})
INTERRUPTED = ("launcher", "stop_request", {"reason": "interrupted", "failed": False})
UPDATED = ("learner-p", "update", b.update(9))
UNSOUND = ("learner-p", "update", {**b.update(9), "fault": "value_loss is not finite"})
REASON = {"policy": "p", "from": "actor-0", "reason": "ValueError: rewards are not finite", "steps": 3}


def kept(number: int) -> tuple[str, str, Any]:
    return ("tracker", "checkpoint", b.checkpoint(number))


def learner(*more: tuple[str, str, Any]) -> list[tuple[str, str, Any]]:
    spawned = ("launcher", "spawned", {**b.spawned("learner-p"), "kind": "learner"})
    return [spawned, UPDATED, kept(9), *more, ("launcher", "exited", b.exited("learner-p"))]


STOPPING = ("tracker", "phase", {"phase": "stopping", "reason": "enough", "failed": False, "launch": 1})
OUTCOME = ("actor-0", "outcome", {"task": "t", "score": 1.0})
FELL = ("launcher", "exited", b.exited("actor-0"))


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ([PLAYED, UPDATED, kept(9)], ""),
        ([PLAYED, UPDATED, kept(8)], "version 1.9 of p is in no checkpoint; the newest checkpoint has 1.8"),
        ([PLAYED, UPDATED, INTERRUPTED], "version 1.9 of p is in no checkpoint; the newest checkpoint has no version"),
        ([PLAYED, UPDATED, kept(8), ("tracker", "life", b.life(2))], ""),  # `resumed` has said what was lost
        (learner(STOPPING), "learner-p died (SIGKILL): ValueError: no"),
        (learner(), ""),
        ([PLAYED, REFUSED, ("learner-p", "refusal", REASON)], "p refused all of its 5 fragments: p refused experience"),
        ([("actor-0", "environment_error", FLAW), REFUSED, ("learner-p", "refusal", REASON)], "5 fragments: the obs"),
        ([("actor-0", "environment_error", FLAW), ("launcher", "run", b.run()), REFUSED], "5 fragments: the obs"),
        ([REFUSED, INTERRUPTED], "p refused all of its 5 fragments"),
        ([UNSOUND, kept(9)], "nothing was learned: after each of the last 1 updates of p value_loss is not finite"),
        ([UPDATED, UNSOUND, kept(9)], ""),
        ([UPDATED, *[UNSOUND] * UNSOUND_UPDATES, kept(9)], f"the last {UNSOUND_UPDATES} updates of p value_loss"),
        ([PLAYED, USED], "3 fragments were used, too few for an update"),
        ([PLAYED, USED, INTERRUPTED], ""),
        ([PLAYED], "nothing was learned: 0 fragments were used"),
        ([PLAYED, FELL, INTERRUPTED], "nothing was learned: actor-0 died (SIGKILL): ValueError: no"),
        ([], "nothing was played"),
        ([("actor-0", "generation_failed", {"generation": "g", "reason": "no int"})], "nothing was played: g failed"),
        ([INTERRUPTED], ""),
        ([OUTCOME], ""),  # an evaluation of tasks needs no version
    ],
)
def test_a_run_that_came_to_nothing_has_failed(facts: list[tuple[str, str, Any]], fault: str) -> None:
    standings = Standings()
    for fact in b.facts(*facts):
        standings.apply(fact)
    told = shortfall(standings, finished=False)
    assert fault in told
    assert bool(fault) == bool(told)
    restored = Standings()
    restored.restore(standings.snapshot())
    assert shortfall(restored, finished=False) == told


def test_who_has_finished_needs_no_version() -> None:
    standings = Standings()
    for fact in b.facts(PLAYED, USED):
        standings.apply(fact)
    assert shortfall(standings, finished=True) == ""
