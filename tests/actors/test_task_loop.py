"""The loop of leased tasks with real sockets, against a tracker's and a learner's hub that the test holds by hand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.rollout import LeasedTask, Outcome, Piece
from actors.services import Services
from actors.task_loop import TaskLoop
from broker import messages as m
from broker.errors import Unreachable
from broker.hub import Hub
from broker.hubstate import Arrived, FactsArrived, Said
from broker.names import new_incarnation, new_token
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor, until
from broker.station import Spec, Station
from broker.wire import Identity

DEADLINE = 10.0


class Paid:
    """A rollout that notes what it was run for, and with which parameters."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, Any]] = []
        self.outcome = Outcome(score=1.0, result={"text": "paid"})

    async def run(self, task: LeasedTask, parameters: Any) -> Outcome:
        self.runs.append((task.task, parameters["p"].tree["round"]))
        return self.outcome


class Bench:
    """An actor's loop in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        token = new_token()
        (folder / "token").write_text(token)
        self.reactors = [Reactor(name) for name in ("tracker", "learner", "actor")]
        self.tracker = Hub(self.reactors[0], self._named(token, "tracker"), f"ipc://{folder}/t")
        self.learner = Hub(self.reactors[1], self._named(token, "learner-p"), f"ipc://{folder}/l")
        self.ending = threading.Event()
        spec = Spec("actor-0", "actor", 0, str(folder), str(folder), f"ipc://{folder}/t", {})
        self.station = Station.open(spec, self.ending, reactor=self.reactors[2])
        me = self.station.identity
        spoke = PolicySpoke(self.reactors[2], me, "learner-p", self.learner.address, window=4, policy="p")
        self.rollout = Paid()
        self.facts: list[tuple[str, dict[str, Any]]] = []
        self.notes: list[tuple[str | None, Any]] = []
        self.acknowledges = True
        self._assigned: list[m.LeasedTask] = []
        loop = TaskLoop(self.station, self.rollout, {"p": spoke}, 4)
        self.publish(1)
        self.thread = threading.Thread(target=lambda: asyncio.run(loop.run()))
        self.thread.start()

    @staticmethod
    def _named(token: str, name: str) -> Identity:
        return Identity(token, name, new_incarnation())

    def publish(self, number: int) -> None:
        self.learner.publish_version("p", (1, number), {"round": number})

    def lease(self, task: str, **more: Any) -> None:
        self._assigned.append(m.LeasedTask(**{"task": task, "policy": "p", "body": "{}", **more}))

    def until(self, condition: Callable[[], Any], what: str) -> None:
        def look() -> Any:
            for delivery in self.tracker.take():
                match delivery:
                    case FactsArrived(source, incarnation, first, items):
                        self.facts += [(kind, json.loads(body)) for _, kind, body in items]
                        if self.acknowledges:
                            self.tracker.acknowledge({(source, incarnation): first + len(items) - 1})
                    case Said(source, incarnation, m.TaskRequest() as asked, _):
                        tasks, self._assigned = tuple(self._assigned), []
                        answer = {"incarnation": incarnation, "request": asked.request, "seconds": 60.0}
                        self.tracker.publish(source, m.Assignment(**answer, tasks=tasks))
            for delivery in self.learner.take():
                if isinstance(delivery, Arrived):
                    assert not delivery.arrays
                    self.notes.append((delivery.task, delivery.note))
                    self.learner.settle(delivery.source, delivery.incarnation, delivery.sequence)
            return condition()

        assert until(look, DEADLINE), f"{what}: {self.facts} {self.notes} {self.rollout.runs}"

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [body for said, body in self.facts if said == kind]

    def close(self) -> None:
        self.ending.set()
        self.thread.join(DEADLINE)
        for reactor in self.reactors:
            reactor.close()
        assert not self.thread.is_alive()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_result_is_on_disk_before_it_is_delivered(bench: Bench) -> None:
    bench.acknowledges = False
    bench.lease("a")
    bench.until(lambda: bench.said("outcome"), "the outcome")
    bench.lease("b", recorded=json.dumps({"task": "b", "score": None, "result": {"text": "old"}}))
    bench.until(lambda: bench.said("delivered"), "what was recorded before is delivered")
    assert bench.notes == [("b", {"text": "old"})]
    assert [name for name, _ in bench.rollout.runs] == ["a"], "what is recorded is not run"
    bench.acknowledges = True
    bench.tracker.acknowledge({("actor-0", bench.station.identity.incarnation): len(bench.facts)})
    bench.until(lambda: len(bench.said("delivered")) == 2, "both were delivered")
    assert bench.notes == [("b", {"text": "old"}), ("a", {"text": "paid"})]
    assert bench.said("outcome") == [{"task": "a", "score": 1.0, "policy": "p", "result": {"text": "paid"}}]
    assert [body["task"] for body in bench.said("delivered")] == ["b", "a"]


def test_a_rollout_begins_with_the_version_of_its_task_or_a_newer_one(bench: Bench) -> None:
    bench.lease("late", version=(1, 3))
    bench.lease("now", version=(1, 1))
    bench.until(lambda: bench.said("delivered"), "the other is not held up")
    assert bench.rollout.runs == [("now", 1)]
    bench.publish(2)
    bench.lease("next", version=(1, 2))
    bench.until(lambda: len(bench.said("delivered")) == 2, "the one that it was published for")
    assert bench.rollout.runs == [("now", 1), ("next", 2)]
    assert bench.station.waits["learner-p"][0] == "version 1.3"
    bench.publish(4)
    bench.until(lambda: len(bench.said("delivered")) == 3, "a newer one will do")
    assert bench.rollout.runs[2:] == [("late", 4)]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Outcome(result={"text": "x" * 300_000}), "at most 262144"),
        (Outcome(result={"number": 2**80}), "a note holds plain values only"),
        (Outcome(result={"what": object()}), "object"),
        (Outcome(result={"text": "x"}, pieces=[Piece("p", {})]), "not both"),
    ],
)
def test_a_result_that_cannot_be_recorded_is_an_error_and_no_outcome(bench: Bench, outcome: Outcome, told: str) -> None:
    bench.rollout.outcome = outcome
    bench.lease("a")
    bench.until(lambda: bench.said("rollout_error"), "the error")
    (error,) = bench.said("rollout_error")
    assert told in error["traceback"]
    assert error["permanent"], "it would be paid for again, and end the same"
    assert not bench.said("outcome")


def test_a_result_that_nobody_can_take_is_given_up(bench: Bench) -> None:
    bench.lease("a", policy="nobody", recorded=json.dumps({"task": "a", "score": None, "result": {"text": "old"}}))
    bench.until(lambda: bench.said("rollout_error"), "the error")
    (error,) = bench.said("rollout_error")
    assert "KeyError: 'nobody'" in error["traceback"]
    assert error["permanent"], "it would be leased for it again and again"
    bench.lease("b")
    bench.until(lambda: bench.said("delivered"), "the loop goes on")


def test_a_result_is_delivered_as_it_will_be_read_again(bench: Bench) -> None:
    bench.rollout.outcome = Outcome(result={"bad": float("nan"), "pair": (1, 2), "half": "\ud800"})
    bench.lease("a")
    bench.until(lambda: bench.said("delivered"), "it was delivered")
    assert bench.said("outcome")[0]["result"] == {"bad": None, "pair": [1, 2], "half": "?"}
    assert bench.notes == [("a", {"bad": None, "pair": (1, 2), "half": "?"})]  # the wire's form of a list


def test_an_endpoint_that_is_not_there_is_waited_for_and_named(bench: Bench) -> None:
    services = Services(bench.station)
    with pytest.raises(Unreachable, match="no endpoint is named 'web'"):
        asyncio.run(services.found("web", 0.2))
    assert bench.station.waits["endpoint-web"][0] == "its address"
    for address in ("http://127.0.0.1:1", "http://127.0.0.1:2"):
        entry = {"name": "endpoint-web", "role": "endpoint", "address": address, "incarnation": new_incarnation()}
        bench.tracker.publish("all", m.Directory(entries=(m.DirectoryEntry(**entry),)))
        bench.until(lambda at=address: services.address("web") == at, "it is found where it is now")  # type: ignore[misc]
    assert asyncio.run(services.found("web")) == "http://127.0.0.1:2"
    assert "endpoint-web" not in bench.station.waits
