from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.delivery import body_text
from broker.names import task_id, task_name
from broker.wire import MAX_HEADER, Codec, Identity
from tests.tracker import bodies as b
from tracker.facts import Fact, decode
from tracker.tasks import Request, Tasks

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

    def decide(self, now: int = 0, *requests: Request, lost: Any = (), lease: float = 60.0) -> list[tuple[str, Any]]:
        decision = self.fold.decide(now, requests, lost, lease)
        for kind, body in decision.facts:
            self.write("tracker", kind, body)
        return decision.facts

    def mint(self, *names: str, policy: str = "p") -> None:
        self.write(
            "learner-p", "mint", {"policy": policy, "tasks": [{"task": name, "body": {"n": name}} for name in names]}
        )

    def held(self, request: Request) -> list[str]:
        answer = self.fold.answered(request)
        return [] if answer is None else [task[0] for task in answer.tasks]


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
    assert [body["task"] for _, body in run.fold.decide(0, (request,)).facts] == ["a"]
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


def test_a_task_that_ends_every_actor_is_given_up() -> None:
    run = Ledgered()
    run.mint("a")
    for attempt in range(1, 6):
        run.decide(0, Request("actor-0", b.ONE, attempt, 1))
        assert run.fold.leased == 1
        run.decide(0, lost=[("actor-0", b.ONE, "lost")])
    assert (run.fold.evicted, run.fold.waiting) == (1, 0)


def test_an_answer_fits_into_a_message_and_the_rest_stays_for_the_next() -> None:
    run = Ledgered()
    names = ["\U0001d11e" * 250 + str(number) for number in range(1000)]
    small, big = {}, {"text": "\u00e9" * 100_000}
    for body, those in ((small, names[:900]), (big, names[900:])):
        run.write("learner-p", "mint", {"policy": "p", "tasks": [{"task": name, "body": body} for name in those]})
    codec = Codec(Identity("0" * 32, "tracker", b.TWO), "hub")
    held = []
    for number in range(1, 6):
        request = Request("actor-0", b.ONE, number, 1024)
        run.decide(0, request)
        answer = run.fold.answered(request)
        assert answer is not None
        assert len(codec.encode(answer.message(0), "actor-0")) < MAX_HEADER
        held.append(len(answer.tasks))
    assert held == [920, 20, 20, 20, 20]
    assert run.fold.waiting == 0


def test_a_body_that_no_message_can_hold_ends_its_task() -> None:
    run = Ledgered()
    run.write("learner-p", "mint", {"policy": "p", "tasks": [{"task": "a", "body": {"list": [1e15] * 20_000}}]})
    run.mint("b")
    request = Request("actor-0", b.ONE, 1, 9)
    kinds = [(kind, body["task"]) for kind, body in run.decide(0, request)]
    assert kinds == [("evict", "a"), ("assign", "b")]


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


def result(name: str, text: str = "paid", policy: str = "p") -> dict[str, Any]:
    return {"task": name, "score": 1.0, "policy": policy, "result": {"text": text}}


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
    codec = Codec(Identity("0" * 32, "tracker", b.TWO), "hub")
    held = []
    for number in range(1, 4):
        request = Request("actor-0", b.ONE, number, 1024)
        run.decide(0, request)
        answer = run.fold.answered(request)
        assert answer is not None
        stored = lambda position: body_text(run.facts[position - 1].body)  # noqa: E731
        assert len(codec.encode(answer.message(0, stored), "actor-0")) < MAX_HEADER
        held.append(len(answer.tasks))
    assert held == [4, 4, 2]


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


class Histories(RuleBasedStateMachine):
    """Random histories, with a restart from a snapshot at any point.

    Names of an even number have outcomes with a result: what is recorded first is all that is ever given out for the
    name, whichever life mints it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run = Ledgered()
        self.now = 0
        self.names = 0
        self.requests = 0
        self.lives = 0
        self.first: dict[str, str] = {}
        self.minted: set[str] = set()
        self.policies: dict[str, str] = {}
        self.paid: dict[tuple[str, str], int] = {}
        """By policy and name, the position of the first outcome with a result."""

    @rule(count=st.integers(1, 4), policy=st.sampled_from("pq"))
    def mint(self, count: int, policy: str) -> None:
        names = [f"t{self.names + index}" for index in range(count)]
        self.names += count
        self.minted.update(names)
        self.policies.update(dict.fromkeys(names, policy))
        self.run.mint(*names, policy=policy)

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False))
    def mint_in_a_new_life(self, pick: Any) -> None:
        name = pick.choice(sorted(self.minted))
        policy = self.policies[name]
        self.life(policy)
        self.run.decide(self.now)
        again = task_id(task_name(name)[0], self.lives + 1)
        self.minted.add(again)
        self.policies[again] = policy
        self.run.mint(again, policy=policy)

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False))
    def mint_again(self, pick: Any) -> None:
        self.run.mint(pick.choice(sorted(self.minted)))

    @rule(
        asks=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from([None, "p", "q"])), max_size=3),
        lost=st.sets(st.integers(0, 2), max_size=2),
        later=st.integers(0, 40),
    )
    def decide(self, asks: list[Any], lost: set[int], later: int) -> None:
        self.now += later * SECOND
        requests = []
        for actor, most, policy in asks:
            self.requests += 1
            requests.append(Request(f"actor-{actor}", b.ONE, self.requests, most, policy))
        before = dict.fromkeys(name for held in self.run.fold.leases.values() for name in held)
        gone = [(f"actor-{actor}", b.ONE, "lost") for actor in lost]
        doomed = {body["task"] for kind, body in self.run.fold.owed.values() if kind == "evict"}
        facts = self.run.decide(self.now, *requests, lost=gone, lease=30.0)
        assert not doomed & self.run.fold.tasks.keys()
        assigned = [body["task"] for kind, body in facts if kind == "assign"]
        assert len(assigned) == len(set(assigned))
        assert not before.keys() & set(assigned)  # what was leased went through the queue, never from hand to hand
        for request in requests:
            assert len(self.run.held(request)) <= request.most
            answer = self.run.fold.answered(request)
            for task in answer.tasks if answer is not None else ():
                assert task.recorded == self.paid.get((task.policy, task_name(task.task)[0]), 0)

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False), actor=st.integers(0, 2))
    def delivered(self, pick: Any, actor: int) -> None:
        name = pick.choice(sorted(self.minted))
        there = name in self.run.fold.tasks and (self.policies[name], task_name(name)[0]) in self.paid
        done = self.run.fold.done
        self.run.write(f"actor-{actor}", "delivered", {"task": name})
        assert self.run.fold.done - done == there

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False), actor=st.integers(0, 2))
    def outcome(self, pick: Any, actor: int) -> None:
        name = pick.choice(sorted(self.minted))
        ended = name in self.run.fold.ended
        late, done = self.run.fold.late, self.run.fold.done
        if int(task_name(name)[0][1:]) % 2 == 0:
            key = (self.policies[name], task_name(name)[0])
            first = self.paid.setdefault(key, len(self.run.facts) + 1) == len(self.run.facts) + 1
            self.run.write(f"actor-{actor}", "outcome", result(name, policy=key[0]))
            assert (self.run.fold.late - late, self.run.fold.done - done) == (not first, 0)
            return
        self.run.write(f"actor-{actor}", "outcome", {"task": name, "score": 1.0})
        assert (self.run.fold.late - late, self.run.fold.done - done) == ((1, 0) if ended else (0, 1))

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False), actor=st.integers(0, 2), permanent=st.booleans())
    def error(self, pick: Any, actor: int, permanent: bool) -> None:
        name = pick.choice(sorted(self.minted))
        self.run.write(f"actor-{actor}", "rollout_error", {"task": name, "traceback": "E", "permanent": permanent})

    @rule(policy=st.sampled_from("pq"))
    def life(self, policy: str) -> None:
        self.lives += 1
        self.run.write("tracker", "life", b.life(self.lives, policy))

    @rule()
    def restart(self) -> None:
        again = Tasks()
        again.restore(json.loads(json.dumps(self.run.fold.snapshot())))
        again.ended = self.run.fold.ended  # rows of the ledger
        self.run.fold = again

    @invariant()
    def nothing_is_lost(self) -> None:
        fold = self.run.fold
        assert fold.minted == len(self.minted)
        assert fold.minted == fold.waiting + fold.leased + fold.done + fold.failed + fold.evicted
        assert set(fold.tasks) | set(fold.ended.fresh) == self.minted
        assert not set(fold.tasks) & set(fold.ended.fresh)
        held = [name for names in fold.leases.values() for name in names]
        assert len(held) == len(set(held))
        assert {
            (policy, name): at for policy, names in fold.recorded.items() for name, at in names.items()
        } == self.paid

    def teardown(self) -> None:
        # Whatever happened, an actor that goes on asking gets all that waits: recorded results a few at a time.
        self.run.decide(self.now)
        given, number = self.run.fold.waiting, 0
        while self.run.fold.waiting:
            number += 1
            request = Request("actor-9", b.ONE, number, 1024)
            self.run.decide(self.now, request)
            held = self.run.held(request)
            assert held
            given -= len(held)
        assert given == 0
        whole = Tasks()
        for fact in self.run.facts:
            if fact.kind in whole.kinds:
                whole.apply(fact)
        assert whole.snapshot() == self.run.fold.snapshot()


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
