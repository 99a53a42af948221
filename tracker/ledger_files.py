"""Whether the ledger's files are still those that this process writes: nobody else removed, replaced or overwrote them.

SQLite goes on writing into a file that was unlinked, and into a WAL whose beginning was overwritten: what it says is
committed is then gone with the process. So the files are looked at between two writes, for some microseconds: identity,
length, first bytes, and time of modification. Another identity, or first bytes that are none of SQLite's, prove damage.
The others do not: a process that copies the WAL into the ledger (a backup tool, any program that writes a view of its
own) changes lengths and headers too. Then the ledger is to be read through.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from broker import files

HEAD = 100
"""Bytes of SQLite's header, which a checkpoint changes."""
FIXED = 24
"""Bytes of it that stay the same as long as the ledger is open: the magic string, page size and format."""
WAL_MAGIC = b"\x37\x7f\x06"
WAL_HEAD = 32
"""Bytes of a WAL's header, which change when it begins again; the last 8 are a sum of the others."""


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
            if file.descriptor is not None and not _is_whole(os.pread(file.descriptor, HEAD, 0), file.head):
                return self.cut or f"{file.path} was overwritten"
        return ""

    @property
    def cut(self) -> str:
        """Which file is shorter than this process left it."""
        for file in self._files:
            if file.descriptor is not None and (size := os.fstat(file.descriptor).st_size) < file.size:
                return f"{file.path} was cut from {file.size:,} to {size:,} bytes"
        return ""

    @property
    def modified(self) -> str:
        """What another process may have written to, by the first bytes and the time of modification."""
        for file in self._files:
            if file.descriptor is not None:
                changed = os.fstat(file.descriptor).st_mtime_ns != file.modified
                if changed or os.pread(file.descriptor, HEAD, 0) != file.head:
                    return f"{self._path} or its WAL was overwritten"
        return ""

    def close(self) -> None:
        """After SQLite has closed the ledger."""
        for descriptor in {self._ledger, *(file.descriptor for file in self._files)}:
            if descriptor is not None:
                os.close(descriptor)
        self._files.clear()


def _is_whole(head: bytes, before: bytes) -> bool:
    """Whether a file still begins as SQLite writes it. A WAL may be empty: its content is in the ledger then."""
    if before.startswith(b"SQLite format 3"):
        return head[:FIXED] == before[:FIXED]
    begins = head.startswith(WAL_MAGIC) and len(head) >= WAL_HEAD
    return not head or (begins and head[WAL_HEAD - 8 : WAL_HEAD] == _wal_sum(head[: WAL_HEAD - 8]))


def _wal_sum(head: bytes) -> bytes:
    """The checksum in a WAL's header (https://sqlite.org/fileformat2.html#checksum_algorithm)."""
    order: Literal["little", "big"] = "big" if head[3] & 1 else "little"
    first = second = 0
    for at in range(0, len(head), 8):
        first = (first + int.from_bytes(head[at : at + 4], order) + second) % 2**32
        second = (second + int.from_bytes(head[at + 4 : at + 8], order) + first) % 2**32
    return first.to_bytes(4, "big") + second.to_bytes(4, "big")
