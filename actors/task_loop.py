"""The loop of an actor that rolls out leased tasks, many at once where the rollout is a coroutine.

Invariants: a task is asked for only when there is room to begin it; a request that is not answered is repeated with its
own number, so that an answer lost on the way leases nothing twice; fragments leave before the outcome that closes the
task, and an exception is a fact.
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

from actors.rollout import LeasedTask, Outcome, Parameters, Rollout
from broker import messages as m
from broker.policy_spoke import PolicySpoke
from broker.station import Station

REPEAT_AFTER = 1.0
IDLE = 0.1


@dataclass
class TaskLoop:
    """Asks for tasks, rolls them out, reports outcomes, until the run stops."""

    station: Station
    rollout: Rollout
    spokes: Mapping[str, PolicySpoke]
    concurrency: int = 1
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _request: tuple[int, int, float] | None = None
    """The open request: number, count, when it was last said."""
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
        for spoke in self.spokes.values():
            if not station.wait_for(spoke.hub_name, "its first version", partial(spoke.wait_for_version, 0.05)):
                return
        while not station.stopping:
            self._ask()
            for assignment in station.tracker.take_assignments():
                self._begin(assignment)
            station.doing = f"{len(self._running)} rollouts" if self._running else "waiting for tasks"
            station.rates.update({"rollouts": len(self._running), "done": self.done})
            station.report()
            waiting = {asyncio.ensure_future(news.wait()), *self._running}
            _, pending = await asyncio.wait(waiting, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            for left in pending - self._running:
                left.cancel()
            news.clear()
        station.tracker.on_news = previous
        for running in list(self._running):
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ask(self) -> None:
        room = self.concurrency - len(self._running)
        now = time.monotonic()
        if self._request is not None:
            number, count, said = self._request
            if now - said > REPEAT_AFTER:
                self.station.tracker.repeat_request(number, count)
                self._request = (number, count, now)
        elif room > 0 and now >= self._idle_until:
            self._request = (self.station.tracker.request_tasks(room), room, now)

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
            task = LeasedTask(leased.task, leased.policy or "", json.loads(leased.body))
            running = asyncio.ensure_future(self._roll_out(task))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _roll_out(self, task: LeasedTask) -> None:
        parameters = {
            name: Parameters(newest.version, newest.tree)
            for name, spoke in self.spokes.items()
            if (newest := spoke.newest()) is not None
        }
        crcs = {name: newest.crc for name, spoke in self.spokes.items() if (newest := spoke.newest()) is not None}
        tracker = self.station.tracker
        try:
            result = self.rollout.run(task, parameters)
            outcome: Outcome = await result if inspect.isawaitable(result) else result
            for piece in outcome.pieces:
                spoke = self.spokes[piece.policy]
                while not spoke.open_for_more and not self.station.stopping:
                    await asyncio.sleep(0.005)
                acted = parameters[piece.policy].version
                sent = spoke.send_fragment(
                    dict(piece.arrays),
                    version=acted,
                    crc=crcs[piece.policy],
                    steps=piece.steps,
                    task=task.task,
                    note=piece.note,
                )
                if not sent:
                    return  # the run is ending; the lease returns the task
            for kind, body in outcome.facts:
                tracker.fact(kind, body)
        except asyncio.CancelledError:
            raise
        except Exception:
            tracker.fact(
                "rollout_error", {"task": task.task, "traceback": traceback.format_exc()[-20_000:], "permanent": False}
            )
            return
        self.done += 1
        tracker.fact("outcome", {"task": task.task, "score": outcome.score, "policy": task.policy})
