"""Detection of ledger files that another process removed, replaced or overwrote.

SQLite goes on writing into a file that was unlinked, and into a WAL whose beginning was overwritten: what it then
reports as committed is lost when the process ends. So the identity, length, first bytes and modification time of the
files are compared between two writes, in a few microseconds. Another identity, or first bytes that SQLite does not
write, prove damage. Other changes do not: a process that copies the WAL into the ledger (a backup tool, or a program
that adds a view) changes lengths and headers too. Then the ledger must be read through.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from broker import files

HEAD = 100
"""Bytes of a ledger's header, which SQLite's checkpoints change."""
FIXED = 24
"""Bytes of it that do not change while the ledger is open: the magic string, page size and format."""
WAL_MAGIC = b"\x37\x7f\x06"
WAL_HEAD = 32
"""Bytes of a WAL's header, which change when it starts over; the last 8 are a checksum of the others."""


@dataclass(slots=True)
class _File:
    path: Path
    descriptor: int | None
    """For reading the first bytes. None for the shared memory: closing it would release SQLite's locks on it."""
    identity: tuple[int, int]
    size: int = 0
    modified: int = 0
    """Modification time in ns since 1970."""
    head: bytes = b""


class LedgerFiles:
    """The state of a ledger's files after this process's last write."""

    def __init__(self, path: Path) -> None:
        """Open the ledger's descriptor. Call this before SQLite opens it: closing one later would release its locks."""
        self._path = path
        self._ledger = files.open_file(path)
        self._files: list[_File] = []

    def begin(self) -> None:
        """Read the state of all files for the first time, after SQLite has opened them."""
        wal = files.open_file(Path(f"{self._path}-wal"))
        descriptors = {"": self._ledger, "-wal": wal, "-shm": None}
        for suffix, descriptor in descriptors.items():
            path = Path(f"{self._path}{suffix}")
            status = path.stat()
            file = _File(path, descriptor, (status.st_dev, status.st_ino))
            self._files.append(file)
        self.written()

    def written(self) -> None:
        """Read the state of the files again, after a write of this process."""
        for file in self._files:
            if file.descriptor is not None:
                status = os.fstat(file.descriptor)
                file.size, file.modified = status.st_size, status.st_mtime_ns
                file.head = os.pread(file.descriptor, HEAD, 0)

    def change(self) -> str:
        """Describe a change since this process's last write; "" without one."""
        for file in self._files:
            try:
                status = file.path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return f"{file.path} was removed"
            except OSError:
                continue  # the system cannot tell at the moment
            if (status.st_dev, status.st_ino) != file.identity:
                return f"{file.path} was replaced by another file"
            if file.descriptor is not None and not _is_whole(os.pread(file.descriptor, HEAD, 0), file.head):
                return self.cut or f"{file.path} was overwritten"
        return ""

    @property
    def cut(self) -> str:
        """Description of a file that is shorter than this process left it; "" without one."""
        for file in self._files:
            if file.descriptor is not None and (size := os.fstat(file.descriptor).st_size) < file.size:
                return f"{file.path} was cut from {file.size:,} to {size:,} bytes"
        return ""

    @property
    def modified(self) -> str:
        """Description of a change by another process, by first bytes and modification times; "" without one."""
        for file in self._files:
            if file.descriptor is not None:
                changed = os.fstat(file.descriptor).st_mtime_ns != file.modified
                if changed or os.pread(file.descriptor, HEAD, 0) != file.head:
                    return f"{self._path} or its WAL was overwritten"
        return ""

    def close(self) -> None:
        """Close the descriptors, after SQLite has closed the ledger."""
        for descriptor in {self._ledger, *(file.descriptor for file in self._files)}:
            if descriptor is not None:
                os.close(descriptor)
        self._files.clear()


def _is_whole(head: bytes, before: bytes) -> bool:
    """Tell whether a file still begins as SQLite writes it. A WAL may be empty: its content is then in the ledger."""
    if before.startswith(b"SQLite format 3"):
        return head[:FIXED] == before[:FIXED]
    begins = head.startswith(WAL_MAGIC) and len(head) >= WAL_HEAD
    return not head or (begins and head[WAL_HEAD - 8 : WAL_HEAD] == _wal_sum(head[: WAL_HEAD - 8]))


def _wal_sum(head: bytes) -> bytes:
    """Compute the checksum in a WAL's header (https://sqlite.org/fileformat2.html#checksum_algorithm)."""
    order: Literal["little", "big"] = "big" if head[3] & 1 else "little"
    first = second = 0
    for at in range(0, len(head), 8):
        first = (first + int.from_bytes(head[at : at + 4], order) + second) % 2**32
        second = (second + int.from_bytes(head[at + 4 : at + 8], order) + first) % 2**32
    return first.to_bytes(4, "big") + second.to_bytes(4, "big")
