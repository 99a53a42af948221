"""What goes into the tracker's decisions and what comes out of them (see `tracker.core`).

Invariant: these are plain values; nothing here decides, and nothing here reads a clock or a disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker.liveness import Event
from tracker.curriculum.settings import CurriculumSettings
from tracker.facts import Fact, Row
from tracker.leases import ATTEMPTS, Answer, Request


class Now(NamedTuple):
    """An instant: the run's clock in ns (for facts and deadlines) and monotonic seconds (for durations)."""

    clock: int
    steady: float


@dataclass(frozen=True)
class Settings:
    """What the tracker needs of the run file. `launch` is the n-th launch of this run directory, from 1."""

    launch: int = 1
    stop_seconds: float | None = None
    stop_env_steps: int | None = None
    stop_return: float | None = None
    learners: frozenset[str] = frozenset()
    """Names of the roles that must be there before the run counts as running (besides one actor)."""
    epoch_steps: int | None = None
    lease_seconds: float = 60.0
    attempts: int = ATTEMPTS
    ending_seconds: float = 10.0
    """Longest wait for Farewells in `stopping`: a little more than the launcher gives actors and learners."""
    curriculum: CurriculumSettings | None = None
    """The pool's, for a run that has one."""
    seed: int = 0


class Joined(NamedTuple):
    """A Hello of an incarnation that was not known."""

    name: str
    role: str
    incarnation: str


class Restoring(NamedTuple):
    """A learner asks where it begins."""

    policy: str
    incarnation: str


class Life(NamedTuple):
    """The life that a learner's incarnation has, by a committed fact: answer with a RestorePoint."""

    policy: str
    life: int
    incarnation: str


CoreEvent = Joined | Restoring | Request | Event


@dataclass(slots=True)
class Batch:
    """Facts for one commit, and their decoded bodies."""

    rows: list[Row] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    own: int = 0
    """How many of them, the first ones, are the tracker's own decisions."""
    answers: list[Request] = field(default_factory=list)
    lives: list[Restoring] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(slots=True)
class Committed:
    """What may be published now."""

    durable: dict[tuple[str, str], int] = field(default_factory=dict)
    """Per (source, incarnation), the highest sequence on disk."""
    answers: list[Answer] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    """The tracker's own: `phase` to pulse, `checkpoint` to acknowledge, and so on."""
