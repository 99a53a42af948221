"""The fold of tasks: minted by a policy, leased to actors, ended by their first outcome, or by its delivery.

Invariants: minted = waiting + leased + done + failed + evicted; a task is leased to at most one incarnation at a time;
its first outcome counts, whoever sends it, and every later one is stored and changes nothing; an id is used once.
An outcome without a result ends its task. One with a result is *recorded* under the policy and the task's name: the
task ends when somebody says that the result was delivered, is leased for that alone until then, and so is every later
task of that name. A *missing* result (it only says why there is no measurement) is replaced by a measured one, and
forgotten when the next launch begins: the task is then run again. A task that was *given up* is leased once more so
that its policy hears of it, and ends as failed. The fold keeps only the position of a result in the ledger. Tasks that
an actor still rolls out for an earlier life of its policy are waited for (`tracker.outlived`).
"""

from __future__ import annotations

from collections.abc import Callable

from broker.delivery import MAX_BODY, body_text
from broker.names import task_name
from tracker.chronicle import last_line
from tracker.facts import Fact
from tracker.leases import Lease, Task, giving_up
from tracker.taskstate import TaskState

REASON = 1000
"""Characters of an error that become the reason for which its task was given up."""


class Tasks(TaskState):
    """The fold; `tracker.assigning` decides on its state."""

    version = 7
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
            "given_up",
            "life",
            "late_outcome",
            "duplicate_task",
            "liveness",
            "phase",
        ]
    )

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
                why = f"its body has more than {MAX_BODY} characters"
                self._owe(f"{giving_up(policy)}:{name}", {"task": name, "reason": why})

    def _assign(self, fact: Fact) -> None:
        body = fact.body
        self._lease(body["task"], Lease(body["to"], body["incarnation"], body["request"], body["deadline"]))

    def _lease_returned(self, fact: Fact) -> None:
        name = fact.body["task"]
        self.owed.pop(f"return:{name}", None)
        task = self.tasks.get(name)
        if task is not None and task.lease is not None:
            self.returned += 1
            task.lapses += 1
            task.losses += fact.body["reason"] in ("lost", "superseded")
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
            first = self._record(policy, task_name(name)[0], fact.position, missing=bool(fact.body.get("missing")))
        elif task is not None:
            first = True
            self.done += 1
            self._end(name, fact.position)
        if task is None and not self.ended.before(name, fact.position):
            self.unknown += 1
        elif not first:
            self.late += 1
            self._owe(f"late_outcome:{fact.position}:{name}", {"task": name, "from": fact.source, "of": fact.position})

    def _phase(self, fact: Fact) -> None:
        if fact.body["phase"] == "starting":  # a new launch
            self._forget_missing()

    def _delivered(self, fact: Fact) -> None:
        name = fact.body["task"]
        task, at = self.tasks.get(name), self.recorded_at(name)
        told = bool(fact.body.get("given_up"))
        if task is None or not at:
            return
        if told == (at == self.given_up.get(name)):
            self.failed += told
            self.done += not told
            self._end(name, fact.position)
        elif task.lease is not None and task.lease[:2] == (fact.source, fact.incarnation):
            self._release(name, task)  # a result came while it was told that there is none: that is brought as well
            self._wait(name)

    def _rollout_error(self, fact: Fact) -> None:
        if fact.body.get("draw") is not None:
            return
        name = fact.body["task"]
        task = self.tasks.get(name)
        self.outlived.end(name)
        if task is None or task.lease is None or task.lease[:2] != (fact.source, fact.incarnation):
            return  # it is somebody else's by now: that rollout decides
        if fact.body["permanent"] and fact.body.get("tell") and not self.recorded_at(name):
            why = last_line(fact.body["traceback"])[:REASON]
            self._owe(f"{giving_up(task.policy)}:{name}", {"task": name, "reason": why})
        elif fact.body["permanent"]:
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

    def _given_up(self, fact: Fact) -> None:
        name = fact.body["task"]
        self.owed.pop(f"given_up:{name}", None)
        task = self.tasks.get(name)
        if task is None:
            return
        if not self.recorded_at(name):  # by another holder of it, meanwhile
            self.given_up[name] = fact.position
        if task.lease is not None:
            self._release(name, task)
            self._wait(name)

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
