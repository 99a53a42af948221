"""Whether the ledger's files are still those that this process writes: nobody else removed, replaced or overwrote them.

SQLite goes on writing into a file that was unlinked, and into a WAL whose beginning was overwritten: what it says is
committed is then gone with the process. So the files are looked at between two writes, for some microseconds: identity,
length, first bytes, and time of modification. Only the last of these proves nothing (`touch`): then the ledger is to be
read through.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from broker import files

HEAD = 100
"""Bytes of SQLite's header, which a checkpoint changes; a WAL's has 32, which change when it begins again."""


@dataclass(slots=True)
class _File:
    path: Path
    descriptor: int | None
    """For the first bytes. None for the shared memory: closing it would give up the locks that SQLite holds on it."""
    identity: tuple[int, int]
    size: int = 0
    modified: int = 0
    """ns since 1970"""
    head: bytes = b""


class LedgerFiles:
    """A ledger's files as this process last wrote them."""

    def __init__(self, path: Path) -> None:
        """Before SQLite opens the ledger: closing a descriptor of it gives up SQLite's locks on it."""
        self._path = path
        self._ledger = files.open_file(path)
        self._files: list[_File] = []

    def begin(self) -> None:
        """Look at all of them for the first time: SQLite has opened them."""
        wal = files.open_file(Path(f"{self._path}-wal"))
        descriptors = {"": self._ledger, "-wal": wal, "-shm": None}
        for suffix, descriptor in descriptors.items():
            path = Path(f"{self._path}{suffix}")
            status = path.stat()
            file = _File(path, descriptor, (status.st_dev, status.st_ino))
            self._files.append(file)
        self.written()

    def written(self) -> None:
        """Take what the files are now for right: this process has written."""
        for file in self._files:
            if file.descriptor is not None:
                status = os.fstat(file.descriptor)
                file.size, file.modified = status.st_size, status.st_mtime_ns
                file.head = os.pread(file.descriptor, HEAD, 0)

    def change(self) -> str:
        """What befell the files since this process last wrote; "" as long as they are as it left them."""
        for file in self._files:
            try:
                status = file.path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return f"{file.path} was removed"
            except OSError:
                continue  # it cannot be looked at just now
            if (status.st_dev, status.st_ino) != file.identity:
                return f"{file.path} was replaced by another file"
            if status.st_size < file.size:
                return f"{file.path} was cut from {file.size:,} to {status.st_size:,} bytes"
            if file.descriptor is not None and os.pread(file.descriptor, HEAD, 0) != file.head:
                return f"{file.path} was overwritten"
        return ""

    @property
    def modified(self) -> bool:
        """Whether another process may have written to them, by their time of modification."""
        descriptors = [(file.descriptor, file.modified) for file in self._files]
        return any(fd is not None and os.fstat(fd).st_mtime_ns != modified for fd, modified in descriptors)

    def close(self) -> None:
        """After SQLite has closed the ledger."""
        for descriptor in {self._ledger, *(file.descriptor for file in self._files)}:
            if descriptor is not None:
                os.close(descriptor)
        self._files.clear()
