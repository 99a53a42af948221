"""Room for the end of a run, kept from its beginning: a file that is given up when the disk is full as the run ends.

Invariant: while the run goes on the room is there, really allocated, or nothing is; the file holds nothing of the run,
and is gone when the run has ended.
"""

from __future__ import annotations

import os
from pathlib import Path

from broker.files import open_file

FILE = "reserve"
SIZE = 8 * 1024 * 1024
"""Bytes: the last facts of all sources, the last snapshot and the summary of an ordinary run fit in."""


class Reserve:
    """The reserve of one run directory."""

    def __init__(self, directory: Path, size: int = SIZE) -> None:
        self._path = directory / FILE
        self._size = size

    def hold(self) -> bool:
        """Take the room, or keep what an earlier tracker took. False where there is none: the run can go on without."""
        try:
            # The file is not truncated first: on a full disk its space might not be available again.
            file = open_file(self._path, os.O_WRONLY | os.O_CREAT)
            try:
                os.posix_fallocate(file, 0, self._size)
            finally:
                os.close(file)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Give the room up. True if there was any."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
