"""Which call of the user's environment this process is in: marked by the thread that steps, read by the watchdog.

Invariant: within a step the mark costs one attribute a copy. Only one thread of a process steps environments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from broker.delivery import shortened
from broker.watchdog import Call

if TYPE_CHECKING:
    from actors.environments.rows import Rows
    from broker.tracker_spoke import TrackerSpoke


class Calls:
    """The call that is under way. `method` is empty between calls."""

    __slots__ = ("copy", "count", "method", "rows")

    def __init__(self) -> None:
        self.method = ""
        self.copy: int | None = None
        """None: the vector form, or an environment that has no place yet."""
        self.rows: Rows | None = None
        self.count = 0

    def step(self, rows: Rows, copy: int | None = 0) -> Calls:
        """Mark that the copies are stepped, this one first. To be ended by setting `method` to ""."""
        self.count += 1
        self.method, self.copy, self.rows = "step", copy, rows
        return self

    def reset(self, rows: Rows, copy: int) -> str:
        """Mark that a copy is reset; returns the method that was marked, which is to be set again afterwards."""
        before = self.method
        self.method, self.copy, self.rows = "reset", copy, rows
        return before

    @contextmanager
    def within(self, method: str, copy: int | None = None, rows: Rows | None = None) -> Iterator[None]:
        """Mark any other call; what was marked before is marked again afterwards."""
        before = self.method, self.copy, self.rows
        self.count += 1
        self.method, self.copy, self.rows = method, copy, rows
        try:
            yield
        finally:
            self.count += 1
            self.method, self.copy, self.rows = before


CALLS = Calls()
"""The calls of this process."""


class EnvironmentWatch:
    """Tells the watchdog of an actor which call its thread is in (`broker.watchdog.Watched`)."""

    leave_seconds = 1.0

    def __init__(self, environment: dict[str, Any], tracker: TrackerSpoke | None = None) -> None:
        """`environment`: the section of the run file. `tracker` takes the fact of a call that is over its limit."""
        self._id = environment["id"]
        step = float(environment["step_seconds"])
        # Before the run one copy was made alone, within start_seconds; here many are made, beside other processes.
        start = max(step, float(environment["start_seconds"]))
        self._limits = {"construction": start, "reset": start, "step": step, "close": step}
        self._tracker = tracker
        self.limit = start

    def call(self) -> Call | None:
        """See `Watched`."""
        method, copy, count = CALLS.method, CALLS.copy, CALLS.count
        if not method:
            return None
        place = "an environment" if copy is None and method == "construction" else "the vector environment"
        what = f"{place if copy is None else f'environment {copy}'}'s {method}"
        return Call(what, (count, copy, method), self._limits[method])

    def late(self, call: Call, seconds: float, stack: str) -> tuple[int, str]:
        """See `Watched`. The fact is an `environment_error`, as of an environment that raises."""
        method, copy, rows = CALLS.method, CALLS.copy, CALLS.rows
        start = method in {"construction", "reset"} and self._limits["reset"] > self._limits["step"]
        key = f"environment.{'start' if start else 'step'}_seconds"
        about: dict[str, Any] = {"environment": copy}
        if rows is not None:
            about |= rows.transition_of(copy or 0)
        where = ", ".join(f"{name} {about[name]}" for name in ("seed", "episode", "step") if name in about)
        words = (
            f"{self._id}: {call.what}{f' ({where})' if where else ''} has not returned for {seconds:.0f} s;"
            f" {key} lets it take {call.limit:g} s"
        )
        if self._tracker is not None:
            body = {"traceback": shortened(f"{stack}TimeoutError: {words}"), **about}
            self._tracker.fact("environment_error", body, timeout=1.0)
        return 1, f"{stack}{words}"
