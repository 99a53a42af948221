from __future__ import annotations

import json
from typing import Any

import pytest

from tests.tracker import bodies as b
from tests.tracker.ledgered import SECOND, Ledgered, result
from tracker.leases import Request
from tracker.tasks import Tasks


def fallen(*names: str, meanwhile: tuple[str, str, Any] | None = None) -> Ledgered:
    """A learner fell while an actor rolled these out, and minted them again in its next life."""
    run = Ledgered()
    run.mint(*names)
    run.decide(0, Request("actor-0", b.ONE, 1, 9), lease=30.0)
    run.write("tracker", "life", b.life(2, "p"))
    if meanwhile is not None:  # before the tasks of the life before are evicted
        run.write(*meanwhile)
    assert "evict" in {kind for kind, _ in run.decide(1)}
    run.mint(*(f"{name}@life-2" for name in names))
    return run


def given(run: Ledgered, seconds: int, number: int = 1) -> list[str]:
    """What another actor gets when it asks."""
    request = Request("actor-1", b.ONE, number, 9)
    run.decide(seconds * SECOND, request, lease=30.0)
    return run.held(request)


def test_what_is_rolled_out_for_the_life_before_is_not_given_out_again() -> None:
    run = fallen("a", "b")
    run.mint("c")
    assert given(run, 2) == ["c"]
    run.write("actor-0", "outcome", result("a"))
    assert given(run, 3, 2) == ["a@life-2"]
    answer = run.fold.answered(Request("actor-1", b.ONE, 2, 9))
    assert answer is not None
    assert answer.tasks[0].recorded, "its result is there: it is delivered, not rolled out"


ENDS = [
    ("rollout_error", {"task": "a", "traceback": "E", "permanent": False}),
    ("liveness", {"role": "actor-0", "state": "lost", "incarnation": b.ONE}),
    ("liveness", {"role": "actor-0", "state": "left", "incarnation": b.ONE}),
    ("liveness", {"role": "actor-0", "state": "alive", "incarnation": b.TWO}),
]


@pytest.mark.parametrize(("kind", "body"), [("outcome", {"task": "a", "score": 1.0}), *ENDS])
def test_it_is_given_out_when_nothing_more_will_come_of_it(kind: str, body: Any) -> None:
    run = fallen("a")
    assert given(run, 2) == []
    run.write("actor-0", kind, body)
    assert given(run, 3, 2) == ["a@life-2"]


@pytest.mark.parametrize(("kind", "body"), ENDS)
def test_it_is_given_out_where_that_was_known_before_the_task_was_evicted(kind: str, body: Any) -> None:
    run = fallen("a", meanwhile=("actor-0", kind, body))
    assert given(run, 2) == ["a@life-2"]


@pytest.mark.parametrize("state", ["alive", "suspect", "returned"])
def test_an_actor_that_is_there_is_waited_for(state: str) -> None:
    alive = ("tracker", "liveness", {"role": "actor-0", "state": state, "incarnation": b.ONE})
    run = fallen("a", meanwhile=alive)
    run.write(*alive)
    assert given(run, 2) == []


def test_it_is_given_out_when_the_lease_would_have_ended() -> None:
    run = fallen("a")
    run.write("tracker", "liveness", {"role": "actor-1", "state": "lost", "incarnation": b.ONE})
    run.write("tracker", "liveness", {"role": "actor-0", "state": "suspect", "incarnation": b.ONE})
    assert given(run, 29) == []
    assert given(run, 30, 2) == ["a@life-2"]


def test_it_is_waited_for_through_falls_of_learner_and_tracker() -> None:
    run = fallen("a")
    run.write("tracker", "life", b.life(3, "p"))
    run.decide(2)
    run.mint("a@life-3")
    again = Tasks()
    again.restore(json.loads(json.dumps(run.fold.snapshot())))
    again.ended = run.fold.ended  # rows of the ledger
    run.fold = again
    assert given(run, 3) == []
    run.write("actor-0", "outcome", result("a"))
    assert given(run, 4, 2) == ["a@life-3"]


def test_an_eviction_for_another_reason_ends_the_matter() -> None:
    run = Ledgered()
    run.mint("a")
    run.decide(0, Request("actor-0", b.ONE, 1, 9))
    run.write("tracker", "evict", {"task": "a", "reason": "too large"})
    run.mint("a@life-2")
    assert given(run, 1) == ["a@life-2"]
