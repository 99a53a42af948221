"""The clock of a run: nanoseconds that only go forward, alike in every process of a host and over all launches.

A launch sets it once, by the wall clock, and counts on with the monotonic clock: a wall clock that is set back or
forward meanwhile changes nothing. Incarnations, deadlines and the times of facts are readings of this clock. Invariant:
a launch begins later than anything that an earlier launch of the run has put into the ledger.
"""

from __future__ import annotations

import time
from functools import lru_cache

LATEST = 2**62
"""Readings from here on (the year 2116) are no times: somebody invented them."""


def begin(wall: int, newest: int) -> int:
    """Set the clock of a launch: what is to be added to `time.monotonic_ns()`.

    `wall` is the time in ns since 1970, `newest` the latest reading that the run's ledger knows (0 without one).
    """
    return max(wall, newest + 1) - time.monotonic_ns()


def now(clock: int) -> int:
    """Read a clock that `begin` set."""
    return clock + time.monotonic_ns()


@lru_cache(4096)
def born(incarnation: str) -> int:
    """When an incarnation began, by the clock of its run."""
    return int(incarnation[:16], 16)
