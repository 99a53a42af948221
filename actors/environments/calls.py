"""The current call into the user's environment: marked by the thread that steps, read by the watchdog.

Invariants: within a step the mark costs one attribute assignment for each copy; only one thread of a process steps
environments.
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
    """The current call. `method` is empty between calls."""

    __slots__ = ("copy", "count", "method", "rows")

    def __init__(self) -> None:
        self.method = ""
        self.copy: int | None = None
        """The copy's index; None for the vector form, and for an environment without an index yet."""
        self.rows: Rows | None = None
        self.count = 0

    def step(self, rows: Rows, copy: int | None = 0) -> Calls:
        """Mark that the copies are stepped, this one first. The caller sets `method` to "" after the step."""
        self.count += 1
        self.method, self.copy, self.rows = "step", copy, rows
        return self

    def reset(self, rows: Rows, copy: int) -> str:
        """Mark that a copy is reset. Returns the marked method of before, which the caller restores afterwards."""
        before = self.method
        self.method, self.copy, self.rows = "reset", copy, rows
        return before

    @contextmanager
    def within(self, method: str, copy: int | None = None, rows: Rows | None = None) -> Iterator[None]:
        """Mark any other call, and restore the previous mark afterwards."""
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
    """Tells an actor's watchdog which call the actor's thread is in (`broker.watchdog.Watched`)."""

    leave_seconds = 1.0

    def __init__(self, environment: dict[str, Any], tracker: TrackerSpoke | None = None) -> None:
        """`environment` is the section of the run file; facts of calls over their limit go to `tracker`."""
        self._id = environment["id"]
        step = float(environment["step_seconds"])
        # start_seconds held before the run for a few copies; here more are made, while other processes are busy.
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
        """See `Watched`. Records an `environment_error`, as for an environment that raises."""
        method, copy, rows = CALLS.method, CALLS.copy, CALLS.rows
        start = method in {"construction", "reset"} and self._limits["reset"] > self._limits["step"]
        key = f"environment.{'start' if start else 'step'}_seconds"
        about: dict[str, Any] = {"environment": copy}
        if rows is not None:
            about |= rows.transition_of(copy or 0)
        where = ", ".join(f"{name} {about[name]}" for name in ("seed", "episode", "step") if name in about)
        words = (
            f"{self._id}: {call.what}{f' ({where})' if where else ''} has not returned for {seconds:.0f} s;"
            f" {key} allows {call.limit:g} s: make it faster, or raise that key"
        )
        if self._tracker is not None:
            body = {"traceback": shortened(f"{stack}TimeoutError: {words}"), **about}
            self._tracker.fact("environment_error", body, timeout=1.0)
        return 1, f"{stack}{words}"
