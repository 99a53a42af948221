"""Who is given which task, and which leases end: decided on the fold of tasks (`tracker.tasks`).

Invariant: deciding changes nothing. It gives the facts to commit, and only applying those facts moves a task.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from broker.delivery import MAX_BODY
from broker.names import task_name
from tracker.leases import ATTEMPTS, Decision, Request, giving_up
from tracker.tasks import Tasks

ANSWER_BYTES = 4 * 1024 * 1024
"""Most bytes of bodies in one answer: with all that goes with them they fit into one header (8 MiB)."""
RECORDED_BYTES = 4 * MAX_BODY
"""What a recorded outcome counts for in an answer: its most, as its length is known to the ledger alone."""


def decide(
    tasks: Tasks,
    now: int,
    requests: Sequence[Request] = (),
    lost: Iterable[tuple[str, str, str]] = (),
    lease_seconds: float = 60.0,
    *,
    attempts: int = ATTEMPTS,
) -> Decision:
    """Decide everything that is due at `now` (the run's clock, ns), from the committed state.

    `lost` names incarnations that will send nothing more: (source, incarnation, reason). A task that returns here
    is given out again only after that is on disk.
    """
    decision = Decision()
    ending: dict[str, tuple[str, str]] = {}
    for kind, body in tasks.owed.values():
        if kind == "lease_returned":
            ending[body["task"]] = (body["from"], body["reason"])
        else:
            decision.facts.append((kind, dict(body)))
    over = {body["task"] for kind, body in decision.facts if kind in ("evict", "given_up")}  # leases end with them
    for source, incarnation, reason in lost:
        for name in sorted(tasks.leases.get((source, incarnation), ()), key=lambda name: tasks.tasks[name].order):
            ending.setdefault(name, (source, reason))
    for name in tasks.expired(now):
        lease = tasks.tasks[name].lease
        if lease is not None:
            ending.setdefault(name, (lease.source, "expired"))
    for name, (source, reason) in ending.items():
        if name in over:
            continue
        decision.facts.append(("lease_returned", {"task": name, "from": source, "reason": reason}))
        if tasks.tasks[name].lapses + 1 >= attempts and not tasks.recorded_at(name):
            why = f"{attempts} leases ended without an outcome, the last one: {reason}"
            decision.facts.append((giving_up(tasks.tasks[name].policy), {"task": name, "reason": why}))
    deadline = now + int(lease_seconds * 1e9)
    taken = {*ending, *over}
    held = tasks.outlived.names(now)
    suspecting: set[tuple[str, str]] = set()
    for request in requests:
        names = _choose(tasks, request, taken, held, suspecting)
        for name in names:
            body = {"task": name, "to": request.source, "incarnation": request.incarnation}
            decision.facts.append(("assign", {**body, "request": request.request, "deadline": deadline}))
        decision.assigned.append((request, names))
    return decision


def _choose(
    tasks: Tasks, request: Request, taken: set[str], held: set[tuple[str, str]], suspecting: set[tuple[str, str]]
) -> list[str]:
    """The first waiting tasks, up to `most` and `ANSWER_BYTES`: they are added to `taken`, the state stays.

    A task whose (policy, name) is `held` is rolled out already, and goes on waiting for what comes of it; so does one
    that is suspected, where the actor has another such (it is `suspecting` then).
    """
    actor = (request.source, request.incarnation)
    if any(map(tasks.suspected, tasks.leases.get(actor, ()))):
        suspecting.add(actor)
    policies = [request.policy] if request.policy is not None else list(tasks.queues)
    heaps = [heap for heap in map(tasks.queues.get, policies) if heap]
    chosen: list[str] = []
    size = 0
    seen: list[tuple[str, tuple[int, str]]] = []
    while len(chosen) < request.most:
        heap = min((heap for heap in heaps if heap), key=lambda heap: heap[0], default=None)
        if heap is None:
            break
        entry = heapq.heappop(heap)
        task = tasks.tasks.get(entry[1])
        if task is None or task.lease is not None:
            continue
        seen.append((task.policy, entry))
        recorded = tasks.recorded_at(entry[1])
        if entry[1] in taken or (held and not recorded and (task.policy, task_name(entry[1])[0]) in held):
            continue
        if tasks.suspected(entry[1]):
            if actor in suspecting:
                continue
            suspecting.add(actor)
        size += RECORDED_BYTES if recorded else len(task.body.encode())
        if size > ANSWER_BYTES:  # never the first one: a body is at most 1 MiB
            break
        taken.add(entry[1])
        chosen.append(entry[1])
    for policy, entry in dict.fromkeys(seen):
        heapq.heappush(tasks.queues[policy], entry)
    return chosen
