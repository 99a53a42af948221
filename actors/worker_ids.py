"""Numbers that tell the environments of a run apart while they live: `worker_id` of their constructors.

A simulator adds it to its first port, or names a display by it. Invariant: no two environments that live at once in a
run have the same number, over all actors; the first copies of the actors count up from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

SLOTS = 18
"""Environments that one copy has at most: those that drawn tasks made with settings of their own, and a new one."""


@dataclass(frozen=True)
class WorkerIds:
    """The numbers of one actor. `first` is its first copy's, `copies` are those of all actors."""

    first: int = 0
    copies: int = 1

    @classmethod
    def of_actor(cls, run: Mapping[str, Any], index: int) -> Self:
        """Those of actor `index` of a resolved run file."""
        actors = run["actors"]
        return cls(index * actors["environments"], actors["processes"] * actors["environments"])

    @classmethod
    def of_evaluation(cls, run: Mapping[str, Any], copies: int) -> Self:
        """Those of an evaluation: behind all that the run itself has, for it may go on meanwhile."""
        actors = run["actors"]
        return cls(actors["processes"] * (actors["environments"] * SLOTS + 1), copies)

    def of(self, copy: int, slot: int = 0) -> int:
        """The number of the environment in this slot of a copy."""
        return self.first + copy + slot * self.copies

    def of_source(self, index: int) -> int:
        """The number of the environment that lists its levels for actor `index`."""
        return self.copies * SLOTS + index
