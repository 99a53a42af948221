"""Small role mains for the tests of nursery, child and lifeline; reached as `mains:name` with this folder appended."""

from __future__ import annotations

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


def wrong(plain: dict[str, Any]) -> None:
    """Was asked for what cannot be."""
    raise RequestError("learner.device: there is no cuda here")


def commit(plain: dict[str, Any], ending: threading.Event) -> None:
    """Finish something when the end has come."""
    ending.wait(60)
    time.sleep(0.3)
    Path(plain["file"]).write_text("committed")


def leave_behind(plain: dict[str, Any]) -> None:
    """Leave a process of its own in the group."""
    child = subprocess.Popen(["sleep", "60"])
    Path(plain["file"]).write_text(str(child.pid))
    child.returncode = 0  # no warning about it
