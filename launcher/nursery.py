"""The nursery: our own fork server, which imports torch once for all roles that need it.

It reads orders from a socket (JSON lines), forks, reaps and reports:

    <- {"spawn": {ChildSpec}}
    -> {"ready": seconds, "threads": n, "failed": {module: error}}
    -> {"started": [role, attempt, pid]}         written by the child itself, before it lets go of the socket
    -> {"exited": [role, attempt, pid, status]}  status: the exit status, negative for a signal

Invariant: it has one thread, no context, no device and no user code, so that a fork of it is clean. Orders sent before
the imports are done wait in the socket. A child that lives has reported itself before the launcher can read the end of
the socket, so that no child is unknown even when the nursery is killed in the middle of an order. When the lifeline or
the socket closes it ends its children's groups and then itself. Orphans of a child, in whatever session, are adopted by
the nursery and killed before the child's exit is reported.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from broker.descendants import adopt, end_children
from launcher.child import ChildSpec, enter, leave, own_session
from launcher.host import append_folder, set_title

PRELOAD = ("torch", "learners.role", "learners.ppo", "actors.role")
"""What the nursery imports before its first fork."""
END_SECONDS = 2.0
"""Between SIGTERM and SIGKILL for its children when the launcher is gone."""


class ForkServer:
    """The nursery's process. `link` is the socket to the launcher, `lifeline` the pipe's reading end."""

    def __init__(self, link: socket.socket, lifeline: int) -> None:
        self._link = link
        self._lifeline = lifeline
        self._received = b""
        self._children: dict[int, ChildSpec] = {}
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def serve(self, preload: list[str]) -> None:
        """Import, then fork on order until the launcher lets go."""
        adopt()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self._preload(preload)
        poller = select.poll()
        for descriptor in (self._link.fileno(), self._lifeline, self._wake_reader):
            poller.register(descriptor, select.POLLIN)
        while self._turn({descriptor for descriptor, _ in poller.poll()}):
            pass
        self._end()

    def _turn(self, ready: set[int]) -> bool:
        """Act on what is ready; False when the launcher has let go."""
        if self._wake_reader in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_reader, 4096)
            self._reap()
        if self._lifeline in ready and not os.read(self._lifeline, 64):
            return False
        if self._link.fileno() in ready:
            try:
                received = self._link.recv(1 << 16)
            except ConnectionError:
                return False
            if not received:
                return False
            *lines, self._received = (self._received + received).split(b"\n")
            for line in lines:
                self._fork(ChildSpec.from_plain(json.loads(line)["spawn"]))
        return True

    def _preload(self, modules: list[str]) -> None:
        begun = time.monotonic()
        failed = {}
        for module in modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # the role itself will say it again, in its own log
                traceback.print_exc()
                failed[module] = f"{type(error).__name__}: {error}"
        # What was imported lives as long as the nursery: the collector must not touch (and so copy) its pages.
        gc.collect()
        gc.freeze()
        self._tell({"ready": time.monotonic() - begun, "threads": _threads(), "failed": failed})

    def _fork(self, child: ChildSpec) -> None:
        pid = os.fork()
        if pid:
            self._children[pid] = child
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            own_session()  # before it is reported, so that its group exists when its pid is known
            self._tell({"started": [child.role, child.attempt, os.getpid()]})
            self._link.close()
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            status = enter(child, self._lifeline)
        except BaseException:
            traceback.print_exc()
        finally:
            leave(status)

    def _reap(self) -> None:
        exits = []
        for pid, child in list(self._children.items()):
            # Look first, and sweep the group while its leader's pid is still taken: no other can have the number.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            del self._children[pid]
            exits.append([child.role, child.attempt, pid, status])
        if exits:
            end_children(self._children)
        for ended in exits:
            self._tell({"exited": ended})

    def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._children:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, number)
            deadline = time.monotonic() + END_SECONDS
            while self._children and time.monotonic() < deadline:
                self._reap()
                time.sleep(0.01)

    def _tell(self, report: dict[str, Any]) -> None:
        # One small send is one buffer of a unix socket: lines of parent and children never mix.
        with suppress(ConnectionError):
            self._link.sendall(json.dumps(report).encode() + b"\n")


def _threads() -> int:
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return 1


def main() -> None:
    """The program: `python -m launcher.nursery`, with link, lifeline, preload and folder as JSON on standard input."""
    orders = json.loads(sys.stdin.buffer.read())
    set_title("nursery")
    append_folder(orders["folder"])
    ForkServer(socket.socket(fileno=orders["link"]), orders["lifeline"]).serve(orders["preload"])


if __name__ == "__main__":
    main()
