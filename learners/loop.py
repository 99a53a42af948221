"""The learner's loop: experience in, versions out.

Invariants: every fragment that arrives is settled exactly once, as used, stale or refused, and each is counted;
the algorithm is handed no more than it needs for an update, so that staleness, measured as it is handed over, is the
staleness at use; a version is published only after its update ended, and its number is never used again.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.hub import Hub
from broker.hubstate import Arrived
from broker.station import Station
from learners.algorithm import Algorithm, Fragment

REPORT_EVERY = 0.5
LIFE = "@life-"
"""Stands in a task's name, before the life that minted it, from the second life on."""


@dataclass
class Counts:
    """What became of fragments since the last `update` fact."""

    consumed: int = 0
    stale: int = 0
    refused: int = 0
    lost: int = 0
    agent_steps: int = 0
    staleness: Counter[int] = field(default_factory=Counter)


@dataclass
class LearnerLoop:
    """Owns the algorithm of one policy and its versions."""

    station: Station
    hub: Hub
    algorithm: Algorithm
    policy: str
    life: int
    number: int
    max_staleness: int
    checkpoint: Callable[[], None] = lambda: None
    """Called after each update: offers a checkpoint when one is due."""
    counts: Counts = field(default_factory=Counts)
    losses: dict[str, float] = field(default_factory=dict)
    agent_steps: int = 0
    updates: int = 0
    """Over all lives."""
    _queue: deque[Arrived] = field(default_factory=deque)
    _lost_before: int = 0
    _last_refusal: str = ""
    _quarantined: int = 0

    @property
    def version(self) -> tuple[int, int]:
        """The version that is published."""
        return (self.life, self.number)

    def publish(self) -> None:
        """Publish the algorithm's parameters as the current version."""
        self.hub.publish_version(self.policy, self.version, self.algorithm.parameters())

    async def run(self, arrived: asyncio.Event) -> None:
        """Learn until the run stops. `arrived` is set (from the reactor) when something came."""
        station = self.station
        self.publish()
        while not station.stopping:
            self.hub.set_phase(station.tracker.phase, station.tracker.reason)
            arrived.clear()
            self._accept_all()
            if self.algorithm.ready():
                station.waits.clear()
                await self._update(arrived)
                self.checkpoint()
                await asyncio.sleep(0)
                continue
            self._mint()
            station.doing = "waiting for experience"
            self._report()
            await _until_set(arrived, 0.1)
            if not self.hub.queued:
                station.waits.setdefault("actors", ("experience", time.monotonic()))

    async def _update(self, arrived: asyncio.Event) -> None:
        station = self.station
        station.doing = "updating"
        began = time.monotonic()
        result = self.algorithm.update()
        if inspect.isawaitable(result):
            self.losses = dict(await self._meanwhile(result, arrived))
        else:
            self.losses = dict(result)
        self.number += 1
        self.updates += 1
        self.publish()
        self._record(time.monotonic() - began)
        self._report()

    async def _meanwhile(self, result: Any, arrived: asyncio.Event) -> Mapping[str, float]:
        """Wait for an update that is a coroutine, accepting what arrives."""
        update = asyncio.ensure_future(result)
        while not update.done():
            arrived.clear()
            self._accept_all(updating=True)
            self._mint()
            self._report()
            waiter = asyncio.ensure_future(arrived.wait())
            await asyncio.wait({update, waiter}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            if self.station.stopping:
                update.cancel()
                await asyncio.gather(update, return_exceptions=True)
                return {}
        losses: Mapping[str, float] = update.result()
        return losses

    def _accept_all(self, *, updating: bool = False) -> None:
        """Hand over what has arrived, until the algorithm has enough; the rest stays queued and holds its credit."""
        self._queue.extend(delivery for delivery in self.hub.take() if isinstance(delivery, Arrived))
        while self._queue and (updating or not self.algorithm.ready()):
            self._accept(self._queue.popleft())

    def _accept(self, fragment: Arrived) -> None:
        life, number = fragment.version
        task = fragment.task
        if task is not None:  # its name tells for which life it was made, whatever version the rollout then had
            task, _, of = task.partition(LIFE)
            life = int(of) if of.isdecimal() else 1
        if life != self.life or self.number - number > self.max_staleness:
            self.counts.stale += 1
            self._settle(fragment)
            return
        try:
            self.algorithm.accept(
                Fragment(fragment.arrays, fragment.version, fragment.steps, fragment.source, task, fragment.note)
            )
        except (ValueError, TypeError, KeyError) as error:
            self.counts.refused += 1
            self._refusal(fragment, error)
            self._settle(fragment)
            return
        self._count_use(fragment)
        self._settle(fragment)

    def _refusal(self, fragment: Arrived, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:500]
        if text != self._last_refusal:  # the first of a kind is told; all are counted
            self._last_refusal = text
            self.station.tracker.fact(
                "refusal", {"policy": self.policy, "from": fragment.source, "reason": text, "steps": fragment.steps}
            )

    def _settle(self, fragment: Arrived) -> None:
        self.hub.settle(fragment.source, fragment.incarnation, fragment.sequence)

    def _count_use(self, fragment: Arrived) -> None:
        self.counts.consumed += 1
        self.counts.agent_steps += fragment.steps
        self.counts.staleness[max(0, self.number - fragment.version[1])] += 1  # a task may have met an earlier life's
        self.agent_steps += fragment.steps

    def _mint(self) -> None:
        tasks = self.algorithm.mint()
        if tasks:
            # An algorithm that went back to its checkpoint mints some names again: they are other tasks now.
            suffix = f"{LIFE}{self.life}" if self.life > 1 else ""
            minted = [{"task": f"{task.task}{suffix}", "body": task.body} for task in tasks]
            body = {"policy": self.policy, "tasks": minted}
            self.station.tracker.fact("mint", body)

    def _record(self, seconds: float) -> None:
        lost = self.hub.counts()["lost"]
        counts, self.counts = self.counts, Counts()
        self.station.tracker.fact(
            "update",
            {
                "policy": self.policy,
                "version": self.version,
                "agent_steps": counts.agent_steps,
                "staleness": {str(age): count for age, count in sorted(counts.staleness.items())},
                "losses": {name: float(value) for name, value in self.losses.items()},
                "consumed": counts.consumed,
                "stale": counts.stale,
                "refused": counts.refused,
                "lost": lost - self._lost_before,
                "seconds": round(seconds, 5),
            },
        )
        self._lost_before = lost

    def _report(self) -> None:
        hub = self.hub.counts()
        self.station.rates.update(
            {"queue": self.hub.queued + len(self._queue), "version": self.number, "quarantined": hub["quarantined"]}
        )
        if hub["quarantined"] > self._quarantined:
            self._quarantined = hub["quarantined"]
            sample = self.hub.samples[-1]
            self.station.tracker.fact(
                "quarantine",
                {"hub": self.station.spec.role, "reason": sample.reason, "text": sample.text, "size": sample.size}
                | {"first": sample.first, "count": self._quarantined},
            )
        self.station.report()


async def _until_set(event: asyncio.Event, timeout: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return
