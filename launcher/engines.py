"""Engines: how the launcher starts a role's process on this host, learns of its exit, and ends it.

Invariant: an engine signals only processes that it started and that still live (checked by creation time), and each
child that was asked for gives at most one Started and exactly one Exited. No call blocks but `end` and `close`, which
have deadlines.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.child import ChildSpec
from launcher.host import process_start, start
from launcher.lifeline import Lifeline
from launcher.nursery import PRELOAD

KILL_SECONDS = 3.0
"""How long `end` waits for a process after SIGKILL."""


@dataclass(frozen=True)
class Started:
    """The child lives."""

    role: str
    attempt: int
    pid: int


@dataclass(frozen=True)
class Exited:
    """The child is gone. `status`: the exit status, negative for a signal, None when nobody saw it."""

    role: str
    attempt: int
    pid: int | None
    status: int | None
    words: str = ""
    """Why no process could be started, if none could."""


class _Child:
    """A process of ours, told from a later one with the same pid by its creation time."""

    def __init__(self, role: str, attempt: int, pid: int) -> None:
        self.role, self.attempt, self.pid = role, attempt, pid
        self._start = process_start(pid)

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return self._start is not None and process_start(self.pid) == self._start


class Engine(ABC):
    """What both engines share: the children that live, their events, and signals to their groups."""

    def __init__(self, lifeline: Lifeline) -> None:
        self._lifeline = lifeline
        self._children: dict[int, _Child] = {}
        self._events: list[Started | Exited] = []

    @abstractmethod
    def spawn(self, spec: ChildSpec) -> None:
        """Ask for a child; `events` tells when it has started. Does not wait."""

    @abstractmethod
    def _collect(self) -> None:
        """Take what has happened into `_events`."""

    def events(self) -> list[Started | Exited]:
        """What happened since the last call, oldest first."""
        self._collect()
        events, self._events = self._events, []
        return events

    def pids(self) -> dict[int, str]:
        """The role of each pid, for the children that have started and whose exit was not seen."""
        return {pid: child.role for pid, child in self._children.items()}

    def terminate(self, pid: int) -> None:
        """SIGTERM to the child's group. ValueError if the pid was never ours or its exit was seen."""
        self._signal(pid, signal.SIGTERM)

    def kill(self, pid: int) -> None:
        """SIGKILL to the child's group. ValueError as above."""
        self._signal(pid, signal.SIGKILL)

    def end(self, pids: Iterable[int], grace: float) -> bool:
        """SIGTERM, up to `grace` seconds, SIGKILL, up to 3 s. Whether all are gone; their exits stay in `events`."""
        mine = [pid for pid in pids if pid in self._children]
        for pid in mine:
            self.terminate(pid)
        if self._gone(mine, grace):
            return True
        for pid in mine:
            if pid in self._children:
                self.kill(pid)
        return self._gone(mine, KILL_SECONDS)

    def close(self, grace: float = 2.0) -> bool:
        """End every child. Whether all are gone."""
        return self.end(list(self._children), grace)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        child = self._children.get(pid)
        if child is None:
            raise ValueError(f"process {pid} is not a child of this engine")
        if child.alive():
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _gone(self, pids: Sequence[int], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            self._collect()
            if not any(pid in self._children for pid in pids):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)

    def _started(self, role: str, attempt: int, pid: int) -> None:
        self._children[pid] = _Child(role, attempt, pid)
        self._events.append(Started(role, attempt, pid))

    def _unborn(self, spec: ChildSpec, error: OSError) -> None:
        self._events.append(Exited(spec.role, spec.attempt, None, None, f"no process could be started: {error}"))

    def _exited(self, pid: int, status: int | None) -> None:
        child = self._children.pop(pid)
        self._events.append(Exited(child.role, child.attempt, pid, status))


class PlainEngine(Engine):
    """One fresh interpreter a child: for the tracker, which needs no torch."""

    def __init__(self, lifeline: Lifeline) -> None:
        super().__init__(lifeline)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def spawn(self, spec: ChildSpec) -> None:
        """Start it at once."""
        arguments = [sys.executable, "-m", "launcher.child", str(self._lifeline.reader)]
        try:
            process = start(arguments, spec.to_plain(), (self._lifeline.reader,), Path(spec.log))
        except OSError as error:  # the system has no process to give: report it like one that died at once
            self._unborn(spec, error)
            return
        self._processes[process.pid] = process
        self._started(spec.role, spec.attempt, process.pid)

    def _collect(self) -> None:
        for pid, process in list(self._processes.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it left behind, while its pid is still taken
            del self._processes[pid]
            self._exited(pid, process.wait())


class NurseryEngine(Engine):
    """Children forked from the nursery. It is started by `warm` or the first `spawn`, and again when it has died."""

    def __init__(
        self, lifeline: Lifeline, log: Path, *, preload: Sequence[str] = PRELOAD, folder: str | None = None
    ) -> None:
        super().__init__(lifeline)
        self._log, self._preload, self._folder = log, list(preload), folder
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._received, self._unsent = b"", b""
        self._asked: dict[tuple[str, int], ChildSpec] = {}
        self._orphans: dict[int, _Child] = {}
        self.ready: dict[str, Any] | None = None
        """The nursery's first report: seconds of importing, threads, modules that failed; None until it came."""

    @property
    def pid(self) -> int | None:
        """The nursery's own pid while it lives."""
        return self._process.pid if self._process else None

    def fileno(self) -> int:
        """The socket to wait on for events, or -1 when there is no nursery."""
        return self._link.fileno() if self._link else -1

    def warm(self) -> None:
        """Start the nursery now, so that torch is imported while other things are done."""
        if self._link is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            orders = {
                "link": theirs.fileno(),
                "lifeline": self._lifeline.reader,
                "preload": self._preload,
                "folder": self._folder,
            }
            arguments = [sys.executable, "-m", "launcher.nursery"]
            try:
                self._process = start(arguments, orders, (theirs.fileno(), self._lifeline.reader), self._log)
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self._link, self._received, self._unsent, self.ready = ours, b"", b"", None

    def spawn(self, spec: ChildSpec) -> None:
        """Queue the order; the nursery forks as soon as its imports are done."""
        try:
            self.warm()
        except OSError as error:  # as with a plain child
            self._unborn(spec, error)
            return
        self._asked[spec.role, spec.attempt] = spec
        self._unsent += json.dumps({"spawn": spec.to_plain()}).encode() + b"\n"
        self._flush()

    def close(self, grace: float = 2.0) -> bool:
        """End every child, then the nursery."""
        # Let go of orders that were never taken: nothing may be forked behind our back.
        self._unsent = b""
        gone = super().close(grace)
        self._collect()
        if self._link is not None and self._process is not None:
            self._link.shutdown(socket.SHUT_WR)
            if self.ready is None:
                self._process.kill()  # it still imports, and would not look up for seconds; nobody was born of it yet
            deadline = time.monotonic() + grace + KILL_SECONDS
            while self._link is not None and time.monotonic() < deadline:
                self._collect()
                time.sleep(0.01)
            if self._link is not None:
                self._process.kill()
                self._process.wait()
                self._collect()
        return gone and super().close(grace)

    def _collect(self) -> None:
        self._flush()
        while self._link is not None:
            try:
                received = self._link.recv(1 << 16)
            except BlockingIOError:
                break
            except ConnectionError:
                received = b""
            if not received:
                self._lost()
                break
            *lines, self._received = (self._received + received).split(b"\n")
            for line in lines:
                self._report(json.loads(line))
        for pid, child in list(self._orphans.items()):
            if not child.alive():
                del self._orphans[pid]
                self._exited(pid, _status(pid))

    def _report(self, report: dict[str, Any]) -> None:
        if "started" in report:
            role, attempt, pid = report["started"]
            self._asked.pop((role, attempt), None)
            self._started(role, attempt, pid)
        elif "exited" in report:
            role, attempt, pid, status = report["exited"]
            if pid in self._children:
                self._exited(pid, status)
            elif self._asked.pop((role, attempt), None):  # it died before it could report itself
                self._events.append(Exited(role, attempt, pid, status))
        else:
            self.ready = report

    def _lost(self) -> None:
        """The nursery is gone: its children live on as orphans, what was only asked for counts as exited."""
        if self._link is not None and self._process is not None:
            self._link.close()
            # The socket closes a moment before the process is a zombie; SIGKILL makes that moment short.
            self._process.kill()
            self._process.wait()
        self._link = self._process = None
        self._orphans |= self._children
        self._events += [Exited(role, attempt, None, None) for role, attempt in self._asked]
        self._asked.clear()

    def _flush(self) -> None:
        while self._link is not None and self._unsent:
            try:
                sent = self._link.send(self._unsent)
            except (BlockingIOError, ConnectionError):
                return
            self._unsent = self._unsent[sent:]


def _status(pid: int) -> int | None:
    """Return the exit status of an orphan that this process has adopted; None if another process has."""
    with suppress(ChildProcessError):
        gone, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if gone else None
    return None
