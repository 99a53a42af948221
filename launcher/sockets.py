"""The private folder of a launch's unix sockets, and the folders that launches which were killed left behind.

Invariant: a folder is short (a unix socket's path has at most 107 bytes), ours alone (0700), new for each launch, and
gone at its end. Others remove it only when its launcher, which the file `owner` in it names, is gone.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from broker import files
from broker.errors import RequestError
from launcher.host import process_start

PREFIX = "hr-"
OWNER = "owner"
MAX_PATH = 60
"""Bytes of a folder's path."""
STALE_SECONDS = 60.0
_NAME = len(f"{PREFIX}{'x' * 12}-{'y' * 8}/")


def make(name: str) -> Path:
    """A new folder for the sockets of a run of this name. RequestError says where none can be made, and why."""
    refused = []
    for label, base in _bases():
        try:
            if not base.is_absolute():
                raise OSError(0, "it is no absolute path")
            if len(os.fsencode(base)) > MAX_PATH - _NAME:
                raise OSError(0, f"its path has more than {MAX_PATH - _NAME} bytes")
            folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name[:12]}-", dir=base))
            try:
                files.write_whole(folder / OWNER, f"{os.getpid()} {process_start(os.getpid())}\n".encode())
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except OSError as error:
            refused.append(f"{label}{base}: {error.strerror}")
        else:
            return folder
    raise RequestError(
        f"no folder can be made for the run's sockets ({'; '.join(refused)}): set XDG_RUNTIME_DIR to a folder of yours "
        f"whose path has at most {MAX_PATH - _NAME} bytes"
    )


def _bases() -> Iterator[tuple[str, Path]]:
    """Where folders are made: the user's runtime folder, or where that cannot be used a temporary one."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield "XDG_RUNTIME_DIR=", Path(runtime)
    yield "", Path("/tmp")  # noqa: S108 - mkdtemp above is private


def owner(folder: Path) -> int | None:
    """The process of the launcher that made this folder, or None if it is gone: also if its number is another's now."""
    pid, start = map(int, files.read(folder / OWNER, 64).split())
    return pid if process_start(pid) == start else None


def sweep(folder: Path) -> None:
    """Remove a sockets' folder, if it is one of ours (name, owner, the file `owner` in it) and no link."""
    with suppress(OSError):
        if _is_ours(folder) and (folder / OWNER).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def sweep_stale() -> None:
    """Remove the folders of launchers that are gone for a minute or more."""
    for _, base in _bases():
        with suppress(OSError):
            for folder in base.glob(f"{PREFIX}*"):
                with suppress(OSError, ValueError, RequestError):
                    old = time.time() - folder.lstat().st_mtime > STALE_SECONDS
                    if old and _is_ours(folder) and owner(folder) is None:
                        sweep(folder)


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    return folder.name.startswith(PREFIX) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
