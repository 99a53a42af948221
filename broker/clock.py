"""The clock of a run, in nanoseconds: it only goes forward, and all processes of a host and all launches share it.

A launch reads the wall clock once and then counts with the monotonic clock, so setting the wall clock during a run
changes nothing. Incarnations, deadlines and the times of facts are readings of this clock. Invariant: a launch begins
later than the newest time in the run's ledger.
"""

from __future__ import annotations

import time
from functools import lru_cache

LATEST = 2**62
"""Readings from here on (the year 2116) are rejected: no real clock shows them."""


def begin(wall: int, newest: int) -> int:
    """Compute the clock of a launch: the offset to add to `time.monotonic_ns()`.

    `wall` is the wall clock in ns since 1970, `newest` the newest time in the run's ledger (0 without a ledger).
    """
    return max(wall, newest + 1) - time.monotonic_ns()


def now(clock: int) -> int:
    """Read the clock with this offset (from `begin`)."""
    return clock + time.monotonic_ns()


@lru_cache(4096)
def born(incarnation: str) -> int:
    """Return the time at which an incarnation began, by the clock of its run."""
    return int(incarnation[:16], 16)
