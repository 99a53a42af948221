"""Files of a run: opened only where they are regular files of their owner, and written whole or not at all.

Invariants: opening a file follows no link, waits for nobody (a FIFO) and reads no more than its bound; a file that is
created can be read by its owner alone. So what others put into a folder can neither hang a command, nor fill its
memory, nor lead a write elsewhere.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from broker.errors import RequestError

PARTIAL = ".partial"
"""What a file is called while it is written."""
PRIVATE = 0o600
SMALL = 1024 * 1024
"""Bytes: the default bound of a file that is read whole."""


def check(path: Path, most: int | None = None) -> None:
    """RequestError unless `path` is a regular file of at most `most` bytes, of this user or its folder's owner.

    OSError as of `lstat`, for example where there is none.
    """
    _judge(path, path.lstat(), most)


def open_file(path: Path, flags: int = os.O_RDONLY, most: int | None = None) -> int:
    """Open (or, with O_CREAT, create) a file as a descriptor. RequestError as of `check`; OSError as of `os.open`."""
    try:
        check(path, most)  # before it is opened: opening a device may do something to it
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, PRIVATE)
    try:
        _judge(path, os.fstat(descriptor), most)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read(path: Path, most: int = SMALL) -> bytes:
    """The content of a file. RequestError as of `check`."""
    with os.fdopen(open_file(path, most=most), "rb") as file:
        return file.read(most)


def create(path: Path) -> int:
    """A new empty file as a descriptor for writing, in place of one that was left there. RequestError as of `check`."""
    with suppress(FileNotFoundError):
        check(path)
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)


def write_whole(path: Path, content: bytes) -> None:
    """The file under its name, with all of its content on disk. That the name stays needs `sync_folder`."""
    with suppress(FileNotFoundError):
        check(path)
    partial = path.with_name(path.name + PARTIAL)
    with os.fdopen(create(partial), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def sync(path: Path) -> None:
    """What was written into a file is on disk."""
    descriptor = open_file(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """What was renamed or removed there stays so, also after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """A folder that its owner alone may enter, or the one that is there. RequestError if it is a link."""
    path.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise RequestError(f"{path} is a link: put the folder itself there, or choose another --run-dir")


def _judge(path: Path, status: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        wrong = f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a regular file"
    elif status.st_uid not in {os.geteuid(), path.parent.stat().st_uid}:
        wrong = f"belongs to another user (uid {status.st_uid})"
    elif most is not None and status.st_size > most:
        wrong = f"has {status.st_size:,} bytes, which is more than such a file can have ({most:,})"
    else:
        return
    raise RequestError(f"{path} {wrong}: remove it, or name another directory")


_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
