"""The queue of tasks: who gets one, how it ends, and that what was paid for is delivered and not run again."""

from __future__ import annotations

import json
from typing import Any

from broker.delivery import body_text
from broker.wire import MAX_HEADER, Codec, Identity
from tests.tracker import bodies as b
from tests.tracker.ledgered import SECOND, Ledgered, result
from tracker import assigning
from tracker.leases import Request


def test_first_come_first_served_and_by_policy() -> None:
    run = Ledgered()
    run.mint("a", "b")
    run.mint("c", policy="q")
    run.mint("d")
    one, two = Request("actor-0", b.ONE, 1, 2), Request("actor-1", b.ONE, 1, 2)
    other = Request("actor-2", b.ONE, 1, 9, "p")
    run.decide(0, one, two, other)
    assert (run.held(one), run.held(two), run.held(other)) == (["a", "b"], ["c", "d"], [])
    assert run.fold.answered(one).tasks[0][:3] == ("a", "p", '{"n":"a"}')


def test_the_same_request_has_the_same_answer_and_no_new_facts() -> None:
    run = Ledgered()
    run.mint("a", "b")
    request = Request("actor-0", b.ONE, 1, 1)
    assert [body["task"] for _, body in assigning.decide(run.fold, 0, (request,)).facts] == ["a"]
    assert run.fold.waiting == 2  # a decision changes nothing
    assert run.fold.answered(request) is None
    run.decide(0, request)
    assert run.held(request) == ["a"]


def test_the_first_outcome_counts_whoever_sends_it() -> None:
    run = Ledgered()
    run.mint("a")
    run.decide(0, Request("actor-0", b.ONE, 1, 1), lease=1.0)
    assert run.decide(2 * SECOND)[0][1]["reason"] == "expired"
    run.decide(2 * SECOND, Request("actor-1", b.ONE, 1, 1))
    run.write("actor-0", "outcome", {"task": "a", "score": 1.0})
    assert (run.fold.done, run.fold.leased, run.fold.waiting) == (1, 0, 0)
    run.write("actor-1", "outcome", {"task": "a", "score": 0.0})
    assert run.fold.late == 1
    late = run.decide(3 * SECOND)
    assert late == [("late_outcome", {"task": "a", "from": "actor-1", "of": late[0][1]["of"]})]
    assert run.decide(3 * SECOND) == []  # told once


def test_an_id_is_used_once() -> None:
    run = Ledgered()
    run.mint("a", "a")
    run.write("actor-0", "outcome", {"task": "a", "score": 1.0})
    run.mint("a")
    assert (run.fold.minted, run.fold.duplicates, run.fold.waiting) == (1, 2, 0)
    assert [kind for kind, _ in run.decide()] == ["duplicate_task", "duplicate_task"]
    assert run.decide() == []


def test_a_lost_actor_returns_its_tasks_to_the_front() -> None:
    run = Ledgered()
    run.mint("a", "b", "c")
    run.decide(0, Request("actor-0", b.ONE, 1, 2))
    returned = run.decide(1, lost=[("actor-0", b.ONE, "lost")])
    assert [(kind, body["task"]) for kind, body in returned] == [("lease_returned", "a"), ("lease_returned", "b")]
    request = Request("actor-1", b.ONE, 1, 3)
    run.decide(2, request)
    assert run.held(request) == ["a", "b", "c"]


def test_errors_return_a_task_or_end_it() -> None:
    run = Ledgered()
    run.mint("a", "b")
    run.decide(0, Request("actor-0", b.ONE, 1, 2))
    run.write("actor-0", "rollout_error", {"task": "a", "traceback": "E", "permanent": False})
    run.write("actor-0", "rollout_error", {"task": "b", "traceback": "E", "permanent": True})
    run.write("actor-9", "rollout_error", {"task": "a", "traceback": "not the holder", "permanent": True})
    run.decide(1)
    assert (run.fold.waiting, run.fold.failed, run.fold.leased) == (1, 1, 0)


def given_up(run: Ledgered, name: str = "a", policy: str | None = "p") -> None:
    """Five actors are lost with it, and no more is asked of anybody."""
    run.mint(name, policy=policy)
    for attempt in range(1, 6):
        run.decide(0, Request("actor-0", b.ONE, attempt, 1))
        assert run.fold.leased == 1
        assert not run.fold.recorded_at(name)
        run.decide(0, lost=[("actor-0", b.ONE, "lost")])


def test_a_task_that_ends_every_actor_is_given_up_and_its_policy_is_told() -> None:
    run = Ledgered()
    given_up(run)
    fact = run.facts[-1]
    assert (fact.kind, fact.body["task"]) == ("given_up", "a")
    assert fact.body["reason"] == "5 leases ended without an outcome, the last one: lost"
    assert (run.fold.failed, run.fold.waiting) == (0, 1)
    run.fold.restore(json.loads(json.dumps(run.fold.snapshot())))
    for attempt in range(1, 8):  # however often who is to tell it is lost, it is not run again
        request = Request("actor-1", b.ONE, attempt, 1)
        run.decide(0, request)
        answer = run.fold.answered(request)
        assert answer is not None
        assert [(task.task, task.body, task.recorded) for task in answer.tasks] == [("a", "{}", fact.position)]
        run.decide(0, lost=[("actor-1", b.ONE, "lost")])
    run.write("actor-2", "delivered", {"task": "a"})  # nobody can have delivered a result
    assert run.fold.waiting == 1
    run.write("actor-2", "delivered", {"task": "a", "given_up": True})
    assert (run.fold.failed, run.fold.done, run.fold.waiting, run.fold.given_up) == (1, 0, 0, {})
    assert run.decide(0) == []


def test_a_task_of_no_policy_that_ends_every_actor_is_evicted() -> None:
    run = Ledgered()
    given_up(run, policy=None)
    assert run.facts[-1].kind == "evict"
    assert (run.fold.evicted, run.fold.waiting) == (1, 0)


def test_what_comes_of_a_task_that_was_given_up_still_counts() -> None:
    run = Ledgered()
    given_up(run, "a")
    given_up(run, "b")
    run.write("actor-0", "outcome", {"task": "a", "score": 1.0})  # its lease had run out, not its rollout
    assert (run.fold.done, run.fold.late, run.fold.waiting) == (1, 0, 1)
    run.write("actor-0", "outcome", result("b"))
    request = Request("actor-1", b.ONE, 1, 9)
    run.decide(0, request)
    answer = run.fold.answered(request)
    assert answer is not None
    assert [(task.task, task.recorded) for task in answer.tasks] == [("b", len(run.facts) - 1)]  # the result
    run.write("actor-1", "delivered", {"task": "b", "given_up": True})  # it was on its way with that word before
    assert (run.fold.done, run.fold.failed, run.fold.waiting) == (1, 0, 1)
    run.write("actor-1", "delivered", {"task": "b"})
    assert (run.fold.done, run.fold.failed, run.fold.given_up) == (2, 0, {})


def test_a_new_life_tries_again_what_was_given_up() -> None:
    run = Ledgered()
    given_up(run)
    run.write("tracker", "life", b.life(2))
    run.decide(0)
    run.mint("a@life-2")
    request = Request("actor-0", b.ONE, 9, 9)
    run.decide(0, request)
    answer = run.fold.answered(request)
    assert answer is not None
    assert [(task.task, task.recorded) for task in answer.tasks] == [("a@life-2", 0)]
    assert (run.fold.evicted, run.fold.given_up) == (1, {})


def test_a_result_that_cannot_be_recorded_is_given_up_at_once() -> None:
    run = Ledgered()
    run.mint("a")
    run.mint("b", policy=None)
    run.decide(0, Request("actor-0", b.ONE, 1, 2))
    for name in ("a", "b"):
        body = {"task": name, "traceback": "Traceback\n\nValueError: too long", "permanent": True, "tell": True}
        run.write("actor-0", "rollout_error", body)
    facts = run.decide(0, Request("actor-0", b.ONE, 2, 1))
    reason = "ValueError: too long"
    assert facts == [("given_up", {"task": "a", "reason": reason}), ("evict", {"task": "b", "reason": reason})]
    assert (run.fold.waiting, run.fold.leased, run.fold.evicted) == (1, 0, 1)  # of no policy: nobody is told


def test_a_result_that_came_before_the_word_is_what_is_brought() -> None:
    run = Ledgered()
    run.mint("a")
    run.decide(0, Request("actor-0", b.ONE, 1, 1))
    body = {"task": "a", "traceback": "E", "permanent": True, "tell": True}
    run.write("actor-0", "rollout_error", body)
    run.write("actor-1", "outcome", result("a"))  # whose lease had run out
    run.decide(0)
    assert (run.fold.waiting, run.fold.given_up, run.fold.recorded_at("a")) == (1, {}, 4)


def test_a_task_that_kills_takes_no_other_along() -> None:
    run = Ledgered()
    run.mint("kills", "a", "b", "c", "d")
    for attempt in range(1, 20):
        request = Request("actor-0", b.ONE, attempt, 3)
        run.decide(0, request)
        if "kills" in run.held(request) and not run.fold.recorded_at("kills"):
            run.decide(0, lost=[("actor-0", b.ONE, "lost")])
            continue
        for name in run.held(request):
            told = {"given_up": True} if name == "kills" else {}
            run.write("actor-0", "delivered" if told else "outcome", {"task": name, **(told or {"score": 1.0})})
    assert (run.fold.done, run.fold.failed, run.fold.waiting, run.fold.leased) == (4, 1, 0, 0)


def fits(run: Ledgered, number: int) -> int:
    """How many tasks this request is given when it asks for all there are: the answer fits into a message."""
    request = Request("actor-0", b.ONE, number, 1024)
    run.decide(0, request)
    answer = run.fold.answered(request)
    assert answer is not None
    message = answer.message(0, lambda position: body_text(run.facts[position - 1].body))
    codec = Codec(Identity("0" * 32, "tracker", b.TWO), "hub")
    assert len(codec.encode(message, "actor-0")) < MAX_HEADER
    return len(answer.tasks)


def test_an_answer_fits_into_a_message_and_the_rest_stays_for_the_next() -> None:
    run = Ledgered()
    names = ["\U0001d11e" * 250 + str(number) for number in range(1000)]
    small, big = {}, {"text": "\u00e9" * 100_000}
    for body, those in ((small, names[:900]), (big, names[900:])):
        run.write("learner-p", "mint", {"policy": "p", "tasks": [{"task": name, "body": body} for name in those]})
    assert [fits(run, number) for number in range(1, 6)] == [920, 20, 20, 20, 20]
    assert run.fold.waiting == 0


def test_a_task_whose_body_no_message_can_hold_is_given_up() -> None:
    run = Ledgered()
    run.write("learner-p", "mint", {"policy": "p", "tasks": [{"task": "a", "body": {"list": [1e15] * 20_000}}]})
    run.mint("b")
    request = Request("actor-0", b.ONE, 1, 9)
    kinds = [(kind, body["task"]) for kind, body in run.decide(0, request)]
    assert kinds == [("given_up", "a"), ("assign", "b")]
    run.decide(0, request := Request("actor-0", b.ONE, 2, 9))
    assert run.held(request) == ["a"]
    assert run.fold.recorded_at("a") == len(run.facts) - 2


def test_a_new_life_ends_what_the_earlier_ones_minted() -> None:
    run = Ledgered()
    run.mint("a", "b", "c", "d")
    run.mint("e", policy="q")
    run.decide(0, Request("actor-0", b.ONE, 1, 2))
    run.write("tracker", "life", b.life(2))
    run.write("actor-0", "outcome", {"task": "a", "score": 1.0})  # before the tracker's decision: it counts
    run.write("actor-0", "rollout_error", {"task": "b", "traceback": "E", "permanent": False})
    run.mint("f")  # of the new life
    run.fold.restore(json.loads(json.dumps(run.fold.snapshot())))
    request = Request("actor-1", b.ONE, 1, 9)
    facts = run.decide(1, request, lost=[("actor-0", b.ONE, "lost")])
    assert [(kind, body["task"]) for kind, body in facts] == [
        ("evict", "b"), ("evict", "c"), ("evict", "d"), ("assign", "e"), ("assign", "f"),
    ]  # fmt: skip
    assert facts[0][1]["reason"] == "p began life 2"
    assert (run.fold.done, run.fold.evicted, run.fold.waiting, run.fold.leased) == (1, 3, 0, 2)
    assert run.held(request) == ["e", "f"]
    assert run.decide(1) == []


def given(run: Ledgered, request: Request) -> dict[str, Any]:
    """What the actor is sent: by task, the result that it is only to deliver, or None."""
    answer = run.fold.answered(request)
    assert answer is not None
    sent = answer.message(0, lambda position: json.dumps(run.facts[position - 1].body))
    return {t.task: t.recorded and json.loads(t.recorded)["result"] for t in sent.tasks}


def test_a_recorded_result_is_delivered_and_never_run_again() -> None:
    run = Ledgered()
    run.mint("a", "b")
    run.decide(0, Request("actor-0", b.ONE, 1, 2))
    run.write("actor-0", "outcome", result("a", "first"))
    assert (run.fold.done, run.fold.leased) == (0, 2)
    for lapse in range(1, 9):  # however often the deliverer is lost
        run.decide(lapse, lost=[(f"actor-{lapse - 1}", b.ONE, "lost")])
        request = Request(f"actor-{lapse}", b.ONE, 1, 1)
        run.decide(lapse, request)
        assert given(run, request) == {"a": {"text": "first"}}
    run.write("actor-9", "outcome", result("a", "second"))
    assert [kind for kind, _ in run.decide(9)] == ["late_outcome"]
    assert given(run, request) == {"a": {"text": "first"}}, "of two outcomes the first counts"
    run.write("actor-8", "delivered", {"task": "a"})
    run.write("actor-8", "delivered", {"task": "a"})
    assert (run.fold.done, run.fold.leased, run.fold.waiting) == (1, 0, 1)


def test_a_name_that_is_minted_again_gets_its_recorded_result() -> None:
    run = Ledgered()
    run.mint("a", "b", "c")
    run.decide(0, Request("actor-0", b.ONE, 1, 3))
    run.write("actor-0", "outcome", result("a"))
    run.write("actor-0", "delivered", {"task": "a"})
    run.write("actor-0", "outcome", result("b"))
    run.write("tracker", "life", b.life(2))
    run.decide(1)
    run.write("actor-0", "outcome", result("c"))  # its task has ended, what was paid for is kept
    assert run.fold.late == 0
    run.mint("a@life-2", "b@life-2", "c@life-2", "d@life-2")
    run.mint("a", policy="q")
    run.fold.restore(json.loads(json.dumps(run.fold.snapshot())))
    request = Request("actor-1", b.ONE, 1, 9)
    run.decide(2, request)
    paid = {"text": "paid"}
    assert given(run, request) == {"a@life-2": paid, "b@life-2": paid, "c@life-2": paid, "d@life-2": None}
    assert run.fold.duplicates == 1  # an id is used once, whichever policy's
    run.write("actor-1", "delivered", {"task": "d@life-2"})  # it has no result
    run.write("actor-0", "delivered", {"task": "c"})  # said of the task that a new life has ended
    assert (run.fold.done, run.fold.leased) == (1, 4)


def test_a_missing_result_is_run_again_by_the_next_launch_alone() -> None:
    """Until then it is delivered like any other, so that a learner that falls meets what it met before."""
    run = Ledgered()
    run.write("tracker", "phase", {"phase": "starting", "reason": "", "failed": False, "launch": 1})
    run.mint("a", "b", "c")
    run.decide(0, Request("actor-0", b.ONE, 1, 3))
    for name in ("a", "b", "c"):
        run.write("actor-0", "outcome", {**result(name, "nothing"), "missing": name != "c"})
        run.write("actor-0", "delivered", {"task": name})
    run.write("actor-1", "outcome", {**result("c", "nothing"), "missing": True})  # late: what is measured stays
    run.write("actor-1", "outcome", result("b", "late"))  # a measurement takes the place of none
    run.write("tracker", "life", b.life(2))
    run.mint("a@life-2", "b@life-2", "c@life-2")
    request = Request("actor-1", b.ONE, 1, 9)
    run.decide(1, request)
    nothing, late = {"text": "nothing"}, {"text": "late"}
    assert given(run, request) == {"a@life-2": nothing, "b@life-2": late, "c@life-2": nothing}
    run.fold.restore(json.loads(json.dumps(run.fold.snapshot())))
    run.write("tracker", "phase", {"phase": "starting", "reason": "", "failed": False, "launch": 2})
    run.decide(2, lost=[("actor-1", b.ONE, "lost")])
    run.write("tracker", "life", b.life(3))
    run.decide(2)
    run.mint("a@life-3", "b@life-3", "c@life-3")
    request = Request("actor-1", b.TWO, 1, 9)
    run.decide(2, request)
    assert given(run, request) == {"a@life-3": None, "b@life-3": late, "c@life-3": nothing}
    run.write("actor-1", "outcome", result("a@life-3", "paid"), b.TWO)
    assert given(run, request)["a@life-3"] == {"text": "paid"}
    assert run.fold.late == 1


def test_a_result_belongs_to_its_policy() -> None:
    run = Ledgered()
    run.mint("a")
    run.mint("a@life-2", policy="q")
    run.write("actor-0", "outcome", result("a"))
    request = Request("actor-1", b.ONE, 1, 9)
    run.decide(2, request)
    assert given(run, request) == {"a": {"text": "paid"}, "a@life-2": None}


def test_recorded_results_fit_into_a_message() -> None:
    run = Ledgered()
    run.mint(*[f"t{number}" for number in range(10)])
    for number in range(10):
        run.write("actor-0", "outcome", result(f"t{number}", "\U0001d11e" * 262_000))
    assert [fits(run, number) for number in range(1, 4)] == [4, 4, 2]


def test_a_task_carries_the_version_that_minted_it() -> None:
    run = Ledgered()
    run.write("learner-p", "mint", {"policy": "p", "version": [2, 7], "tasks": [{"task": "a", "body": {}}]})
    run.mint("b")
    run.fold.restore(json.loads(json.dumps(run.fold.snapshot())))
    request = Request("actor-0", b.ONE, 1, 2)
    run.decide(0, request)
    answer = run.fold.answered(request)
    assert answer is not None
    assert [task.version for task in answer.message(0).tasks] == [(2, 7), None]
