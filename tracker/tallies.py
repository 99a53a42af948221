"""The small counters that the standings are made of: all of bounded size, all with an exact plain form.

Invariant: a tally restored from its plain form goes on exactly, bit for bit, as the one that it was taken from.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

WINDOW = 100
"""Episodes in the first and the last mean."""
BUCKETS = 60
"""Most points of a sparkline."""


class Returns:
    """Returns of episodes, in order: how many, the mean of the first 100 and of the last 100, and a sparkline.

    The sparkline holds means of `size` episodes each; when it is full, neighbours are merged and `size` doubles.
    """

    __slots__ = ("_buckets", "_filling", "_filling_count", "_first", "_last", "_size", "_total", "count")

    def __init__(self) -> None:
        self.count = 0
        self._first = 0.0
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._total = 0.0
        self._buckets: list[float] = []
        self._size = 1
        self._filling = 0.0
        self._filling_count = 0

    def add(self, value: float) -> None:
        """One more episode."""
        count = self.count = self.count + 1
        last = self._last
        if count > WINDOW:
            self._total += value - last[0]
            last.append(value)
            if count % WINDOW == 0:  # a running total drifts by roundings: summed afresh now and then
                self._total = math.fsum(last)
        else:
            self._first += value
            self._total += value
            last.append(value)
        self._filling += value
        filled = self._filling_count = self._filling_count + 1
        if filled >= self._size:
            self._buckets.append(self._filling / filled)
            self._filling, self._filling_count = 0.0, 0
            if len(self._buckets) >= BUCKETS:
                self._buckets = [(a + b) / 2 for a, b in zip(self._buckets[::2], self._buckets[1::2], strict=True)]
                self._size *= 2

    @property
    def first(self) -> float | None:
        """Mean of the first 100 episodes (of those there are, while there are fewer)."""
        return self._first / min(self.count, WINDOW) if self.count else None

    @property
    def mean(self) -> float | None:
        """Mean of the last 100 episodes (of those there are, while there are fewer)."""
        return self._total / len(self._last) if self._last else None

    def reaches(self, threshold: float) -> bool:
        """Whether 100 episodes are there and the mean of the last 100 is at least `threshold`."""
        return self.count >= WINDOW and self._total / WINDOW >= threshold

    @property
    def sparkline(self) -> list[float]:
        """At most 60 means of equally many episodes each, oldest first."""
        return (
            list(self._buckets) if self._buckets or not self._filling_count else [self._filling / self._filling_count]
        )

    def plain(self) -> list[Any]:
        """As JSON values."""
        state = [self.count, self._first, list(self._last), self._total]
        return [*state, list(self._buckets), self._size, self._filling, self._filling_count]

    @classmethod
    def of(cls, plain: list[Any]) -> Returns:
        """From `plain`."""
        tally = cls()
        tally.count, tally._first, last, tally._total = plain[:4]
        tally._last.extend(last)
        tally._buckets, tally._size, tally._filling, tally._filling_count = list(plain[4]), *plain[5:]
        return tally


def quantile(histogram: dict[int, int], share: float) -> int | None:
    """The smallest value with at least `share` of all counts at or below it (nearest rank); None without counts."""
    total = sum(histogram.values())
    below = 0
    for value in sorted(histogram):
        below += histogram[value]
        if below >= share * total and below:
            return value
    return None


def finite(value: Any) -> Any:
    """The same with None for every number that JSON has no form for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


FRAGMENTS = ("consumed", "stale", "refused", "lost", "dropped")


class PolicyTally:
    """All that is counted of one policy."""

    def __init__(self) -> None:
        self.version: tuple[int, int] = (0, 0)
        self.updates = 0
        self.agent_steps = 0
        """Taken in environments, as actors report them."""
        self.agent_steps_used = 0
        """Those that went into updates."""
        self.returns = Returns()
        self.losses: dict[str, float | None] = {}
        self.fault = ""
        """What was wrong with the last update: losses or parameters that are not finite; empty if nothing was."""
        self.unsound = 0
        """Number of consecutive faulty updates up to the last one."""
        self.staleness: dict[int, int] = {}
        """Fragments by versions behind, when they were used: exact."""
        self.fragments = dict.fromkeys(FRAGMENTS, 0)
        self.life = 0
        self.incarnation = ""
        """The learner incarnation that has `life`."""
        self.checkpoint: tuple[int, int] | None = None
        self.positions: dict[str, int] = {}
        """By a checkpoint's file, the ledger position of its fact (the newest 32)."""
        self.best_score: float | None = None
        self.best_file = ""
        self.refusal = ""
        """Why its learner refused experience, the last time that a reason was new."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        own = dict(vars(self))
        own["returns"] = self.returns.plain()
        own["staleness"] = {str(behind): count for behind, count in self.staleness.items()}
        for name in ("losses", "fragments", "positions"):
            own[name] = dict(own[name])
        own["version"] = list(self.version)
        own["checkpoint"] = None if self.checkpoint is None else list(self.checkpoint)
        return own

    @classmethod
    def of(cls, plain: dict[str, Any]) -> PolicyTally:
        """From `plain`."""
        tally = cls()
        for name in (
            "updates",
            "agent_steps",
            "agent_steps_used",
            "life",
            "incarnation",
            "best_score",
            "best_file",
            "refusal",
            "fault",
            "unsound",
        ):
            setattr(tally, name, plain[name])
        tally.returns = Returns.of(plain["returns"])
        tally.staleness = {int(behind): count for behind, count in plain["staleness"].items()}
        tally.losses, tally.fragments = dict(plain["losses"]), dict(plain["fragments"])
        tally.positions = dict(plain["positions"])
        tally.version = tuple(plain["version"])
        tally.checkpoint = None if plain["checkpoint"] is None else tuple(plain["checkpoint"])
        return tally


class RoleTally:
    """All that is counted of one role, by its name."""

    def __init__(self) -> None:
        self.kind = ""
        self.pid = 0
        self.attempt = 0
        self.spawns = 0
        """In this launch of the run."""
        self.restarts = 0
        """Over all launches: spawns after the first of each."""
        self.exits = 0
        self.running = False
        """Spawned, and not said to have ended."""
        self.expected = True
        """Whether its last end was expected."""
        self.spawned_at = 0
        """The run's clock, ns."""
        self.state = ""
        """As the last `liveness` fact said."""
        self.incarnation = ""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    @classmethod
    def of(cls, plain: dict[str, Any]) -> RoleTally:
        """From `plain`."""
        tally = cls()
        vars(tally).update(plain)
        return tally
