"""The loop of an actor that rolls out leased tasks, many at once where the rollout is a coroutine.

Invariants: a task is asked for only when there is room to begin it; a request that is not answered is repeated with its
own number, so that an answer lost on the way leases nothing twice; the outcome that closes a task is said only after
the its fragments left the learner's queue (so a fragment may come twice), and an exception is a fact.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from actors.curriculum.patience import Patience
from actors.curriculum.workshop import Workshop
from actors.rollout import LeasedTask, Outcome, Parameters, Rollout
from broker import messages as m
from broker.policy_spoke import PolicySpoke
from broker.station import Station

REPEAT_AFTER = 1.0
MAX_ASKED = 1024
"""Most tasks of one request."""
IDLE = 0.1


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
    _request: tuple[int, int, bool, float] | None = None
    """The open request: number, count, whether it offers generation, when it was last said."""
    _idle_until: float = 0.0
    _waiting_since: float = 0.0
    done: int = 0

    async def run(self) -> None:
        """Work until the station says stop."""
        station = self.station
        news = asyncio.Event()
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
            if self.workshop is not None:
                self.workshop.settle()
            self._ask()
            for assignment in station.tracker.take_assignments():
                self._begin(assignment)
            if patience is not None:
                patience.something() if self._running else patience.nothing()
            station.doing = f"{len(self._running)} rollouts" if self._running else "waiting for tasks"
            station.rates.update({"rollouts": len(self._running), "done": self.done})
            station.report()
            waiting = {asyncio.ensure_future(news.wait()), *self._running}
            _, pending = await asyncio.wait(waiting, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            for left in pending - self._running:
                left.cancel()
            news.clear()

    def _ask(self) -> None:
        room = self.concurrency - len(self._running)
        now = time.monotonic()
        if self._request is not None:
            number, count, offers, said = self._request
            if now - said > REPEAT_AFTER:
                self.station.tracker.repeat_request(number, count, generate=offers)
                self._request = (number, count, offers, now)
        elif room > 0 and now >= self._idle_until:
            room = min(room, MAX_ASKED)
            offers = self.workshop is not None and self.workshop.idle
            self._request = (self.station.tracker.request_tasks(room, generate=offers), room, offers, now)

    def _begin(self, assignment: m.Assignment) -> None:
        if self._request is None or assignment.request != self._request[0]:
            return  # the answer to a request that was repeated and answered already
        self._request = None
        if not assignment.tasks:
            self._idle_until = time.monotonic() + IDLE
            if not self._running:
                since = self.station.waits.get("tracker", ("", time.monotonic()))[1]
                self.station.waits["tracker"] = ("tasks", since)
            return
        self.station.waits.pop("tracker", None)
        for leased in assignment.tasks:
            if leased.generate:
                if self.workshop is not None:
                    self.workshop.begin(leased)
                continue
            task = LeasedTask(leased.task, leased.policy or "", json.loads(leased.body), leased.label, leased.draw)
            running = asyncio.ensure_future(self._roll_out(task))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

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

    async def _roll_out(self, task: LeasedTask) -> None:
        station = self.station
        held = {name: newest for name, spoke in self.spokes.items() if (newest := spoke.newest()) is not None}
        parameters = {name: Parameters(newest.version, newest.tree) for name, newest in held.items()}
        sendings: list[tuple[PolicySpoke, int]] = []
        whose = {"task": task.task} if task.draw is None else {"task": task.task, "draw": task.draw}
        try:
            result = self.rollout.run(task, parameters)
            outcome: Outcome = await result if inspect.isawaitable(result) else result
            for piece in outcome.pieces:
                spoke = self.spokes[piece.policy]
                since = time.monotonic()
                while not spoke.open_for_more and not station.stopping:
                    station.waits.setdefault(spoke.hub_name, ("credit", since))
                    await asyncio.sleep(0.005)
                station.waits.pop(spoke.hub_name, None)
                acted = held[piece.policy]
                sent = spoke.send_fragment(
                    dict(piece.arrays),
                    version=acted.version,
                    crc=acted.crc,
                    steps=piece.steps,
                    task=task.task,
                    note=piece.note,
                )
                if not sent:
                    return  # the run is ending; the lease returns the task
                sendings.append((spoke, spoke.made))
            for kind, body in outcome.facts:
                station.fact(kind, body)
            score = None if outcome.score is None else float(outcome.score)
            if not await self._taken(sendings):
                if task.draw is not None and station.stopping:
                    return  # the draw returns; the task did nothing wrong
                lost = "its fragment was under way to a learner that is gone"
                station.fact("rollout_error", {**whose, "traceback": lost, "permanent": False})
                return
        except asyncio.CancelledError:
            raise
        except Exception:
            station.fact("rollout_error", {**whose, "traceback": traceback.format_exc()[-20_000:], "permanent": False})
            return
        self.done += 1
        station.fact("outcome", {**whose, "score": score, "policy": task.policy})
