"""Becoming a role: what happens in a fresh process between its birth and the role's own `main`.

Invariant: by the time that `main` runs, the process leads a session and a group of its own, writes to its own log,
ignores SIGINT (the launcher decides when a run ends), watches the lifeline, and has received nothing but plain
configuration. Both routes end here: `python -m launcher.child` (a ChildSpec as JSON on standard input), and a fork of
the nursery (`enter`).

A role's main is `main(spec)` or `main(spec, ending)`: `ending` is a threading.Event that SIGTERM and the end of the
launcher set; a main without it gets SystemExit raised in its main thread instead.
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

from broker.descendants import adopt, end_children
from broker.errors import RequestError
from broker.exits import STATUS_FINAL
from launcher.host import append_folder, open_log, set_title
from launcher.lifeline import watch
from tracker.disk import LedgerDamaged

STATUS_FAILED = 1
STATUS_REQUEST = 2


@dataclass(frozen=True)
class ChildSpec:
    """One attempt of one role, as plain values."""

    role: str
    attempt: int
    main: str
    """Dotted path of its main, `package.module:function`."""
    log: str
    """Path of the file that takes its standard output and error."""
    spec: dict[str, Any] = field(default_factory=dict)
    """What `main` is given."""
    folder: str | None = None
    """Where the user's modules are: appended to the path."""
    finish_seconds: float = 0.0
    """How long it may finish its work after the launcher died (the tracker's last commit: 3)."""

    def to_plain(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """What `to_plain` gave."""
        return cls(**plain)


def own_session() -> None:
    """Lead a session and a process group, unless this process does already."""
    if os.getpgrp() != os.getpid() or os.getsid(0) != os.getpid():
        os.setsid()


def enter(child: ChildSpec, lifeline: int) -> int:
    """Become the role and run its main.

    Returns the exit status: 0, 1 (it failed), 2 (the request was wrong), 3 (a restart would fail in the same way).
    """
    own_session()
    adopt()
    _redirect(child.log)
    set_title(child.role)
    append_folder(child.folder)
    ending, done = threading.Event(), threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: ending.set())

    def finish() -> None:
        ending.set()
        done.wait(child.finish_seconds)

    watch(lifeline, finish, before_seconds=child.finish_seconds)
    try:
        try:
            main = find(child.main)
        except (ImportError, AttributeError, TypeError) as error:
            raise RequestError(f"{child.role}: {child.main!r} cannot be had: {error}") from error
        if len(inspect.signature(main).parameters) > 1:
            status = main(child.spec, ending)
        else:
            signal.signal(signal.SIGTERM, _leave_at_once)
            status = main(child.spec)
        return status if isinstance(status, int) else 0
    except SystemExit as left:
        if not left.code:
            return 0
        traceback.print_exc()  # from the user's code: its last line has the message of `sys.exit(message)`
        return STATUS_FAILED
    except RequestError as error:
        print(error, file=sys.stderr)
        return STATUS_REQUEST
    except LedgerDamaged as error:
        print(error, file=sys.stderr)
        return STATUS_FINAL
    except BaseException:  # the edge of a role: whatever it was becomes its last words
        traceback.print_exc()
        return STATUS_FAILED
    finally:
        done.set()


def find(path: str) -> Callable[..., Any]:
    """The function at `package.module:name`. ImportError or AttributeError if there is none."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not callable(found):
        raise TypeError(f"{path} is not a function")
    return found  # type: ignore[no-any-return]


def leave(status: int) -> NoReturn:
    """End this process and its descendants at once: output is flushed, threads and exit functions are skipped."""
    end_children()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a full disk must not change the exit status
            continue
    os._exit(status)


def _redirect(log: str) -> None:
    """Standard output and error into the log, standard input from nothing; a native crash leaves its stack there."""
    null = os.open(os.devnull, os.O_RDONLY)
    with open_log(Path(log)) as file:
        for target, source in ((0, null), (1, file.fileno()), (2, file.fileno())):
            os.dup2(source, target)
    os.close(null)
    faulthandler.enable()


def _leave_at_once(*_: object) -> None:
    raise SystemExit(0)


def main() -> NoReturn:
    """The program of the subprocess route: `python -m launcher.child LIFELINE`, the spec on standard input."""
    child = ChildSpec.from_plain(json.loads(sys.stdin.buffer.read()))
    leave(enter(child, int(sys.argv[1])))


if __name__ == "__main__":
    main()
