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

    def add(self, task: str, policy: str, lease: Lease) -> None:
        """The task is no more; its lease goes on."""
        self._leases[task] = (policy, lease)

    def end(self, task: str) -> None:
        """Its actor said what came of it."""
        self._leases.pop(task, None)

    def liveness(self, source: str, incarnation: str, state: str) -> None:
        """Who is lost or has left says nothing more, nor do the incarnations of an actor before the one that lives."""
        gone = state in ("lost", "left")
        for task, (_, lease) in list(self._leases.items()):
            if lease.source == source and (
                lease.incarnation < incarnation or (gone and lease.incarnation == incarnation)
            ):
                del self._leases[task]

    def names(self, now: int) -> set[tuple[str, str]]:
        """(policy, name) of what is still rolled out at `now` (wall clock, ns)."""
        held = self._leases.items()
        return {(policy, task_name(task)[0]) for task, (policy, lease) in held if lease.deadline > now}

    def snapshot(self) -> list[list[Any]]:
        """As plain JSON values."""
        return [[task, policy, list(lease)] for task, (policy, lease) in self._leases.items()]

    def restore(self, plain: list[list[Any]]) -> None:
        """Become what `snapshot` described."""
        self._leases = {task: (policy, Lease(*lease)) for task, policy, lease in plain}
