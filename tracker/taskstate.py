"""What the fold of tasks (`tracker.tasks`) is made of: which tasks wait, who holds which until when, what is owed.

Invariants: a task is in at most one lease; what decisions ask (`expired`, `answered`, `recorded_at`) changes nothing
that they see; a snapshot restored goes on exactly as the state that it was taken of.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

from broker.names import task_name
from tracker.ended import Ended
from tracker.leases import SUSPECTED, Answer, Lease, QueuedTask, Request, Task
from tracker.outlived import Outlived
from tracker.parts import pieces, whole

REMEMBERED = 64
"""Answered requests kept for each incarnation, to answer the same request with the same assignment."""


class TaskState:
    """Every task that has not ended, and what is remembered of those that have."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        """Waiting and leased ones, by id."""
        self.ended = Ended()
        """Ids of all that are done, failed or evicted: never used again."""
        self.minted = self.done = self.failed = self.evicted = 0
        self.returned = self.late = self.duplicates = self.unknown = 0
        self.leases: dict[tuple[str, str], dict[str, None]] = {}
        """By (source, incarnation), the tasks that it holds."""
        self.recorded: dict[str, dict[str, int]] = {}
        """By policy and task's name, the position of the first outcome with a result."""
        self.missing: dict[str, dict[str, None]] = {}
        """By policy, the names of tasks whose recorded result only says why there is no measurement."""
        self.given_up: dict[str, int] = {}
        """By id, where the ledger says why nobody tries a task any more. Its policy has not been told yet."""
        self.outlived = Outlived()
        """Leases of tasks that were evicted as their policy's life ended, and that may still have an outcome."""
        self.pooled = False
        """The run has a curriculum: what is minted with a label is its business."""
        self.owed: dict[str, tuple[str, dict[str, Any]]] = {}
        """Facts that what was read calls for and that are not in the ledger yet, by a key that they carry."""
        self._answered: dict[tuple[str, str], dict[int, list[str]]] = {}
        self.queues: dict[str, list[tuple[int, str]]] = {}
        """Heaps by policy. An entry whose task no longer waits, or is there twice, is passed over when it comes up."""
        self._deadlines: list[tuple[int, str]] = []

    def knows(self, name: str) -> bool:
        """Whether a task had this id."""
        return name in self.tasks or name in self.ended

    @property
    def leased(self) -> int:
        """How many are leased."""
        return sum(len(held) for held in self.leases.values())

    @property
    def waiting(self) -> int:
        """How many wait for an actor."""
        return len(self.tasks) - self.leased

    def recorded_at(self, name: str) -> int:
        """Where the ledger has what this task is waiting to have delivered; 0 if it is to be run.

        It is the result of its name, or else why the task was given up.
        """
        task = self.tasks.get(name)
        if task is None:
            return 0
        return self.recorded.get(task.policy, {}).get(task_name(name)[0], 0) or self.given_up.get(name, 0)

    def suspected(self, name: str) -> bool:
        """Whether this task is to be run, and may be what its actors fell by."""
        return self.tasks[name].losses >= SUSPECTED and not self.recorded_at(name)

    # --- how it changes

    def _owe(self, key: str, body: dict[str, Any]) -> None:
        self.owed[key] = (key.partition(":")[0], body)

    def _wait(self, name: str) -> None:
        task = self.tasks[name]
        heapq.heappush(self.queues.setdefault(task.policy, []), (task.order, name))

    def _lease(self, name: str, lease: Lease) -> None:
        key = lease[:2]
        answered = self._answered.setdefault(key, {})
        answered.setdefault(lease.request, []).append(name)
        while len(answered) > REMEMBERED:
            del answered[next(iter(answered))]
        task = self.tasks.get(name)
        if task is not None:
            self._release(name, task)
            task.lease = lease
            self.leases.setdefault(key, {})[name] = None
            heapq.heappush(self._deadlines, (lease.deadline, name))

    def _record(self, policy: str, name: str, position: int, *, missing: bool) -> bool:
        """Record an outcome with a result. Returns False if the name already has a result that counts."""
        recorded, missed = self.recorded.setdefault(policy, {}), self.missing.setdefault(policy, {})
        if name in recorded and (missing or name not in missed):
            return False
        recorded[name] = position
        if missing:
            missed[name] = None
        else:
            missed.pop(name, None)
        return True

    def _forget_missing(self) -> None:
        """Forget missing results, so that their tasks are run again."""
        for policy, names in self.missing.items():
            for name in names:
                del self.recorded[policy][name]
        self.missing = {}

    def _release(self, name: str, task: Task) -> None:
        if task.lease is not None:
            key = task.lease[:2]
            held = self.leases[key]
            held.pop(name, None)
            if not held:
                del self.leases[key]
            task.lease = None

    def _end(self, name: str, position: int) -> None:
        task = self.tasks.pop(name)
        self._release(name, task)
        for kind in ("return", "evict", "given_up"):
            self.owed.pop(f"{kind}:{name}", None)
        self.given_up.pop(name, None)
        self.ended.add(name, position)

    # --- what decisions rest on

    def expired(self, now: int) -> list[str]:
        """Leased tasks whose deadline is past, the earliest first."""
        while self._deadlines and not self._current(self._deadlines[0]):
            heapq.heappop(self._deadlines)  # of leases that have ended: forgetting them changes no answer
        if not self._deadlines or self._deadlines[0][0] > now:
            return []
        due = sorted({entry for entry in self._deadlines if entry[0] <= now and self._current(entry)})
        return [name for _, name in due]

    def _current(self, entry: tuple[int, str]) -> bool:
        task = self.tasks.get(entry[1])
        return task is not None and task.lease is not None and task.lease.deadline == entry[0]

    def answered(self, request: Request) -> Answer | None:
        """The answer to a request that was answered already: those of its tasks that it still holds."""
        names = self._answered.get((request.source, request.incarnation), {}).get(request.request)
        if names is None:
            return None
        held: list[QueuedTask] = []
        deadline = 0
        for name in names:
            task = self.tasks.get(name)
            lease = task.lease if task is not None else None
            if task is None or lease is None or lease[:3] != request[:3]:
                continue
            recorded = self.recorded_at(name)
            held.append(QueuedTask(name, task.policy, "{}" if recorded else task.body, task.version, recorded))
            deadline = lease.deadline
        return Answer(*request[:3], deadline, tuple(held))

    # --- snapshots

    _counts = ("minted", "done", "failed", "evicted", "returned", "late", "duplicates", "unknown")

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values. Ids that have ended are rows of the ledger, not a part of it."""
        return whole(self.parts())

    def parts(self) -> Iterator[dict[str, Any]]:
        """The same in parts, of the moment at which the first is taken."""
        tasks = [
            (name, t.order, t.policy, t.body, t.lapses, t.losses, t.lease, t.version) for name, t in self.tasks.items()
        ]
        recorded = [(policy, *row) for policy, positions in self.recorded.items() for row in positions.items()]
        yield {
            "counts": [getattr(self, name) for name in self._counts],
            "pooled": self.pooled,
            "tasks": [],
            "recorded": [],
            "given_up": dict(self.given_up),
            "missing": {policy: list(names) for policy, names in self.missing.items()},
            "owed": [[key, kind, body] for key, (kind, body) in self.owed.items()],
            "outlived": self.outlived.snapshot(),
            "answered": [[*key, [[n, list(names)] for n, names in a.items()]] for key, a in self._answered.items()],
        }
        yield from pieces("tasks", tasks)
        yield from pieces("recorded", recorded)

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        for name, value in zip(self._counts, plain["counts"], strict=True):
            setattr(self, name, value)
        self.pooled = plain["pooled"]
        self.outlived.restore(plain["outlived"])
        self.recorded = {}
        for policy, name, position in plain["recorded"]:
            self.recorded.setdefault(policy, {})[name] = position
        self.given_up = dict(plain["given_up"])
        self.missing = {policy: dict.fromkeys(names) for policy, names in plain["missing"].items()}
        self.owed = {key: (kind, body) for key, kind, body in plain["owed"]}
        self._answered = {(s, i): {n: list(names) for n, names in a} for s, i, a in plain["answered"]}
        self.tasks, self.leases, self.queues, self._deadlines = {}, {}, {}, []
        for name, order, policy, body, lapses, losses, lease, version in plain["tasks"]:
            held = Lease(*lease) if lease else None
            minted = tuple(version) if version else None
            task = self.tasks[name] = Task(order, policy, body, lapses, losses, held, minted)
            if task.lease is None:
                self._wait(name)
            else:
                self.leases.setdefault(task.lease[:2], {})[name] = None
                heapq.heappush(self._deadlines, (task.lease.deadline, name))
