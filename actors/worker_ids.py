"""Worker ids: numbers for `worker_id` of environments' constructors, which distinguish the environments of a run.

A simulator adds its number to a base port, or names a display by it. Invariant: no two environments of a run that exist
at the same time have the same number, across all actors; the actors' first copies count up from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

SLOTS = 18
"""Most environments of one copy: those made with the settings of drawn tasks, and a new one."""


@dataclass(frozen=True)
class WorkerIds:
    """The numbers of one actor: `first` is that of its first copy, `copies` counts the copies of all actors."""

    first: int = 0
    copies: int = 1

    @classmethod
    def of_actor(cls, run: Mapping[str, Any], index: int) -> Self:
        """Return the numbers of actor `index` of a resolved run file."""
        actors = run["actors"]
        return cls(index * actors["environments"], actors["processes"] * actors["environments"])

    @classmethod
    def of_evaluation(cls, run: Mapping[str, Any], copies: int) -> Self:
        """Return the numbers of an evaluation: above all numbers of the run, which may go on at the same time."""
        actors = run["actors"]
        return cls(actors["processes"] * (actors["environments"] * SLOTS + 1), copies)

    def of(self, copy: int, slot: int = 0) -> int:
        """Return the number of the environment in this slot of a copy."""
        return self.first + copy + slot * self.copies

    def of_source(self, index: int) -> int:
        """Return the number of the environment that lists its levels for actor `index`."""
        return self.copies * SLOTS + index
