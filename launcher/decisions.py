"""What the supervisor is told, and what it answers.

Invariant: events and actions are plain frozen values; an action is done by the launcher's shell, which answers Spawn
with RoleStarted, RoleExited or both, and otherwise reports what it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["tracker", "endpoint", "learner", "actor"]


# --- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """Start the run."""


@dataclass(frozen=True)
class Tick:
    """Time has passed; `Supervisor.wake` says when one is due."""


@dataclass(frozen=True)
class RoleStarted:
    """The process of this attempt lives."""

    role: str
    attempt: int
    pid: int


@dataclass(frozen=True)
class Progressed:
    """The process of the role has made progress in its work."""

    role: str


@dataclass(frozen=True)
class RoleExited:
    """The process of this attempt is gone. `status`: negative for a signal, None when nobody saw it."""

    role: str
    attempt: int
    status: int | None
    last_words: str = ""


@dataclass(frozen=True)
class Stopping:
    """The run is to end: the tracker's pulse says so."""

    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Interrupt:
    """Ctrl-C or SIGTERM: the first ends the run in good order, the second at once."""

    reason: str = "interrupted"


Event = Begin | Tick | RoleStarted | Progressed | RoleExited | Stopping | Interrupt


# --- actions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spawn:
    """Start this attempt of the role; answer with RoleStarted, RoleExited or both."""

    role: str
    attempt: int


@dataclass(frozen=True)
class Report:
    """An exit, for the ledger (fact `exited`) and the dashboard. `restart_in` is None where none follows."""

    role: str
    attempt: int
    status: int | None
    signal: str | None
    expected: bool
    last_words: str
    restart_in: float | None


@dataclass(frozen=True)
class Terminate:
    """SIGTERM to the role's group."""

    role: str
    why: str


@dataclass(frozen=True)
class Kill:
    """SIGKILL to the role's group."""

    role: str
    why: str


@dataclass(frozen=True)
class GiveUp:
    """The role will not be started again, and the run fails by it."""

    role: str
    reason: str
    last_words: str


@dataclass(frozen=True)
class AskStop:
    """Tell the tracker that the run ends (fact `stop_request`)."""

    reason: str
    failed: bool


@dataclass(frozen=True)
class EndRun:
    """Every process is gone, or cannot be killed. `status` is the launcher's exit status."""

    reason: str
    failed: bool
    status: int


Action = Spawn | Report | Terminate | Kill | GiveUp | AskStop | EndRun
