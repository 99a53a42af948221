"""The learner's loop with a real hub and a real spoke: what it accepts, refuses, counts and mints."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from broker.arrays import from_bytes
from broker.errors import RunError
from broker.hub import Hub
from broker.messages import FragmentItem, Pulse
from broker.names import new_incarnation, new_token
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor, until
from broker.station import Spec, Station
from broker.wire import Identity
from learners.algorithm import Fragment, Task
from learners.loop import LearnerLoop, fault_of
from learners.role import Checkpoints, updates_lost

DEADLINE = 10.0


class Tally:
    """An algorithm that counts: an update for every two fragments."""

    def __init__(self) -> None:
        self.seen: list[Fragment] = []
        self.total = 0.0

    def accept(self, fragment: Fragment) -> None:
        if fragment.arrays["x"].shape != (3,):
            raise ValueError("x must be [3]")
        self.seen.append(fragment)

    def ready(self) -> bool:
        return len(self.seen) >= 2

    def update(self) -> dict[str, float]:
        self.total += sum(float(fragment.arrays["x"].sum()) for fragment in self.seen)
        self.seen.clear()
        return {"total": self.total}

    def mint(self) -> tuple[Task, ...]:
        return ()

    def parameters(self) -> dict[str, Any]:
        return {"total": np.array([self.total])}

    def snapshot(self) -> dict[str, Any]:
        return {"total": self.total}

    def restore(self, tree: Any) -> None:
        self.total = tree["total"]


class Bench:
    """A learner and an actor's spoke, joined by real sockets; the tracker is away, so that facts stay in the outbox."""

    def __init__(self, folder: Path) -> None:
        token = new_token()
        (folder / "token").write_text(token)
        self.reactors = [Reactor("learner"), Reactor("actor")]
        learner = Identity(token, "learner-a", new_incarnation())
        self.hub = Hub(self.reactors[0], learner, f"ipc://{folder}/hub")
        spec = Spec("learner-a", "learner", 0, str(folder), str(folder), f"ipc://{folder}/tracker", {}, "a")
        station = Station.open(spec, threading.Event(), identity=learner, reactor=self.reactors[0])
        self.loop = LearnerLoop(station, self.hub, Tally(), "a", 1, 0, max_staleness=2)
        actor = Identity(token, "actor-0", new_incarnation())
        self.spoke = PolicySpoke(self.reactors[1], actor, "learner-a", self.hub.address, window=8, policy="a")
        self.loop.publish()

    def send(self, x: Any, crc: int, version: tuple[int, int] = (1, 0), **more: Any) -> None:
        assert self.spoke.wait_for_credit(DEADLINE)
        about = {"version": version, "crc": crc, "steps": 3, **more}
        assert self.spoke.send_fragment({"x": np.asarray(x, np.float32)}, **about)

    def learn_until(self, done: Any) -> None:
        async def learn() -> None:
            arrived = asyncio.Event()

            def step() -> bool:
                self.loop._accept_all()
                return bool(done())

            while not until(step, 0.05):
                if self.loop.algorithm.ready():
                    await self.loop._update(arrived)

        asyncio.run(asyncio.wait_for(learn(), DEADLINE))

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(body) for _, of, body in self.loop.station.tracker._outbox._facts if of == kind]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for reactor in made.reactors:
        reactor.close()
        assert reactor.failure is None


def test_a_fragment_made_with_other_parameters_than_it_says_is_refused_and_told(bench: Bench) -> None:
    newest = bench.spoke.wait_for_version(DEADLINE)
    assert newest is not None
    bench.send([1, 2, 3], newest.crc)
    bench.send([1, 2, 3], newest.crc ^ 1)
    bench.send([1, 2], newest.crc)
    bench.learn_until(lambda: bench.loop.counts.refused == 2 and bench.loop.counts.consumed == 1)
    reasons = [refusal["reason"] for refusal in bench.told("refusal")]
    assert len(reasons) == 2
    assert "crc" in reasons[0]
    assert "x must be [3]" in reasons[1]
    assert bench.spoke.flushed(DEADLINE)


def test_an_algorithm_is_told_of_its_own_tasks_that_were_given_up_if_it_asks_for_that(bench: Bench) -> None:
    newest = bench.spoke.wait_for_version(DEADLINE)
    assert newest is not None
    about: dict[str, Any] = {"version": newest.version, "crc": newest.crc, "steps": 0, "given_up": "it fell"}

    def tell(task: str) -> None:
        assert bench.spoke.send_fragment({}, task=task, minted=True, **about)
        bench.learn_until(lambda: bench.spoke.flushed(0.0))

    tell("mine")  # `Tally` does not ask
    heard: list[tuple[str, str]] = []
    bench.loop.algorithm.given_up = lambda *said: heard.append(said)  # type: ignore[attr-defined]
    tell("mine")
    tell("mine@life-7")  # another life's
    assert heard == [("mine", "it fell")]
    counts = bench.loop.counts
    assert (counts.consumed, counts.stale, counts.refused, bench.told("refusal")) == (0, 1, 0, [])
    bench.loop.algorithm.given_up = [].remove  # type: ignore[attr-defined]
    tell("mine")  # and it raises: that is told, and no more
    assert (counts.consumed, counts.refused, len(bench.told("refusal"))) == (0, 1, 1)
    for reason, wrong in (("\ud800", "a note holds plain values only"), ("x" * 4097, "a reason of 4097 characters")):
        with pytest.raises((TypeError, ValueError), match=wrong):
            bench.spoke.send_fragment({}, task="mine", **{**about, "given_up": reason})
    with pytest.raises(TypeError, match="a note holds plain values only: int is not allowed for map key"):
        bench.spoke.send_fragment({}, task="mine", note={"scores": {1: 0.5}}, **about)


def test_what_is_stale_is_dropped_and_every_count_is_told_without_an_update(bench: Bench) -> None:
    newest = bench.spoke.wait_for_version(DEADLINE)
    assert newest is not None
    bench.loop.number = 3
    bench.send([1, 1, 1], newest.crc)
    bench.send([1, 1, 1], newest.crc, task="mine", minted=True)  # asked for: its age is for the algorithm to judge
    bench.send([1, 1, 1], newest.crc, version=(0, 9))
    bench.learn_until(lambda: bench.loop.counts.stale == 2 and bench.loop.counts.consumed == 1)
    bench.loop.tell_counts()
    (told,) = bench.told("fragments")
    assert (told["consumed"], told["stale"], told["refused"], told["lost"]) == (1, 2, 0, 0)
    assert told["staleness"] == {"3": 1}
    bench.loop.tell_counts()
    assert len(bench.told("fragments")) == 1


def test_a_drawn_task_is_judged_by_its_version(bench: Bench) -> None:
    tally = Tally()
    tally.ready = lambda: False  # type: ignore[method-assign]
    bench.loop.algorithm, bench.loop.life, bench.loop.number = tally, 3, 7
    bench.loop.publish()
    crc = bench.loop._crcs[-1]
    for task in ("drawn", "drawn@life-9"):
        bench.send([1, 1, 1], crc, version=(3, 7), task=task)
    bench.send([1, 1, 1], crc, version=(2, 7), task="drawn")
    bench.send([1, 1, 1], crc, version=(3, 4), task="drawn")
    bench.learn_until(lambda: bench.loop.counts.stale == 2)
    assert [fragment.task for fragment in tally.seen] == ["drawn", "drawn@life-9"]


def test_a_version_never_published_is_refused(bench: Bench) -> None:
    bench.loop.algorithm.ready = lambda: False  # type: ignore[method-assign]
    bench.loop.life, bench.loop.number = 2, 7
    bench.loop._crcs.clear()
    for number in range(7, 12):
        bench.loop.number = number
        bench.loop.publish()
    first, *_, newest = bench.loop._crcs
    for version in ((2, 12), (3, 0), (2, 2**52)):
        bench.send([1, 1, 1], newest, version=version)
    bench.send([1, 1, 1], newest, version=(2, 12), task="mine@life-2", minted=True)
    bench.send([1, 1, 1], first ^ 1, version=(2, 9))
    bench.learn_until(lambda: bench.loop.counts.refused == 5)
    bench.send([1, 1, 1], first, version=(2, 9))
    bench.learn_until(lambda: bench.loop.counts.consumed == 1)
    reasons = [refusal["reason"] for refusal in bench.told("refusal")]
    assert ["never published" in reason for reason in reasons] == [True] * 4 + [False]


def test_steps_of_a_fragment_have_a_bound(bench: Bench) -> None:
    newest = bench.spoke.wait_for_version(DEADLINE)
    assert newest is not None
    with pytest.raises(ValueError, match="agent steps"):
        bench.send([1, 1, 1], newest.crc, steps=2**32)
    message = {"sequence": 1, "version": (1, 0), "crc": 0, "steps": 2**32}
    with pytest.raises(ValidationError, match="steps"):
        FragmentItem.model_validate(message)


def test_an_update_takes_no_more_than_it_needs_and_the_rest_keeps_its_credit(bench: Bench) -> None:
    newest = bench.spoke.wait_for_version(DEADLINE)
    assert newest is not None
    for _ in range(3):
        bench.send([1, 1, 1], newest.crc)

    def one_is_left() -> bool:
        bench.loop._accept_all()
        return len(bench.loop._queue) == 1

    assert until(one_is_left, DEADLINE)
    assert until(lambda: bench.spoke.credit == 7, DEADLINE)
    bench.learn_until(lambda: bench.loop.number == 1 and bench.loop.counts.consumed == 1)
    (update,) = bench.told("update")
    assert (update["version"], update["consumed"], update["losses"]) == ([1, 1], 2, {"total": 6.0})


def test_an_update_that_tells_no_losses_is_a_version_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tally, "update", lambda self: self.seen.clear())
    newest = bench.spoke.wait_for_version(DEADLINE)
    assert newest is not None
    for _ in range(2):
        bench.send([1, 1, 1], newest.crc)
    bench.learn_until(lambda: bench.loop.number == 1)
    (update,) = bench.told("update")
    assert update["losses"] == {}


class Teller(Tally):
    """One update, then it has finished; a fact for each, said before what is minted."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = self.told = self.minted = self.asked = 0

    def facts(self) -> list[tuple[str, dict[str, Any]]]:
        said, self.told = [("round", {"n": n}) for n in range(self.told, self.rounds + 1)], self.rounds + 1
        return said

    def mint(self) -> tuple[Task, ...]:
        self.asked += 1
        asks, self.minted = tuple(Task(f"ask-{n}", {}) for n in range(self.minted, self.rounds + 1)), self.rounds + 1
        return asks

    def ready(self) -> bool:
        return self.rounds == 0 and super().ready()

    def update(self) -> dict[str, float]:
        self.rounds += 1
        return super().update()

    def finished(self) -> str | None:
        return "one round was made" if self.rounds else None


def test_an_algorithm_says_facts_mints_with_its_version_and_finishes_once(bench: Bench) -> None:
    teller = Teller()
    bench.loop.algorithm, bench.loop.life = teller, 2
    note = {"texts": ["a", ["b"]], "map": {"list": []}}

    async def run() -> None:
        arrived = asyncio.Event()
        running = asyncio.ensure_future(bench.loop.run(arrived))
        while (newest := bench.spoke.newest((1, 0))) is None:
            await asyncio.sleep(0.002)
        about: dict[str, Any] = {"version": newest.version, "crc": newest.crc, "steps": 1}
        for _ in range(2):
            assert bench.spoke.send_fragment({"x": np.ones(3)}, task="t@life-2", minted=True, note=note, **about)
        while not bench.told("finished"):
            await asyncio.sleep(0.002)
        asked = teller.asked
        while teller.asked < asked + 3:  # it is asked no more whether it has finished
            arrived.set()
            await asyncio.sleep(0.002)
        assert bench.loop.station.doing == "finished"
        bench.loop.station.ending.set()
        await running

    seen: list[Fragment] = []
    take = teller.accept
    teller.accept = lambda fragment: (seen.append(fragment), take(fragment))[1]  # type: ignore[method-assign]
    asyncio.run(asyncio.wait_for(run(), DEADLINE))
    assert [fragment.note for fragment in seen] == [note, note], "lists are lists again"
    told = [(kind, json.loads(body)) for _, kind, body in bench.loop.station.tracker._outbox._facts]
    of_ours = [(kind, body) for kind, body in told if kind in ("round", "mint", "update", "finished")]
    assert [kind for kind, _ in of_ours] == ["round", "mint", "update", "round", "mint", "finished"]
    minted = [body for kind, body in of_ours if kind == "mint"]
    assert [(body["version"], body["tasks"][0]["task"]) for body in minted] == [
        ([2, 0], "ask-0@life-2"), ([2, 1], "ask-1@life-2"),
    ]  # fmt: skip
    assert [body for kind, body in of_ours if kind == "finished"] == [{"policy": "a", "reason": "one round was made"}]


class Stuck(Teller):
    def finished(self) -> str | None:
        raise RunError("all is missing")


def test_an_algorithm_that_cannot_go_on_fails_the_run(bench: Bench) -> None:
    bench.loop.algorithm = Stuck()

    async def run() -> None:
        running = asyncio.ensure_future(bench.loop.run(asyncio.Event()))
        while not bench.told("finished"):
            await asyncio.sleep(0.002)
        bench.loop.station.ending.set()
        await running

    asyncio.run(asyncio.wait_for(run(), DEADLINE))
    (finished,) = [
        json.loads(body) for _, kind, body in bench.loop.station.tracker._outbox._facts if kind == "finished"
    ]
    assert finished == {"policy": "a", "reason": "all is missing", "failed": True}


@pytest.mark.parametrize(
    ("life", "seen", "taken", "lost"),
    [
        (2, (1, 10), (1, 7), 3),  # numbers go on within a life
        (2, (1, 10), (1, 10), 0),
        (2, (1, 10), None, 10),  # no checkpoint: life 1 began at 0
        (3, (2, 12), (1, 7), 4),  # life 2 took up 7, began at 8, and made 9 to 12
        (3, (1, 10), (1, 7), 0),  # life 2 made nothing; the loss of life 1 was told when life 2 began
        (2, None, None, 0),
    ],
)
def test_updates_lost(life: int, seen: tuple[int, int] | None, taken: tuple[int, int] | None, lost: int) -> None:
    assert updates_lost(life, seen, taken) == lost


class Slow(Tally):
    """An update that is a coroutine: it goes on until `may_end`, and is half done until then."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def update(self) -> dict[str, float]:  # type: ignore[override]
        self.seen.clear()
        self.total = -1.0
        self.began.set()
        await self.may_end.wait()
        self.total = 6.0
        return {"total": 6.0}


@pytest.mark.parametrize(("ending_seconds", "ends"), [(DEADLINE, True), (0.0, False)])
def test_an_update_is_waited_for_at_the_end(bench: Bench, ending_seconds: float, ends: bool) -> None:
    slow = Slow()
    loop, tracker = bench.loop, bench.loop.station.tracker
    loop.algorithm, loop.ending_seconds = slow, ending_seconds
    checkpoints = Checkpoints(loop.station, loop, every=1e9)
    loop.prepare = checkpoints.hold

    async def run() -> None:
        running = asyncio.ensure_future(loop.run(asyncio.Event()))
        await asyncio.sleep(0)  # it publishes its first version
        for _ in range(2):
            bench.send([1, 1, 1], loop._crcs[-1])
        while not (slow.began.is_set() or running.done()):
            await asyncio.sleep(0.002)
        tracker.phase = "stopping"
        if ends:
            slow.may_end.set()
        await running

    asyncio.run(asyncio.wait_for(run(), DEADLINE))
    assert (loop.number, loop.cut_short) == ((1, False) if ends else (0, True))
    tracker._on_pulse(Pulse(phase="stopping"), None, 0.0)  # what was held before the update is on its way by itself
    assert tracker._offer_message.version == (1, 0)
    assert tracker._upload is not None
    assert from_bytes(bytes(tracker._upload.content))["algorithm"] == {"total": 0.0}
    with pytest.raises(RunError, match="was not stored"):
        checkpoints.keep_last(0.05)  # the tracker is away
    assert tracker._offer_message.version == ((1, 1) if ends else (1, 0))
    assert from_bytes(bytes(tracker._upload.content))["algorithm"] == {"total": 6.0 if ends else 0.0}


@pytest.mark.parametrize(
    ("losses", "parameters", "fault"),
    [
        ({"policy_loss": 0.5, "steps": float("nan")}, {"w": np.ones(2)}, ""),
        ({"policy_loss": float("nan"), "rate": 1.0}, {"w": np.ones(2)}, "policy_loss is not finite"),
        ({"a": float("inf"), "b": float("nan")}, {}, "a, b are not finite"),
        ({}, {"deep": [{"w": np.array([1.0, np.nan])}]}, "its parameters are not numbers (NaN)"),
        ({}, {"w": np.array([np.inf]), "n": 3, "texts": ["a"], "none": np.zeros(0)}, ""),
    ],
)
def test_an_update_that_is_not_sound_says_so(losses: Any, parameters: Any, fault: str) -> None:
    assert fault_of(losses, parameters) == fault
