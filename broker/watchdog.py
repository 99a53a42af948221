"""The watchdog: says what a role's thread is in when that thread cannot say it, and ends a role that is stuck.

It is a thread of each role. While the role's thread reports by itself the watchdog only looks, twice a second. A call
of user code that has lasted longer than its limit, or that is still on when the run is ending, ends the role: the
launcher starts it again, or goes on to the end of the run.

Invariant: the role's thread does nothing for it but to mark which call it is in (`Watched.call`). User code that holds
the interpreter stops this thread as well: then `faulthandler`, which needs no interpreter, writes the stack and ends
the process a little after the longest limit.
"""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Hashable, Mapping
from contextlib import suppress
from typing import NamedTuple, NoReturn, Protocol

from broker.errors import HeadraceError
from broker.tracker_spoke import TrackerSpoke

LOOK_SECONDS = 0.5
QUIET_SECONDS = 1.0
"""A role's thread that has not reported for so long is spoken for."""
STUCK_SECONDS = 5.0
"""A call counts as stuck after so long, or four times the longest that came back before."""
INTERPRETER_SECONDS = 10.0
"""How much later than the longest limit a process ends whose interpreter is held."""


class Call(NamedTuple):
    """A call of user code that the role's thread is in."""

    what: str
    """As in "actor-0 is in WHAT for 10 s"."""
    mark: Hashable
    """Another value for each call."""
    limit: float
    """Seconds that it may take."""


class Watched(Protocol):
    """What tells the watchdog of user code. Both methods run on its thread, while the role's thread may go on."""

    limit: float
    """The longest limit of any call."""
    leave_seconds: float
    """How long a call may go on after the run was told to end."""

    def call(self) -> Call | None:
        """The call that the role's thread is in, or None."""
        ...

    def late(self, call: Call, seconds: float, stack: str) -> tuple[int, str]:
        """Record that a call has not returned for so long. Returns the role's exit status and its last words."""
        ...


class WatchedRole(Protocol):
    """What the watchdog needs of the role's `broker.station.Station`."""

    tracker: TrackerSpoke
    watched: Watched | None
    doing: str
    reported_at: float
    """When the role's thread reported last, in monotonic seconds."""

    @property
    def stopping(self) -> bool:
        """Whether the run is ending; raises where the role cannot go on."""
        ...

    def say(self, doing: str, rates: Mapping[str, float] = ...) -> None:
        """Say this of the role, from any thread."""
        ...


class CallClock:
    """How long the call has lasted that is seen at each look, and whether that is unusual."""

    def __init__(self) -> None:
        self._mark: Hashable = None
        self._since = 0.0
        self._longest = 0.0

    def look(self, call: Call | None, now: float) -> float:
        """Seconds that this call has lasted, as far as looks have seen it."""
        mark = None if call is None else call.mark
        if mark != self._mark:
            if self._mark is not None:
                self._longest = max(self._longest, now - self._since)
            self._mark, self._since = mark, now
        return now - self._since

    def stuck(self, seconds: float) -> bool:
        """Whether a call that has lasted so long counts as stuck."""
        return seconds >= max(STUCK_SECONDS, 4.0 * self._longest)


def stack_of(thread: int) -> str:
    """Where a thread is, as in a traceback."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - its documented name
    return "" if frame is None else "".join(traceback.format_stack(frame))


class Watchdog:
    """The watchdog of one role. To be made on the role's thread."""

    def __init__(self, station: WatchedRole) -> None:
        self._station = station
        self._role = threading.get_ident()
        self._clock = CallClock()
        self._over = threading.Event()
        self._armed_until = -math.inf
        self._stopping_since = math.inf
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        try:
            while not self._over.wait(LOOK_SECONDS):
                self._look()
        finally:
            if self._armed_until > -math.inf:  # by a thread that looks no more
                faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        watched = self._station.watched
        call = None if watched is None else watched.call()
        now = time.monotonic()
        seconds = self._clock.look(call, now)
        if watched is not None:
            self._arm(watched.limit, now)
        if now - self._station.reported_at >= QUIET_SECONDS:
            self._speak(call, seconds, now)
        if watched is not None and call is not None:
            self._judge(watched, call, seconds, now)

    def _arm(self, limit: float, now: float) -> None:
        """Have the process ended if this thread does not come back before the limit: the interpreter is held."""
        if limit < threading.TIMEOUT_MAX / 2 and now >= self._armed_until:
            faulthandler.dump_traceback_later(limit + INTERPRETER_SECONDS, exit=True)
            self._armed_until = now + min(limit / 4, INTERPRETER_SECONDS / 2)

    def _speak(self, call: Call | None, seconds: float, now: float) -> None:
        station = self._station
        if call is None:
            station.say(f"{station.doing} for {now - station.reported_at:.0f} s")
        else:
            stuck = {"stuck": round(seconds, 1)} if self._clock.stuck(seconds) else {}
            station.say(f"in {call.what} for {seconds:.0f} s", stuck)

    def _judge(self, watched: Watched, call: Call, seconds: float, now: float) -> None:
        if seconds >= call.limit:
            status, words = watched.late(call, seconds, stack_of(self._role))
            self._leave(status, words)
        status, why = 0, "the run is ending"
        try:
            stopping = self._station.stopping
        except HeadraceError as error:  # what the role's thread would raise if it could
            stopping, status, why = True, 1, str(error)
        self._stopping_since = min(self._stopping_since, now) if stopping else math.inf
        if min(seconds, now - self._stopping_since) >= watched.leave_seconds:
            words = f"{why}, and {call.what} did not return\n{stack_of(self._role)}"
            if self._clock.stuck(seconds):
                words = watched.late(call, seconds, stack_of(self._role))[1]
            self._leave(status, words)

    def _leave(self, status: int, words: str) -> NoReturn:
        """End the process from here, as its own thread is stuck. What it started is ended by whoever started it."""
        with suppress(OSError):
            os.write(2, f"{words.rstrip()}\n".encode(errors="replace"))
        self._station.tracker.flush(2.0)
        self._station.tracker.farewell("it was stuck", 0.5)
        os._exit(status)


def watch_calls(watched: Watched) -> None:
    """End this process, which is no role, with status 1 when a call of the calling thread is over its limit."""
    thread, clock = threading.get_ident(), CallClock()

    def watch() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            call = watched.call()
            seconds = clock.look(call, time.monotonic())
            if call is not None and seconds >= call.limit:
                status, words = watched.late(call, seconds, stack_of(thread))
                os.write(2, f"{words}\n".encode(errors="replace"))
                os._exit(status)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
