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
"""If a role's thread has not reported for this long, the watchdog reports for it."""
STOPPED_SECONDS = 2.0
"""Between two samples: without processor time in between, the process was stopped (SIGSTOP, a paused container)."""
STUCK_SECONDS = 5.0
"""A call counts as stuck after this time, or after four times the longest earlier call if that is more."""
INTERPRETER_SECONDS = 10.0
"""Seconds after the longest limit at which a process ends whose interpreter lock is held."""


class Call(NamedTuple):
    """A running call of user code in the role's thread."""

    what: str
    """As in "actor-0 is in WHAT for 10 s"."""
    mark: Hashable
    """A value that differs for each call."""
    limit: float
    """Most seconds that it may take."""


class Watched(Protocol):
    """Describes user code to the watchdog, whose thread calls the methods while the role's thread may go on."""

    limit: float
    """The longest limit of any call."""
    leave_seconds: float
    """How long a call may go on after the run began to end."""

    def call(self) -> Call | None:
        """Return the running call of the role's thread, or None."""
        ...

    def late(self, call: Call, seconds: float, stack: str) -> tuple[int, str]:
        """Record that a call is over its limit. Returns the role's exit status and its last words."""
        ...


class WatchedRole(Protocol):
    """The part of `broker.station.Station` that the watchdog needs."""

    tracker: TrackerSpoke
    watched: Watched | None
    doing: str
    reported_at: float
    """When the role's thread reported last, in monotonic seconds."""

    @property
    def stopping(self) -> bool:
        """Tell whether the run is ending. Raises if the role cannot go on."""
        ...

    def say(self, doing: str, rates: Mapping[str, float] = ...) -> None:
        """Report for the role, from any thread."""
        ...


class CallClock:
    """Measures how long the current call has lasted, by regular samples, and whether that is unusual."""

    def __init__(self) -> None:
        self._mark: Hashable = None
        self._since = 0.0
        self._longest = 0.0
        self._sampled_at = self._busy = 0.0

    def look(self, call: Call | None, now: float, busy: float) -> float:
        """Take a sample. Returns the seconds since the first sample of the same call.

        `busy` is the processor time of this process: where it hardly grew between two samples that are far apart, the
        process was stopped, and that time does not count.
        """
        away = now - self._sampled_at
        if away >= STOPPED_SECONDS and busy - self._busy < away / 10:
            self._since += away
        self._sampled_at, self._busy = now, busy
        mark = None if call is None else call.mark
        if mark != self._mark:
            if self._mark is not None:
                self._longest = max(self._longest, now - self._since)
            self._mark, self._since = mark, now
        return now - self._since

    def stuck(self, seconds: float) -> bool:
        """Tell whether a call that has lasted this long counts as stuck."""
        return seconds >= max(STUCK_SECONDS, 4.0 * self._longest)


def stack_of(thread: int) -> str:
    """Format the current stack of a thread as in a traceback."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - its documented name
    return "" if frame is None else "".join(traceback.format_stack(frame))


class Watchdog:
    """The watchdog of one role. Create it on the role's thread."""

    def __init__(self, station: WatchedRole) -> None:
        self._station = station
        self._role = threading.get_ident()
        self._clock = CallClock()
        self._over = threading.Event()
        self._armed_until = -math.inf
        self._stopping_since = math.inf
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _run(self) -> None:
        try:
            while not self._over.wait(LOOK_SECONDS):
                self._look()
        finally:
            if self._armed_until > -math.inf:  # this thread will not re-arm it any more
                faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        watched = self._station.watched
        call = None if watched is None else watched.call()
        now = time.monotonic()
        seconds = self._clock.look(call, now, time.process_time())
        if watched is not None:
            self._arm(watched.limit, now)
        if now - self._station.reported_at >= QUIET_SECONDS:
            self._speak(call, seconds, now)
        if watched is not None and call is not None:
            self._judge(watched, call, seconds, now)

    def _arm(self, limit: float, now: float) -> None:
        """Let faulthandler end the process if this thread cannot run before the limit: the interpreter lock is held."""
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
        except HeadraceError as error:  # the role's thread would raise this if it were not stuck
            stopping, status, why = True, 1, str(error)
        self._stopping_since = min(self._stopping_since, now) if stopping else math.inf
        if min(seconds, now - self._stopping_since) >= watched.leave_seconds:
            words = f"{why}, and {call.what} did not return\n{stack_of(self._role)}"
            if self._clock.stuck(seconds):
                words = watched.late(call, seconds, stack_of(self._role))[1]
            self._leave(status, words)

    def _leave(self, status: int, words: str) -> NoReturn:
        """End the process from this thread, because its own is stuck. The parent ends the processes that it started."""
        with suppress(OSError):
            os.write(2, f"{words.rstrip()}\n".encode(errors="replace"))
        self._station.tracker.flush(2.0)
        self._station.tracker.farewell("it was stuck", 0.5)
        os._exit(status)


def watch_calls(watched: Watched) -> None:
    """End this process, which is not a role, when a call of the calling thread is over its limit."""
    thread, clock = threading.get_ident(), CallClock()

    def watch() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            call = watched.call()
            seconds = clock.look(call, time.monotonic(), time.process_time())
            if call is not None and seconds >= call.limit:
                status, words = watched.late(call, seconds, stack_of(thread))
                os.write(2, f"{words}\n".encode(errors="replace"))
                os._exit(status)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
