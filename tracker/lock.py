"""One tracker per run: an exclusive lock on `run.lock`, taken before anything else is opened or bound.

Invariant: the lock is the kernel's (`flock`), so it ends with its holder, however that ends; the file's content (the
holder's pid) is only there to be named in a message, and a file that was left behind hinders nobody.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from broker import files
from broker.errors import RequestError

LOCK = "run.lock"


class RunLock:
    """The lock on a run directory, held until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        """Take it. RequestError names the process that holds it, or why the file cannot be opened."""
        self.path = Path(directory) / LOCK
        try:
            self._file = files.open_file(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise RequestError(f"cannot open {self.path}: {error.strerror}; check the run directory") from error
        try:
            self._take()
        except OSError as error:
            os.close(self._file)
            pid = holder(directory)
            raise RequestError(
                f"the run in {Path(directory)} already has a tracker{f' (process {pid})' if pid else ''}: wait until "
                "that run has ended, stop it, or give another --run-dir"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def _take(self) -> None:
        # `is_held` holds the lock for some microseconds while it looks: that is not a tracker.
        for _ in range(20):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.01)
            else:
                return
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Give it back; the file stays (removing it could take a successor's lock from under it)."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(directory: Path) -> int | None:
    """The pid written in the lock file, if there is one."""
    try:
        return int(files.read(Path(directory) / LOCK, 64).split()[0])
    except (OSError, ValueError, IndexError):
        return None


def is_held(directory: Path) -> bool:
    """Whether a tracker holds the run directory just now. Looks without taking: a shared lock, given back at once."""
    try:
        file = files.open_file(Path(directory) / LOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False
