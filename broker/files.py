"""Files of a run: only regular files of their owner are opened, and a file is written whole or not at all.

Invariants: opening a file follows no link and never waits (as a FIFO would make it); reading stops at the file's bound;
only the owner can read a file that is created here. So files that others put into a folder can neither hang a command,
nor fill its memory, nor redirect a write.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from broker.errors import RequestError

PARTIAL = ".partial"
"""Suffix of a file's name while it is written."""
PRIVATE = 0o600
SMALL = 1024 * 1024
"""Default bound, in bytes, of a file that is read whole."""


def check(path: Path, most: int | None = None) -> None:
    """Raise a RequestError unless `path` is a regular file of at most `most` bytes that this user or the folder's
    owner owns. Raises the OSErrors of `lstat`, for example if there is no such file.
    """
    _judge(path, path.lstat(), most)


def open_file(path: Path, flags: int = os.O_RDONLY, most: int | None = None) -> int:
    """Open (or, with O_CREAT, create) a file and return its descriptor. Raises as `check` and `os.open` do."""
    try:
        check(path, most)  # before opening: opening a device can have an effect on it
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
    """Return the content of a file. Raises as `check` does."""
    with os.fdopen(open_file(path, most=most), "rb") as file:
        return file.read(most)


def create(path: Path) -> int:
    """Create an empty file, replacing one of the same name, and return its descriptor. Raises as `check` does."""
    with suppress(FileNotFoundError):
        check(path)
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that its name always has the whole content, synced to disk. `sync_folder` makes the name last."""
    with suppress(FileNotFoundError):
        check(path)
    partial = path.with_name(path.name + PARTIAL)
    with os.fdopen(create(partial), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def sync(path: Path) -> None:
    """Sync the content of a file to disk."""
    descriptor = open_file(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that renames and removals in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter, unless it exists. RequestError if it is a link."""
    path.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise RequestError(f"{path} is a link: put the folder itself there, or choose another directory")


def _judge(path: Path, status: os.stat_result, most: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        wrong = f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a regular file"
    elif status.st_uid not in {os.geteuid(), path.parent.stat().st_uid}:
        wrong = f"belongs to another user (uid {status.st_uid})"
    elif most is not None and status.st_size > most:
        wrong = f"has {status.st_size:,} bytes, and such a file has at most {most:,}"
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
