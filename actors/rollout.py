"""What a rollout is: the protocol that a user implements to turn a task and parameters into experience.

A rollout is named in the run file as `actors.rollout = "package.module:Name"` and made once in each actor as
`Name(context)`. `run` may be a plain method (one task at a time) or a coroutine (`actors.concurrency` at once).

Invariant: a rollout sees only its task and a snapshot of parameters; what it returns is all that it says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from actors.services import Services
from broker.arrays import Tree
from broker.errors import RequestError
from broker.references import load


@dataclass(frozen=True)
class RolloutContext:
    """What a rollout's constructor receives."""

    actor: str
    index: int
    seed: int
    settings: Mapping[str, Any]
    """`actors.settings` of the run file."""
    services: Services = field(default_factory=Services)
    """Where the run's endpoints are just now."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """The resolved run file."""


@dataclass(frozen=True)
class LeasedTask:
    """One task: its name, the policy that minted it, and its body as the algorithm wrote it."""

    task: str
    policy: str
    body: dict[str, Any]
    label: str | None = None
    """Of a task of the pool."""
    draw: int | None = None
    """Of a task of the pool: which of its draws this is."""


@dataclass(frozen=True)
class Parameters:
    """One policy's parameters as published; arrays are read-only."""

    version: tuple[int, int]
    tree: Tree


@dataclass(frozen=True)
class Piece:
    """One fragment for one policy: arrays by name, and a small plain note."""

    policy: str
    arrays: Mapping[str, Any]
    steps: int = 1
    note: dict[str, Any] | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a task: its score in [0, 1] (None: it has none), fragments, and facts of the rollout's own.

    A task that was paid for gives a `result` instead of pieces: it is recorded at once and then brought to the policy
    that minted the task, as the note of a fragment without arrays; however often it has to be brought, the rollout is
    not run again. What a result is (plain JSON, at most 250,000 characters) must follow from the task's name.
    """

    score: float | None = None
    pieces: Sequence[Piece] = ()
    facts: Sequence[tuple[str, Mapping[str, Any]]] = field(default_factory=tuple)
    """(kind, body)"""
    result: Mapping[str, Any] | None = None
    missing: bool = False
    """The surroundings failed, and the result only says why: a resumed run runs the task again."""


class Rollout(Protocol):
    """Turns a task and parameters into experience."""

    def run(self, task: LeasedTask, parameters: Mapping[str, Parameters]) -> Outcome | Awaitable[Outcome]:
        """One task. An exception is recorded with its traceback, and the task is given to somebody again.

        A RequestError (a wrong key: no rollout can succeed) ends the run with its text.
        """
        ...


SHIPPED = {"answers": "actors.prompts.rollout:Answers"}


def build_rollout(name: str, context: RolloutContext) -> Rollout:
    """The rollout: a shipped one, or "package.module:Name". RequestError if there is none, or it lacks `run`."""
    built = load(SHIPPED.get(name, name), "actors.rollout", ["environments", *SHIPPED])(context)
    if not callable(getattr(built, "run", None)):
        raise RequestError(f"actors.rollout {name!r} has no method run(task, parameters)")
    return cast("Rollout", built)
