"""Leases that go on after their task: a life of its policy ended, and the actor that rolls it out does not know.

The next life mints again, under the same names, what it still wants. Invariant: a task of such a name waits until that
actor has said what came of it, is gone, or its lease would have ended; so what is being paid for is not paid twice.
"""

from __future__ import annotations

from typing import Any

from broker.names import task_name
from tracker.leases import Lease


class Outlived:
    """By id, the lease of a task that was evicted as its life ended."""

    def __init__(self) -> None:
        self._leases: dict[str, tuple[str, Lease]] = {}
        self._newest: dict[str, tuple[str, bool]] = {}
        """By role, its newest incarnation, and whether that is gone."""

    def add(self, task: str, policy: str, lease: Lease) -> None:
        """The task is no more; its lease goes on, if its actor is still there."""
        if not self._is_over(lease):
            self._leases[task] = (policy, lease)

    def end(self, task: str) -> None:
        """Its actor said what came of it."""
        self._leases.pop(task, None)

    def liveness(self, source: str, incarnation: str, state: str) -> None:
        """Who is lost or has left says nothing more, nor do the incarnations of an actor before the one that lives."""
        newest, _ = self._newest.get(source, ("", False))
        if incarnation < newest:
            return
        self._newest[source] = (incarnation, state in ("lost", "left"))
        self._leases = {task: held for task, held in self._leases.items() if not self._is_over(held[1])}

    def expire(self, now: int) -> None:
        """Forget leases whose deadline was before `now` (the run's clock, ns)."""
        self._leases = {task: held for task, held in self._leases.items() if held[1].deadline > now}

    def names(self, now: int) -> set[tuple[str, str]]:
        """Return the (policy, name) of tasks that may still be rolled out at `now` (the run's clock, ns)."""
        held = self._leases.items()
        return {(policy, task_name(task)[0]) for task, (policy, lease) in held if lease.deadline > now}

    def _is_over(self, lease: Lease) -> bool:
        newest, gone = self._newest.get(lease.source, ("", False))
        return lease.incarnation < newest or (gone and lease.incarnation == newest)

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values."""
        leases = [[task, policy, list(lease)] for task, (policy, lease) in self._leases.items()]
        return {"leases": leases, "newest": [[source, *newest] for source, newest in self._newest.items()]}

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        self._leases = {task: (policy, Lease(*lease)) for task, policy, lease in plain["leases"]}
        self._newest = {source: (incarnation, gone) for source, incarnation, gone in plain["newest"]}
