"""The loop of an actor that rolls out leased tasks, many at once where the rollout is a coroutine.

Invariants: a task is asked for only when there is room to begin it (what is being recorded or delivered takes no room,
up to a limit: the next call need not wait for a disk); a rollout begins with parameters at least as new as those with
which its task was minted; the outcome that closes a task is said only after its fragments left the learner's queue (so
a fragment may come twice), and an exception is a fact, but for a RequestError, which ends the role. An outcome with a
result is on disk before the result is delivered, and what is recorded already (a result, or that the task was given
up) is delivered without a rollout.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.asking import Asking
from actors.curriculum.patience import Patience
from actors.curriculum.workshop import Workshop
from actors.rollout import LeasedTask, Outcome, Parameters, Rollout
from broker import messages as m
from broker.delivery import fact_of, shortened
from broker.errors import RequestError
from broker.policy_spoke import PolicySpoke, Versioned, packed_size
from broker.station import Station

MORE_DELIVERED = 64
"""So many more than `concurrency` may be on the way to the ledger or the learner without taking room."""
LOST = "its fragment was under way to a learner that is gone"


@dataclass
class TaskLoop:
    """Asks for tasks, rolls them out, reports outcomes, until the run stops."""

    station: Station
    rollout: Rollout
    spokes: Mapping[str, PolicySpoke]
    concurrency: int = 1
    workshop: Workshop | None = None
    """Makes new tasks, in a run with a pool."""
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _delivering: int = 0
    """Of these, how many have rolled out and are on the way to the ledger or the learner."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    """Something came from the tracker, or there is room."""
    done: int = 0
    _wrong: RequestError | None = None
    """What makes every further rollout senseless: it ends this role."""

    def __post_init__(self) -> None:
        self._asking = Asking(self.station.tracker)

    async def run(self) -> None:
        """Work until the station says stop."""
        station = self.station
        news = self._news
        loop = asyncio.get_running_loop()
        previous = station.tracker.on_news

        def wake() -> None:
            if previous is not None:
                previous()
            loop.call_soon_threadsafe(news.set)

        station.tracker.on_news = wake
        try:
            await self._serve(news)
        finally:
            station.watched = None  # no reports follow
            station.tracker.on_news = previous  # before this loop closes: the reactor must not call into a closed one
            for running in list(self._running):
                running.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=1.0)

    async def _serve(self, news: asyncio.Event) -> None:
        station = self.station
        for spoke in self.spokes.values():
            if not station.wait_for(spoke.hub_name, "its first version", partial(spoke.wait_for_version, 0.05)):
                return
        patience = Patience(station, self.workshop) if self.workshop is not None else None
        while not station.stopping:
            if self._wrong is not None:
                raise self._wrong
            if self.workshop is not None:
                self.workshop.settle()
            self._ask()
            for assignment in station.tracker.take_assignments():
                self._begin(assignment)
            if patience is not None:
                patience.something() if self._running else patience.nothing()
            if not self._running:
                station.waits.setdefault("tracker", ("tasks", time.monotonic()))
            station.doing = f"{len(self._running)} rollouts" if self._running else "waiting for tasks"
            station.rates.update({"rollouts": len(self._running), "done": self.done})
            station.report()
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), 0.05)
            news.clear()

    def _ask(self) -> None:
        room = self.concurrency - len(self._running) + min(self._delivering, self.concurrency + MORE_DELIVERED)
        now = time.monotonic()
        offers = self.workshop is not None and self.workshop.idle
        if self._asking.open:
            self._asking.repeat(room, now, offers=offers)
        elif room > 0:
            self._asking.ask(room, now, offers=offers)

    def _begin(self, assignment: m.Assignment) -> None:
        if not self._asking.answered(assignment):
            return
        if assignment.tasks:
            self.station.waits.pop("tracker", None)
        for leased in assignment.tasks:
            if leased.generate:
                if self.workshop is not None:
                    self.workshop.begin(leased)
                continue
            task = LeasedTask(leased.task, leased.policy or "", json.loads(leased.body), leased.label, leased.draw)
            if leased.recorded is None:
                running = asyncio.ensure_future(self._roll_out(task, leased.version))
            else:
                running = asyncio.ensure_future(self._deliver_again(task, leased.recorded))
            self._running.add(running)
            running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self._news.set()

    async def _taken(self, sendings: list[tuple[PolicySpoke, int]]) -> bool:
        """Wait until the learners have taken these fragments; False if one was lost, or the run is ending."""
        for spoke, fragment in sendings:
            while (fate := spoke.fate(fragment)) == "pending":
                if self.station.stopping:
                    return False
                await asyncio.sleep(0.002)
            if fate == "lost":
                return False
        return True

    async def _new_enough(self, policy: str, version: tuple[int, int] | None) -> bool:
        """Wait for this version of the policy or a newer one; False if the run is ending."""
        spoke = self.spokes.get(policy)
        if spoke is None or version is None or _reached(spoke.newest(), version):
            return True
        since = time.monotonic()
        while not _reached(spoke.newest(), version):
            if self.station.stopping:
                return False
            self.station.waits.setdefault(spoke.hub_name, (f"version {version[0]}.{version[1]}", since))
            await asyncio.sleep(0.002)
        self.station.waits.pop(spoke.hub_name, None)
        return True

    async def _has_room(self, spoke: PolicySpoke) -> None:
        """Wait for credit, or until the run is ending."""
        since = time.monotonic()
        while not spoke.open_for_more and not self.station.stopping:
            self.station.waits.setdefault(spoke.hub_name, ("credit", since))
            await asyncio.sleep(0.005)
        self.station.waits.pop(spoke.hub_name, None)

    async def _record(self, task: LeasedTask, outcome: Outcome) -> None:
        """Say the outcome at once, and deliver its result as soon as it is on disk."""
        with self._making_room():
            await self._recorded(task, outcome)

    @contextmanager
    def _making_room(self) -> Iterator[None]:
        """What is done meanwhile takes no room."""
        self._delivering += 1
        self._news.set()
        try:
            yield
        finally:
            self._delivering -= 1

    async def _recorded(self, task: LeasedTask, outcome: Outcome) -> None:
        station = self.station
        if station.ending.is_set():
            return  # what it was to be made with may have ended before us: such a result is none
        score = None if outcome.score is None else float(outcome.score)
        body = {**_whose(task), "score": score, "policy": task.policy, "result": outcome.result}
        if outcome.missing:
            body["missing"] = True
        try:
            if outcome.pieces:
                raise ValueError("an outcome has a result or pieces, not both: only a result can be delivered again")
            result = json.loads(fact_of("outcome", body, 0)[2])["result"]  # as whoever reads it again will read it
            packed_size(result)
        except (ValueError, TypeError):  # to run it again would cost as much, and end like this
            self._give_back(task, shortened(traceback.format_exc()), permanent=True, tell=True)
            return
        for kind, said in outcome.facts:
            station.fact(kind, said)
        sequence = station.fact("outcome", body)
        while station.tracker.durable < sequence:
            if station.stopping:
                return
            await asyncio.sleep(0.005)
        await self._deliver(task, result)

    async def _deliver_again(self, task: LeasedTask, recorded: str) -> None:
        """Deliver what an earlier outcome holds, or why there is none; what cannot be is not leased for it for ever."""
        try:
            body = json.loads(recorded)
            with self._making_room():
                await self._deliver(task, body.get("result"), body.get("reason"))
        except Exception:
            if not self.station.stopping:
                self._give_back(task, shortened(traceback.format_exc()), permanent=True)

    async def _deliver(self, task: LeasedTask, result: dict[str, Any] | None, given_up: str | None = None) -> None:
        """Bring a recorded result to the policy that minted its task, or why there will be none."""
        station, spoke = self.station, self.spokes[task.policy]
        await self._has_room(spoke)
        newest = spoke.newest()
        assert newest is not None  # the loop began with one
        about: dict[str, Any] = {"version": newest.version, "crc": newest.crc, "steps": 0 if result is None else 1}
        if not spoke.send_fragment({}, **about, task=task.task, minted=True, note=result, given_up=given_up):
            return  # the run is ending; the lease returns the task
        if await self._taken([(spoke, spoke.made)]):
            self.done += given_up is None
            station.fact("delivered", {"task": task.task, "given_up": given_up is not None})
        elif not station.stopping:
            self._give_back(task, LOST)

    def _give_back(self, task: LeasedTask, why: str, *, permanent: bool = False, tell: bool = False) -> None:
        self.station.fact("rollout_error", {**_whose(task), "traceback": why, "permanent": permanent, "tell": tell})

    async def _roll_out(self, task: LeasedTask, version: tuple[int, int] | None) -> None:
        station = self.station
        if not await self._new_enough(task.policy, version):
            return
        held = {name: newest for name, spoke in self.spokes.items() if (newest := spoke.newest()) is not None}
        parameters = {name: Parameters(newest.version, newest.tree) for name, newest in held.items()}
        sendings: list[tuple[PolicySpoke, int]] = []
        try:
            result = self.rollout.run(task, parameters)
            outcome: Outcome = await result if inspect.isawaitable(result) else result
            if outcome.result is not None and task.draw is not None:
                raise ValueError("a task of the pool is played again and again: its outcome has a score, and no result")
            if outcome.result is not None:
                await self._record(task, outcome)
                return
            for piece in outcome.pieces:
                spoke = self.spokes[piece.policy]
                await self._has_room(spoke)
                acted = held[piece.policy]
                sent = spoke.send_fragment(
                    dict(piece.arrays),
                    version=acted.version,
                    crc=acted.crc,
                    steps=piece.steps,
                    task=task.task,
                    minted=piece.policy == task.policy and task.draw is None,
                    note=piece.note,
                )
                if not sent:
                    return  # the run is ending; the lease returns the task
                sendings.append((spoke, spoke.made))
            for kind, body in outcome.facts:
                station.fact(kind, body)
            score = None if outcome.score is None else float(outcome.score)
            if not await self._taken(sendings):
                if not station.stopping:
                    self._give_back(task, LOST)
                return
        except asyncio.CancelledError:
            raise
        except RequestError as error:
            self._wrong = error
            return
        except (Exception, SystemExit):  # a `sys.exit` in a rollout is a fault of that rollout
            self._give_back(task, shortened(traceback.format_exc()))
            return
        self.done += 1
        station.fact("outcome", {**_whose(task), "score": score, "policy": task.policy})


def _reached(newest: Versioned | None, version: tuple[int, int]) -> bool:
    return newest is not None and newest.version >= version


def _whose(task: LeasedTask) -> dict[str, Any]:
    """What a fact about the task names it by."""
    return {"task": task.task} if task.draw is None else {"task": task.task, "draw": task.draw}
