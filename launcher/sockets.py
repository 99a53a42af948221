"""The private folder for a launch's unix sockets, and removal of folders that killed launches left behind.

Invariants: a folder's path is short (a unix socket's path has at most 107 bytes); only this user may enter it (0700);
each launch makes a new one and removes it at its end; other launches remove it only if its launcher, which the file
`owner` in it names, has ended.
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
"""Most bytes of a folder's path."""
STALE_SECONDS = 60.0
_NAME = len(f"{PREFIX}{'x' * 12}-{'y' * 8}/")


def make(name: str) -> Path:
    """Make a new folder for the sockets of a run of this name. RequestError says where it failed, and why."""
    refused = []
    for label, base in _bases():
        try:
            if not base.is_absolute():
                raise OSError(0, "it is not an absolute path")
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
        f"cannot make a folder for the run's sockets ({'; '.join(refused)}): set XDG_RUNTIME_DIR to a folder of yours "
        f"whose path has at most {MAX_PATH - _NAME} bytes"
    )


def _bases() -> Iterator[tuple[str, Path]]:
    """Yield where to make folders: the user's runtime folder, and the temporary folder if that cannot be used."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield "XDG_RUNTIME_DIR=", Path(runtime)
    yield "", Path("/tmp")  # noqa: S108 - mkdtemp above is private


def owner(folder: Path) -> int | None:
    """Return the pid of the launcher that made this folder; None if it has ended, even if its pid is in use again."""
    pid, start = map(int, files.read(folder / OWNER, 64).split())
    return pid if process_start(pid) == start else None


def sweep(folder: Path) -> None:
    """Remove a folder of sockets, unless it is a link or its name, owner or file `owner` is not a launcher's."""
    with suppress(OSError):
        if _is_ours(folder) and (folder / OWNER).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def sweep_stale() -> None:
    """Remove folders that are older than a minute and whose launchers have ended."""
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
