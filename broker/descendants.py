"""Descendants: the processes that user code starts, and how the responsible process ends them.

After `adopt` a process becomes the parent of every descendant whose own parent ends, in whatever session or group that
descendant is (Linux: PR_SET_CHILD_SUBREAPER). So no descendant escapes by daemonising, and `end_children` ends all of
them, level by level. On a kernel without subreapers only direct children are ended.

Invariant: a process signals only its own children. The kernel reuses a child's pid only after its parent has waited for
it, and only the caller of `end_children` waits, so no unrelated process gets a signal.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36
MAX_ENDED = 64
"""Most ended children that `reap` leaves to the code that started them."""
ABORT_SECONDS = 1.0
"""Seconds between the signal that asks a guarded process to end and SIGKILL."""


def adopt() -> frozenset[int]:
    """Adopt all descendants from now on. Returns the children that this process already has.

    If it has any (a shell started them before it replaced itself by this program), the caller must keep them, and
    nothing is adopted: their orphans would come to this process too.
    """
    before = frozenset(children())
    if not before and sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return before


def children() -> dict[int, str]:
    """Return the children of this process: pid -> state, the letter in /proc (Z: ended and not yet waited for)."""
    parent, states = str(os.getpid()), {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent_pid = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if parent_pid == parent:
                states[int(entry.name)] = state
    return states


def reap(most: int = MAX_ENDED) -> None:
    """Wait for children that have ended, except the `most` newest.

    No code waits for an adopted child, and the kernel does not tell which children are adopted. So user code with more
    ended children of its own does not get the status of the oldest.
    """
    with suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        ended = [pid for pid, state in children().items() if state == "Z"]
        for pid in sorted(ended, key=_started)[: max(0, len(ended) - most)]:
            os.waitpid(pid, os.WNOHANG)


def _started(pid: int) -> int:
    """Return the start time of a process, in ticks since the host's start; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except OSError:
        return 0


def end_children(keep: Collection[int] = (), seconds: float = 2.0) -> None:
    """Kill all children except those in `keep`, and the orphans that this process adopts, until no child is left.

    Gives up after `seconds`: a process in an uninterruptible system call cannot be killed.
    """
    deadline = time.monotonic() + seconds
    while (left := children().keys() - set(keep)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)


def guarded(main: Callable[[], int | None], lifeline: int | None = None) -> int:
    """Run `main` in a fork. Returns its exit status (negative: a signal) once it and all its descendants have ended.

    When `lifeline` closes the fork gets SIGABRT; when this process gets SIGTERM or SIGINT the fork gets the same
    signal; SIGKILL follows a second later. If this process is killed, the fork ends itself and its descendants. Call
    this in a process with one thread; `main` runs in a session of its own.
    """
    before = adopt()
    wake_reader, wake_writer = os.pipe()
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        for descriptor in (writer, wake_reader, wake_writer):
            os.close(descriptor)
        _become(main, reader)
    os.close(reader)
    os.set_blocking(wake_writer, False)
    numbers = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
    try:
        return _attend(pid, wake_reader, lifeline)
    finally:
        end_children(before)
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for descriptor in (writer, wake_reader, wake_writer):
            os.close(descriptor)


def leave_as(status: int) -> NoReturn:
    """End this process with another process's exit status: if that is a signal, by this signal, without a core file."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError, ValueError):  # SIGKILL cannot have a handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)


def _attend(pid: int, wake: int, lifeline: int | None) -> int:
    """Wait for the fork. Forward signals and the end of the lifeline to it, and kill it a second later."""
    poller = select.poll()
    poller.register(wake, select.POLLIN)
    if lifeline is not None:
        poller.register(lifeline, select.POLLIN)
    deadline: float | None = None
    while True:
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = {descriptor for descriptor, _ in poller.poll(None if wait is None else wait * 1000 + 1)}
        received = os.read(wake, 4096) if wake in ready else b""
        asked = [number for number in (signal.SIGTERM, signal.SIGINT) if number in received]
        if lifeline is not None and lifeline in ready and not os.read(lifeline, 64):
            poller.unregister(lifeline)
            asked.append(signal.SIGABRT)
        if deadline is not None and (asked or time.monotonic() >= deadline):
            os.kill(pid, signal.SIGKILL)
            deadline = None
        elif asked:
            os.kill(pid, asked[-1])
            deadline = time.monotonic() + ABORT_SECONDS


def _become(main: Callable[[], int | None], guard: int) -> NoReturn:
    """Run `main` as the fork, then exit at once, also if threads of it still run."""
    status = 1
    try:
        os.setsid()
        adopt()
        threading.Thread(target=_end_without, args=(guard,), name="guard", daemon=True).start()
        status = main() or 0
    except SystemExit as left:
        if not isinstance(left.code, int | None):
            print(left.code, file=sys.stderr)
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        end_children()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _end_without(guard: int) -> None:
    """End this process and its descendants when the guarding parent has ended."""
    with suppress(OSError):
        while os.read(guard, 64):
            pass
    end_children()
    os.killpg(0, signal.SIGKILL)
