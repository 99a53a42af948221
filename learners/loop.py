"""The learner's loop: experience in, versions out.

Invariants: every fragment that arrives is settled exactly once, as used, stale or refused, and each is counted (but
for the word that a task was given up, which is no experience);
the algorithm is handed no more than it needs for an update, so that staleness, measured as it is handed over, is the
staleness at use; a version is published only after its update ended, and its number is never used again.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from broker.delivery import mint_parts
from broker.errors import RunError
from broker.hub import Hub
from broker.hubstate import Arrived
from broker.messages import MAX_TEXT
from broker.names import task_id, task_name
from broker.station import Station
from learners.algorithm import Algorithm, Finishing, Fragment, GivingUp, Telling, Tree

COUNTS_EVERY = 1.0
"""Seconds without an update after which the counts of fragments are told by themselves."""
CANCEL_SECONDS = 1.0
MAX_FAULT = 500
SLOW_UPDATE = 1.0
"""Seconds. Before an update that may take longer, a checkpoint of the published version is prepared."""


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
    ending_seconds: float = 0.0
    """Longest wait for a running update when the run ends, in seconds."""
    checkpoint: Callable[[], None] = lambda: None
    """Called after each update: offers a checkpoint when one is due."""
    prepare: Callable[[], None] = lambda: None
    """Called before an update that may outlast the run: prepares a checkpoint of the published version."""
    cut_short: bool = False
    """Whether the run ended during an update, so that the algorithm's state is not the published version."""
    max_waiting: int = 65_536
    """Most fragments in the queue; with more, none are taken from the hub. All actors may have this many under way."""
    counts: Counts = field(default_factory=Counts)
    losses: dict[str, float] = field(default_factory=dict)
    agent_steps: int = 0
    updates: int = 0
    """Over all lives."""
    _queue: deque[Arrived] = field(default_factory=deque)
    _recorded_at: float = field(default_factory=time.monotonic)
    _lost_before: int = 0
    _last_refusal: str = ""
    _update_seconds: float = SLOW_UPDATE
    """Seconds of the last update; before the first update a guess."""
    _fault: str = ""
    """What is wrong with the published version or the losses of its update; empty if nothing is."""
    _quarantined: int = 0
    _finished: bool = False

    def __post_init__(self) -> None:
        self._crcs: deque[int] = deque(maxlen=self.max_staleness + 1)
        """Checksums of the versions of this life that experience may name, the newest last."""

    @property
    def version(self) -> tuple[int, int]:
        """The version that is published."""
        return (self.life, self.number)

    def publish(self) -> None:
        """Publish the algorithm's parameters as the current version."""
        parameters = self.algorithm.parameters()
        self._crcs.append(self.hub.publish_version(self.policy, self.version, parameters))
        self._fault = fault_of(self.losses, parameters)

    async def run(self, arrived: asyncio.Event) -> None:
        """Learn until the run stops. `arrived` is set (from the reactor) when something came."""
        station = self.station
        self._crcs.clear()
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
            self.tell_facts()
            self._mint()
            self._finish()
            station.doing = "finished" if self._finished else "waiting for experience"
            self._report()
            await _until_set(arrived, 0.1)
            if not self.hub.queued and not self._finished:
                station.waits.setdefault("actors", ("experience", time.monotonic()))

    async def _update(self, arrived: asyncio.Event) -> None:
        station = self.station
        station.doing = "updating"
        if self._update_seconds >= SLOW_UPDATE:
            self._prepare()
        began = time.monotonic()
        result = self.algorithm.update()
        if inspect.isawaitable(result):
            if self._update_seconds < SLOW_UPDATE:
                self._prepare()
            losses = await self._meanwhile(result, arrived)
        else:
            losses = result or {}
        if losses is None:  # an unfinished update makes no version
            self.cut_short = True
            return
        self._update_seconds = time.monotonic() - began
        self.losses = dict(losses)
        self.number += 1
        self.updates += 1
        self.publish()
        self._record(self._update_seconds)
        self.tell_facts()
        self._report()

    def _prepare(self) -> None:
        self.tell_facts()
        self.prepare()

    async def _meanwhile(self, result: Any, arrived: asyncio.Event) -> Mapping[str, float] | None:
        """Wait for an update that is a coroutine, and accept arriving experience in the meantime.

        Returns None if the update was cut short: `ending_seconds` after the run began to end, or on SIGTERM.
        """
        update, deadline = asyncio.ensure_future(result), math.inf
        while not update.done():
            arrived.clear()
            self._accept_all(updating=True)
            self.tell_facts()
            self._mint()
            self._report()
            waiter = asyncio.ensure_future(arrived.wait())
            await asyncio.wait({update, waiter}, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            now = time.monotonic()
            if self.station.stopping and not update.done():
                deadline = 0.0 if self.station.ending.is_set() else min(deadline, now + self.ending_seconds)
            if now >= deadline:
                update.cancel()
                await asyncio.wait({update}, timeout=CANCEL_SECONDS)
                if not update.done() or update.cancelled() or update.exception() is not None:
                    return None
        losses: Mapping[str, float] = update.result() or {}
        return losses

    def _accept_all(self, *, updating: bool = False) -> None:
        """Hand over what has arrived, until the algorithm has enough; the rest stays queued and holds its credit."""
        if len(self._queue) < self.max_waiting:
            self._queue.extend(delivery for delivery in self.hub.take() if isinstance(delivery, Arrived))
        while self._queue and (updating or not self.algorithm.ready()):
            self._accept(self._queue.popleft())

    def _accept(self, fragment: Arrived) -> None:
        task = fragment.task
        if fragment.minted:  # the algorithm asked for this task in one life, and takes any version of the parameters
            task, life = task_name(task or "")
            stale = life != self.life
        else:
            stale = fragment.version < (self.life, self.number - self.max_staleness)
        if stale:
            self.counts.stale += 1
            self._settle(fragment)
            return
        try:
            self._check_version(fragment)
            if fragment.given_up is None:
                self.algorithm.accept(
                    Fragment(
                        fragment.arrays, fragment.version, fragment.steps, fragment.source, task, _lists(fragment.note)
                    )
                )
            elif isinstance(self.algorithm, GivingUp):
                self.algorithm.given_up(task or "", fragment.given_up)
        except (ValueError, TypeError, KeyError) as error:
            self.counts.refused += 1
            self._refusal(fragment, error)
            self._settle(fragment)
            return
        if fragment.given_up is None:
            self._count_use(fragment)
        self._settle(fragment)

    def _check_version(self, fragment: Arrived) -> None:
        """Raise ValueError unless this learner published the version that the fragment names, with that crc.

        The crcs of versions of earlier lives, and of those beyond `max_staleness`, are not remembered. Only rollouts of
        minted tasks may name them, and their crc is not checked.
        """
        life, number = fragment.version
        age = self.number - number
        if fragment.version > self.version or (life == self.life and len(self._crcs) <= age <= self.max_staleness):
            raise ValueError(f"it names version {life}.{number}, which was never published")
        if life == self.life and age <= self.max_staleness and self._crcs[-1 - age] != fragment.crc:
            published = self._crcs[-1 - age]
            raise ValueError(f"it acted with parameters of crc {fragment.crc}; version {life}.{number} has {published}")

    def _refusal(self, fragment: Arrived, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:500]
        if text != self._last_refusal:  # the first of a kind is told; all are counted
            self._last_refusal = text
            self.station.fact(
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
            minted = [{"task": task_id(task.task, self.life), "body": task.body} for task in tasks]
            for part in mint_parts(minted):
                self.station.fact("mint", {"policy": self.policy, "version": self.version, "tasks": part})

    def tell_facts(self) -> None:
        """Say what the algorithm has to say."""
        if isinstance(self.algorithm, Telling):
            for kind, body in self.algorithm.facts():
                self.station.fact(kind, body)

    def _finish(self) -> None:
        """Say once that this policy has nothing left to do."""
        if not self._finished and isinstance(self.algorithm, Finishing):
            failed = {}
            try:
                reason = self.algorithm.finished()
            except RunError as error:
                reason, failed = str(error), {"failed": True}
            if reason is not None:
                self._finished = True
                self.station.waits.clear()
                self.station.fact("finished", {"policy": self.policy, "reason": reason[:MAX_TEXT], **failed})

    def _record(self, seconds: float) -> None:
        losses = {name: float(value) for name, value in self.losses.items()}
        about: dict[str, Any] = {"version": self.version, "losses": losses, "seconds": round(seconds, 5)}
        if self._fault:
            about["fault"] = self._fault
        self.station.fact("update", self._differences() | about)

    def tell_counts(self) -> None:
        """What became of fragments since the last `update` fact, where no update says it."""
        said = self._differences()
        if any(said[name] for name in ("consumed", "stale", "refused", "lost")):
            self.station.fact("fragments", said)

    def _differences(self) -> dict[str, Any]:
        lost = self.hub.counts()["lost"]
        counts, self.counts = self.counts, Counts()
        lost, self._lost_before = lost - self._lost_before, lost
        self._recorded_at = time.monotonic()
        return {
            "policy": self.policy,
            "agent_steps": counts.agent_steps,
            "staleness": {str(age): count for age, count in sorted(counts.staleness.items())},
            "consumed": counts.consumed,
            "stale": counts.stale,
            "refused": counts.refused,
            "lost": lost,
        }

    def _report(self) -> None:
        hub = self.hub.counts()
        self.station.rates.update(
            {"queue": self.hub.queued + len(self._queue), "version": self.number, "quarantined": hub["quarantined"]}
        )
        if hub["quarantined"] > self._quarantined:
            count, self._quarantined = hub["quarantined"] - self._quarantined, hub["quarantined"]
            sample = self.hub.samples[-1]
            about = {"text": sample.text, "size": sample.size, "first": sample.first}
            who = {"source": self.station.spec.role, "reason": sample.reason, "count": count}
            self.station.fact("quarantine", who | about)
        if time.monotonic() - self._recorded_at >= COUNTS_EVERY:
            self.tell_counts()
        self.station.report()


def fault_of(losses: Mapping[str, Any], parameters: Tree) -> str:
    """Return the fault of an update: a loss that is not finite, or parameters that are NaN; empty without a fault.

    Reported values without `loss` in their name may be NaN (a mean of nothing), but not all values at once.
    """
    numbers = {name: float(value) for name, value in losses.items()}
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    if any("loss" in name for name in wrong) or (wrong and len(wrong) == len(numbers)):
        return f"{', '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} not finite"[:MAX_FAULT]
    return "its parameters are not numbers (NaN)" if _has_nan(parameters) else ""


def _has_nan(tree: Tree) -> bool:
    if isinstance(tree, np.ndarray):
        return tree.dtype.kind == "f" and tree.size > 0 and bool(np.isnan(tree.min()))  # a minimum is NaN if any is
    if isinstance(tree, dict):
        return any(map(_has_nan, tree.values()))
    return any(map(_has_nan, tree)) if isinstance(tree, list | tuple) else isinstance(tree, float) and math.isnan(tree)


def _lists(note: Any) -> Any:
    """A note as it was sent: the wire gives tuples for lists, which could not stand in a snapshot."""
    if isinstance(note, dict):
        return {key: _lists(value) for key, value in note.items()}
    if isinstance(note, list | tuple):
        return [_lists(value) for value in note]
    return note


async def _until_set(event: asyncio.Event, timeout: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return
