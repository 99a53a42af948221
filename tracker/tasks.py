"""The fold of tasks: minted by a policy, leased to actors, ended by their first outcome, or by its delivery.

Invariants: minted = waiting + leased + done + failed + evicted; a task is leased to at most one incarnation at a time;
its first outcome counts, whoever sends it, and every later one is stored and changes nothing; an id is used once.
An outcome without a result ends its task. One with a result is *recorded* under the policy and the task's name: the
task ends when somebody says that the result was delivered, is leased for that alone until then, and so is every later
task of that name. Of a result the fold keeps where it is; the ledger has it. What an actor still rolls out for a life
of its policy that is over is waited for (`tracker.outlived`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any

from broker.delivery import MAX_BODY, body_text
from broker.names import task_name
from tracker.ended import Ended
from tracker.facts import Fact
from tracker.leases import Answer, Lease, QueuedTask, Request, Task
from tracker.outlived import Outlived
from tracker.parts import pieces, whole

REMEMBERED = 64
"""Answered requests kept for each incarnation, to answer the same request with the same assignment."""


class Tasks:
    """The fold; `tracker.assigning` decides on its state."""

    version = 5
    kinds = frozenset(
        [
            "curriculum",
            "mint",
            "assign",
            "lease_returned",
            "outcome",
            "delivered",
            "rollout_error",
            "evict",
            "life",
            "late_outcome",
            "duplicate_task",
            "liveness",
        ]
    )

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
        """Where the result of this task is in the ledger; 0 if it has none."""
        task = self.tasks.get(name)
        return 0 if task is None else self.recorded.get(task.policy, {}).get(task_name(name)[0], 0)

    # --- the fold

    def apply(self, fact: Fact) -> None:
        """Take one fact."""
        self.taker(fact.kind)(fact)

    def taker(self, kind: str) -> Callable[[Fact], None]:
        """What takes facts of this kind."""
        taker: Callable[[Fact], None] = getattr(self, f"_{kind}")
        return taker

    def _curriculum(self, _: Fact) -> None:
        self.pooled = True

    def _mint(self, fact: Fact) -> None:
        policy = fact.body.get("policy") or ""
        version = fact.body.get("version")
        for item in fact.body["tasks"]:
            if self.pooled and "label" in item:
                continue
            name = item["task"]
            if name in self.tasks or self.ended.before(name, fact.position):
                self.duplicates += 1
                self._owe(
                    f"duplicate_task:{fact.position}:{name}", {"task": name, "policy": policy, "of": fact.position}
                )
                continue
            self.minted += 1
            body = body_text(item["body"])
            self.tasks[name] = Task(self.minted, policy, body, version=version)
            self._wait(name)
            if len(body) > MAX_BODY:  # as written here it may be longer than its source wrote it
                self._owe(f"evict:{name}", {"task": name, "reason": f"its body has more than {MAX_BODY} characters"})

    def _assign(self, fact: Fact) -> None:
        body = fact.body
        task = self.tasks.get(body["task"])
        key = (body["to"], body["incarnation"])
        answered = self._answered.setdefault(key, {})
        answered.setdefault(body["request"], []).append(body["task"])
        while len(answered) > REMEMBERED:
            del answered[next(iter(answered))]
        if task is not None:
            self._release(body["task"], task)
            task.lease = Lease(*key, body["request"], body["deadline"])
            self.leases.setdefault(key, {})[body["task"]] = None
            heapq.heappush(self._deadlines, (body["deadline"], body["task"]))

    def _lease_returned(self, fact: Fact) -> None:
        name = fact.body["task"]
        self.owed.pop(f"return:{name}", None)
        task = self.tasks.get(name)
        if task is not None and task.lease is not None:
            self.returned += 1
            task.lapses += 1
            self._release(name, task)
            self._wait(name)

    def _outcome(self, fact: Fact) -> None:
        if fact.body.get("draw") is not None:
            return  # of a task of the pool
        name = fact.body["task"]
        task = self.tasks.get(name)
        self.outlived.end(name)
        first = False
        if fact.body.get("result") is not None:
            policy = fact.body.get("policy") or "" if task is None else task.policy
            recorded = self.recorded.setdefault(policy, {})
            first = recorded.setdefault(task_name(name)[0], fact.position) == fact.position
        elif task is not None:
            first = True
            self.done += 1
            self._end(name, fact.position)
        if task is None and not self.ended.before(name, fact.position):
            self.unknown += 1
        elif not first:
            self.late += 1
            self._owe(f"late_outcome:{fact.position}:{name}", {"task": name, "from": fact.source, "of": fact.position})

    def _delivered(self, fact: Fact) -> None:
        name = fact.body["task"]
        if self.recorded_at(name):
            self.done += 1
            self._end(name, fact.position)

    def _rollout_error(self, fact: Fact) -> None:
        if fact.body.get("draw") is not None:
            return
        name = fact.body["task"]
        task = self.tasks.get(name)
        self.outlived.end(name)
        if task is None or task.lease is None or task.lease[:2] != (fact.source, fact.incarnation):
            return  # it is somebody else's by now: that rollout decides
        if fact.body["permanent"]:
            self.failed += 1
            self._end(name, fact.position)
        else:
            self.owed[f"return:{name}"] = (
                "lease_returned",
                {"task": name, "from": fact.source, "reason": "rollout_error"},
            )

    def _evict(self, fact: Fact) -> None:
        name = fact.body["task"]
        self.owed.pop(f"evict:{name}", None)
        task = self.tasks.get(name)
        if task is not None:
            returned = f"return:{name}" in self.owed  # its actor has said that nothing comes of it
            if "life" in fact.body and task.lease is not None and not returned and not self.recorded_at(name):
                self.outlived.add(name, task.policy, task.lease)
            self.evicted += 1
            self._end(name, fact.position)

    def _life(self, fact: Fact) -> None:
        # What an earlier life minted is nothing to the next one, which mints again what it still wants.
        self.outlived.expire(fact.time)
        policy, life = fact.body["policy"], fact.body["life"]
        for name in [name for name, task in self.tasks.items() if task.policy == policy]:
            self._owe(f"evict:{name}", {"task": name, "reason": f"{policy} began life {life}", "life": life})

    def _late_outcome(self, fact: Fact) -> None:
        self.owed.pop(f"{fact.kind}:{fact.body['of']}:{fact.body['task']}", None)

    _duplicate_task = _late_outcome

    def _liveness(self, fact: Fact) -> None:
        # Its leases were returned by facts of their own; should it come back, its requests are new ones.
        role, incarnation, state = fact.body["role"], fact.body["incarnation"], fact.body["state"]
        if state in ("lost", "left"):
            self._answered.pop((role, incarnation), None)
        self.outlived.liveness(role, incarnation, state)

    def _owe(self, key: str, body: dict[str, Any]) -> None:
        self.owed[key] = (key.partition(":")[0], body)

    def _wait(self, name: str) -> None:
        task = self.tasks[name]
        heapq.heappush(self.queues.setdefault(task.policy, []), (task.order, name))

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
        self.owed.pop(f"return:{name}", None)
        self.owed.pop(f"evict:{name}", None)
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
        tasks = [(name, t.order, t.policy, t.body, t.lapses, t.lease, t.version) for name, t in self.tasks.items()]
        recorded = [(policy, *row) for policy, positions in self.recorded.items() for row in positions.items()]
        yield {
            "counts": [getattr(self, name) for name in self._counts],
            "pooled": self.pooled,
            "tasks": [],
            "recorded": [],
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
        self.owed = {key: (kind, body) for key, kind, body in plain["owed"]}
        self._answered = {(s, i): {n: list(names) for n, names in a} for s, i, a in plain["answered"]}
        self.tasks, self.leases, self.queues, self._deadlines = {}, {}, {}, []
        for name, order, policy, body, lapses, lease, version in plain["tasks"]:
            held = Lease(*lease) if lease else None
            task = self.tasks[name] = Task(order, policy, body, lapses, held, tuple(version) if version else None)
            if task.lease is None:
                self._wait(name)
            else:
                self.leases.setdefault(task.lease[:2], {})[name] = None
                heapq.heappush(self._deadlines, (task.lease.deadline, name))
