"""The lifeline: a pipe that only the launcher can write to, so that its end is seen however it dies.

Invariant: no process but the launcher holds the writing end (it is not inheritable); when the last copy of it closes,
each role ends its descendants and its own process group within `before_seconds` + `grace` + 2 seconds, whatever its
main thread is doing.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from broker.descendants import end_children, reap

REAP_SECONDS = 10
"""Seconds between two checks for ended children for which no code waits."""


class Lifeline:
    """The launcher's side. `reader` is the file descriptor that children inherit."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()

    def cut(self) -> None:
        """Close the writing end: every role that watches ends itself. May be called again."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def close(self) -> None:
        """Cut, and close the reading end too."""
        self.cut()
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


def watch(
    reader: int, before: Callable[[], None] | None = None, *, before_seconds: float = 3.0, grace: float = 1.0
) -> threading.Thread:
    """Watch the lifeline in a daemon thread of this process.

    When it closes, `before` runs for at most `before_seconds` (the tracker finishes its commit), then the process group
    gets SIGTERM and, after `grace` seconds, SIGKILL, as do all descendants.
    """
    thread = threading.Thread(target=_watch, args=(reader, before, before_seconds, grace), name="lifeline", daemon=True)
    thread.start()
    return thread


def _watch(reader: int, before: Callable[[], None] | None, before_seconds: float, grace: float) -> None:
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    try:
        while not poller.poll(REAP_SECONDS * 1000) or os.read(reader, 64):
            reap()
    except OSError:
        return  # the descriptor was closed here: nothing is watched any more
    if before is not None:
        # In a thread of its own: a commit that hangs on a dead disk must not keep the process alive.
        last = threading.Thread(target=before, name="lifeline-before", daemon=True)
        last.start()
        last.join(before_seconds)
    _end_group(signal.SIGTERM)
    time.sleep(grace)
    end_children()
    _end_group(signal.SIGKILL)


def _end_group(number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, number)
        else:  # not a group of our own: others in it are none of our business
            os.kill(os.getpid(), number)
