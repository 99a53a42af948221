"""Random histories of tasks: nothing is lost or given out twice, and the fold equals its rebuild."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.names import task_id, task_name
from tests.tracker import bodies as b
from tests.tracker.ledgered import SECOND, Ledgered, result
from tracker.leases import Request
from tracker.tasks import Tasks


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
        self.gone: set[str] = set()
        """Actors that are lost."""
        self.rolling: dict[str, tuple[str, int]] = {}
        """By id, the actor that rolls it out for all that it knows, and until when."""

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
        self.begin_life(self.policies[name], [name])

    @rule(policy=st.sampled_from("pq"))
    def mint_what_is_rolled_out_in_a_new_life(self, policy: str) -> None:
        self.begin_life(policy, [name for name in self.run.fold.tasks if self.policies[name] == policy])

    def begin_life(self, policy: str, names: list[str]) -> None:
        """The learner fell, and mints these again."""
        self.life(policy)
        self.run.decide(self.now)
        for again in [task_id(task_name(name)[0], self.lives + 1) for name in names]:
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
            if actor in lost:
                continue  # it is not heard
            if f"actor-{actor}" in self.gone:  # it was silent, and is heard again
                self.gone.remove(f"actor-{actor}")
                back = {"role": f"actor-{actor}", "incarnation": b.ONE, "state": "returned"}
                self.run.write("tracker", "liveness", back)
            self.requests += 1
            requests.append(Request(f"actor-{actor}", b.ONE, self.requests, most, policy))
        before = dict.fromkeys(name for held in self.run.fold.leases.values() for name in held)
        gone = [(f"actor-{actor}", b.ONE, "lost") for actor in lost]
        for actor, incarnation, state in gone:
            self.run.write("tracker", "liveness", {"role": actor, "incarnation": incarnation, "state": state})
            self.gone.add(actor)
            self.rolling = {name: held for name, held in self.rolling.items() if held[0] != actor}
        doomed = {body["task"] for kind, body in self.run.fold.owed.values() if kind == "evict"}
        facts = self.run.decide(self.now, *requests, lost=gone, lease=30.0, attempts=3)
        assert not doomed & self.run.fold.tasks.keys()
        assigned = [body["task"] for kind, body in facts if kind == "assign"]
        assert len(assigned) == len(set(assigned))
        assert not before.keys() & set(assigned)  # what was leased went through the queue, never from hand to hand
        at_work = {self.key(name) for name, (_, until) in self.rolling.items() if until > self.now} - self.paid.keys()
        assert not at_work & {self.key(name) for name in assigned}  # nor is it given out again in another life
        waiting = [name for name, task in self.run.fold.tasks.items() if task.lease is None]
        anyone = [
            request for request in requests if request.policy is None and len(self.run.held(request)) < request.most
        ]
        if anyone and not self.paid and not self.given_up:  # (of what is recorded an answer holds a little at most)
            returned = {body["task"] for kind, body in facts if kind == "lease_returned"}
            passed = {name for name in waiting if name in returned or self.run.fold.suspected(name)}
            assert {self.key(name) for name in waiting if name not in passed} <= at_work, "and nothing else waits"
        for names in self.run.fold.leases.values():
            assert sum(map(self.run.fold.suspected, names)) <= 1
        for name, actor in ((body["task"], body["to"]) for kind, body in facts if kind == "assign"):
            if name not in self.given_up:
                self.rolling[name] = (actor, self.now + 30 * SECOND)
        for request in requests:
            assert len(self.run.held(request)) <= request.most
            answer = self.run.fold.answered(request)
            for task in answer.tasks if answer is not None else ():
                paid = self.paid.get((task.policy, task_name(task.task)[0]))
                assert task.recorded == (paid or self.given_up.get(task.task, 0))

    @property
    def given_up(self) -> dict[str, int]:
        """By id, the position of the fact that says so, of tasks that have not ended and had no result then."""
        said = [(f.body["task"], f.position) for f in self.run.facts if f.kind == "given_up"]
        there = [(name, at) for name, at in said if name in self.run.fold.tasks]
        return {name: at for name, at in there if self.paid.get(self.key(name), at) >= at}

    def key(self, name: str) -> tuple[str, str]:
        """Policy and name of a task."""
        return self.policies[name], task_name(name)[0]

    @precondition(lambda self: self.run.fold.waiting)
    @rule(actor=st.integers(0, 2), times=st.integers(1, 3))
    def fall(self, actor: int, times: int) -> None:
        """It takes what there is, and falls with it."""
        for _ in range(times):
            self.decide([(actor, 3, None)], set(), 0)
            self.decide([], {actor}, 0)

    @precondition(lambda self: self.given_up)
    @rule(pick=st.randoms(use_true_random=False), holds=st.booleans(), told=st.booleans())
    def told(self, pick: Any, holds: bool, told: bool) -> None:
        """Somebody says of a task that was given up that it was told, or that its result was delivered."""
        name = pick.choice(sorted(self.given_up))
        task = self.run.fold.tasks.get(name)
        holder = task.lease.source if task is not None and task.lease is not None and holds else "actor-2"
        self.say_delivered(name, int(holder[-1]), told)

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False), actor=st.integers(0, 2), told=st.booleans())
    def delivered(self, pick: Any, actor: int, told: bool) -> None:
        self.say_delivered(pick.choice(sorted(self.minted)), actor, told)

    def say_delivered(self, name: str, actor: int, told: bool) -> None:
        there = name in self.run.fold.tasks and (self.policies[name], task_name(name)[0]) in self.paid
        word = name in self.run.fold.tasks and name in self.given_up and not there
        done, failed = self.run.fold.done, self.run.fold.failed
        self.run.write(f"actor-{actor}", "delivered", {"task": name, "given_up": told})
        assert (self.run.fold.done - done, self.run.fold.failed - failed) == (there and not told, word and told)

    @precondition(lambda self: self.minted)
    @rule(pick=st.randoms(use_true_random=False), actor=st.integers(0, 2))
    def outcome(self, pick: Any, actor: int) -> None:
        name = pick.choice(sorted(self.minted))
        self.rolling.pop(name, None)
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
    @rule(
        pick=st.randoms(use_true_random=False), actor=st.integers(0, 2), how=st.sampled_from(["", "permanent", "tell"])
    )
    def error(self, pick: Any, actor: int, how: str) -> None:
        name = pick.choice(sorted(self.minted))
        if name not in self.run.fold.tasks or self.rolling.get(name, ("",))[0] == f"actor-{actor}":
            self.rolling.pop(name, None)
        body = {"task": name, "traceback": "E", "permanent": how != "", "tell": how == "tell"}
        self.run.write(f"actor-{actor}", "rollout_error", body)

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
        # Whatever happened, an actor that goes on asking gets all that waits: recorded results a few at a time, and
        # what somebody rolls out for an earlier life when that lease would have ended.
        self.now += 31 * SECOND
        self.run.decide(self.now)
        given, number = self.run.fold.waiting, 0
        while self.run.fold.waiting:
            number += 1
            request = Request(f"actor-{8 + number}", b.ONE, number, 1024)
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
