"""A drawn task as those see it who play it, and where they take it from. Invariant: values, and no other room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class DrawnTask:
    """One drawn task, until when (monotonic seconds) it is leased."""

    task: str
    label: str
    draw: int
    body: dict[str, Any]
    until: float = float("inf")


class Tasks(Protocol):
    """Where drawn tasks come from, and where it is said what came of them: `actors.curriculum.desk.Desk`."""

    @property
    def stock(self) -> int:
        """How many can be taken now."""

    def tend(self, wanted: int = 0) -> None:
        """Ask for more, and take what has come; `wanted` copies have none."""

    def hungry(self) -> bool:
        """Tend; whether there is still nothing to play."""

    def take(self) -> DrawnTask | None:
        """The next one, if there is one."""

    def outcome(self, drawn: DrawnTask, score: float) -> None:
        """It was played to its end."""

    def failed(self, drawn: DrawnTask, traceback: str, *, permanent: bool) -> None:
        """It could not be played."""
