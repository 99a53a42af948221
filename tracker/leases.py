"""Tasks, requests and leases as values, for the fold `tracker.tasks` and its decisions.

Invariant: a lease names exactly one incarnation, the request that it answers, and the deadline by which it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker import messages as m

ATTEMPTS = 5
"""Leases of one task that may end without an outcome before it is given up: a task that kills its actors ends too."""
SUSPECTED = 2
"""Losses from which on a task may be what kills: an actor has one such at a time, and it takes no other along."""


def giving_up(policy: str) -> str:
    """The kind of the fact that gives a task of `policy` up: of nobody's there is nobody to tell."""
    return "given_up" if policy else "evict"


class Request(NamedTuple):
    """An actor asks for up to `most` tasks (of `policy`, or of any)."""

    source: str
    incarnation: str
    request: int
    most: int
    policy: str | None = None
    generate: bool = False
    """The actor makes new tasks too, when the pool has room."""


class Lease(NamedTuple):
    """The holder of a task, the request that it answers, and its deadline (the run's clock, ns)."""

    source: str
    incarnation: str
    request: int
    deadline: int


@dataclass(slots=True)
class Task:
    """A task that has no outcome yet. `order` is the place of its mint among all."""

    order: int
    policy: str
    body: str
    lapses: int = 0
    """Leases that ended without an outcome."""
    losses: int = 0
    """Those among them whose holder was lost."""
    lease: Lease | None = None
    version: tuple[int, int] | None = None
    """Of its policy, when it was minted."""


class QueuedTask(NamedTuple):
    """A task of the queue, as it is given out. `recorded` is the position of the outcome that has its result, or 0."""

    task: str
    policy: str
    body: str
    version: tuple[int, int] | None = None
    recorded: int = 0


class DrawnTask(NamedTuple):
    """A task of the pool, drawn (`draw` is its number), or a piece of generation work (`draw` is None)."""

    task: str
    policy: str | None
    body: str
    label: str | None
    draw: int | None


class Answer(NamedTuple):
    """An assignment to publish once the facts that it rests on are on disk."""

    source: str
    incarnation: str
    request: int
    deadline: int
    tasks: tuple[QueuedTask, ...]
    drawn: tuple[DrawnTask, ...] = ()
    """From the curriculum's pool."""

    def message(self, now: int, stored: Callable[[int], str] | None = None) -> m.Assignment:
        """Return the message to send at `now` (the run's clock). `stored` reads the body of a fact by its position."""
        seconds = max(0.0, (self.deadline - now) / 1e9) if self.tasks or self.drawn else 0.0
        queued = [
            m.LeasedTask(
                task=given.task,
                policy=given.policy or None,
                body=given.body,
                version=given.version,
                recorded=stored(given.recorded) if given.recorded and stored is not None else None,
            )
            for given in self.tasks
        ]
        drawn = [
            m.LeasedTask(task=name, policy=policy, body=body, label=label, draw=draw, generate=draw is None)
            for name, policy, body, label, draw in self.drawn
        ]
        tasks = (*queued, *drawn)
        return m.Assignment(incarnation=self.incarnation, request=self.request, seconds=seconds, tasks=tasks)


@dataclass(slots=True)
class Decision:
    """Facts to commit, and per request the ids that it gets by them (empty: no work just now)."""

    facts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    assigned: list[tuple[Request, list[str]]] = field(default_factory=list)
