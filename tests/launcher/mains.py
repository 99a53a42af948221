"""Small role mains for the tests of nursery, child and lifeline; reached as `mains:name` with this folder appended."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from broker.errors import RequestError


def note(plain: dict[str, Any]) -> None:
    """Write where it is and what it is."""
    facts = [os.getpid() == os.getpgrp() == os.getsid(0), os.environ["OMP_NUM_THREADS"], sys.path[-1]]
    facts += [os.environ["MALLOC_TOP_PAD_"].isdigit(), "torch" in sys.modules, threading.active_count()]
    Path(plain["file"]).write_text(repr(facts))


def wait(plain: dict[str, Any], ending: threading.Event) -> int:
    """Until it is told to end, in good order."""
    print("waiting", flush=True)
    ending.wait(60)
    print("ended in good order")
    return 0


def deaf(plain: dict[str, Any], ending: threading.Event) -> None:
    """Cannot be persuaded."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(60)


def stuck(plain: dict[str, Any]) -> None:
    """A main that takes no `ending`."""
    print("stuck", flush=True)
    time.sleep(60)


def crash(plain: dict[str, Any]) -> None:
    """Raise."""
    print("so far so good")
    raise ValueError("the last words")


def exits(plain: dict[str, Any]) -> None:
    """Leave as scripts do."""
    sys.exit("no licence is free")


def exits_with_two(plain: dict[str, Any]) -> None:
    """Leave with the status that stands for a wrong request elsewhere."""
    sys.exit(2)


def vanishes(plain: dict[str, Any]) -> None:
    """Leave without a chance for anybody, right after some words."""
    print("the licence server is gone", flush=True)
    os._exit(7)


def segfault(plain: dict[str, Any]) -> None:
    """Crash in native code."""
    ctypes.string_at(0)


def in_a_thread(plain: dict[str, Any]) -> None:
    """Fail because a thread has failed."""
    thread = threading.Thread(target=crash, args=(plain,))
    thread.start()
    thread.join()
    os._exit(1)


def wrong(plain: dict[str, Any]) -> None:
    """Fail as a role whose request was wrong."""
    raise RequestError("learner.device: there is no cuda here")


def commit(plain: dict[str, Any], ending: threading.Event) -> None:
    """Finish something when the end has come."""
    ending.wait(60)
    time.sleep(0.3)
    Path(plain["file"]).write_text("committed")


def daemon() -> int:
    """The pid of a process that has daemonised: it has a session of its own, and its parent is gone."""
    script = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=-3).pid)"
    return int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout)


def leave_daemon(plain: dict[str, Any]) -> None:
    """Leave a daemon behind."""
    Path(plain["file"]).write_text(str(daemon()))


def leave_daemon_at_once(plain: dict[str, Any]) -> None:
    """Leave a daemon behind, without a chance to do anything about it."""
    leave_daemon(plain)
    os._exit(3)


def keep_daemon(plain: dict[str, Any], ending: threading.Event) -> None:
    """Say which daemon it has, and do not hear that it is to end."""
    print(daemon(), flush=True)
    time.sleep(60)


def leave_behind(plain: dict[str, Any]) -> None:
    """Leave a process of its own in the group."""
    child = subprocess.Popen(["sleep", "60"])
    Path(plain["file"]).write_text(str(child.pid))
    child.returncode = 0  # no warning about it
