"""What this host gives to a child process, and what a child takes of it.

Invariant: a child's environment is set before it starts (glibc and OpenMP read theirs once), and a user's modules never
come before ours on its path.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from broker.files import open_file

MEGABYTE = 1024 * 1024

CHILD_VARIABLES: Mapping[str, str] = {
    # One thread a role: two are slower for small networks and collapse on a busy machine.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Big frames come from the heap and stay there: fresh pages for each were half of a broadcast's cost.
    # 32 MiB is the highest threshold that glibc takes.
    "MALLOC_MMAP_THRESHOLD_": str(32 * MEGABYTE),
    "MALLOC_TRIM_THRESHOLD_": str(128 * MEGABYTE),
    "MALLOC_TOP_PAD_": str(4 * MEGABYTE),
    # Nothing from the current folder may shadow our modules.
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
}


def start(
    arguments: Sequence[str],
    orders: Mapping[str, Any],
    descriptors: Sequence[int],
    log: Path | IO[bytes],
    errors: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """A child in a session of its own, with plain orders as JSON on its standard input.

    Its output is appended to `log`, its errors too or to `errors`.
    """
    with ExitStack() as files:
        given = files.enter_context(tempfile.TemporaryFile())
        given.write(json.dumps(orders).encode())  # a file, not a pipe: a child that never reads cannot block us
        given.seek(0)
        out = files.enter_context(open_log(log)) if isinstance(log, Path) else log
        return subprocess.Popen(
            arguments,
            stdin=given,
            stdout=out,
            stderr=out if errors is None else errors,
            env=dict(os.environ) | dict(CHILD_VARIABLES),
            pass_fds=descriptors,
            start_new_session=True,
        )


def open_log(log: Path) -> IO[bytes]:
    """Open a log for appending and reading. Makes its folder again if it was removed."""
    log.parent.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(open_file(log, os.O_RDWR | os.O_APPEND | os.O_CREAT), "ab+", buffering=0)


def process_start(pid: int) -> int | None:
    """Return when a process was created, in the kernel's ticks since boot, which setting a clock does not change.

    None if there is no such process, or only a zombie. Together with the pid the time identifies a process for ever.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None if sys.platform == "linux" else _start_elsewhere(pid)
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def _start_elsewhere(pid: int) -> int | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.Error:
        return None


def append_folder(folder: str | None) -> None:
    """Put the folder of the user's modules last on this process's path."""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def set_title(name: str) -> None:
    """Show the role's name in `ps` and `top` (Linux; 15 characters)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(15, name.encode()[:15], 0, 0, 0)


@dataclass(frozen=True)
class Usage:
    """What one process takes: proportional memory where the kernel tells it (else resident), and its processor time."""

    memory_mb: float
    processor_seconds: float


def usage(pid: int) -> Usage | None:
    """The usage of a process of ours, or None when it is gone."""
    import psutil  # here, because a child takes this module too and has no use for it

    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        try:
            memory = process.memory_full_info().pss
        except (psutil.AccessDenied, AttributeError):
            memory = process.memory_info().rss
    except psutil.Error:
        return None
    return Usage(memory / MEGABYTE, times.user + times.system)
