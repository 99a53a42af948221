"""What a disk can do to a ledger, as errors that say how to mend it.

Invariant: no room is told from damage by trying, so that a full disk never looks like a broken one.
"""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
from contextlib import suppress
from pathlib import Path

from broker.errors import RunError
from broker.files import create

PROBE = 1024 * 1024
"""Bytes that are tried when it is not clear whether there is room."""


class LedgerFull(RunError):  # noqa: N818 - as broker.errors names them
    """There is no room to write; nothing of the transaction was kept, and it can be tried again."""


class LedgerHeld(LedgerFull):
    """Another process writes to the file just now; nothing of the transaction was kept, and it can be tried again."""


class LedgerDamaged(RunError):  # noqa: N818
    """The file is not a ledger that can be read or written."""


def failure(error: sqlite3.Error, path: Path) -> RunError:
    """Our error for one of SQLite's."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and no_room(path)):
        return LedgerFull(f"no room to write {path} ({error}): free some space; the run goes on by itself")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "Could not decode" in str(error):
        return LedgerDamaged(
            f"{path} is damaged ({error}): `headrace mend {path.parent}` keeps the file aside and makes a new one of "
            "what can be read; or start a new run directory"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerHeld(
            f"{path} is held by another process ({error}): close the tool that writes to it; the run goes on by itself"
        )
    return LedgerDamaged(f"{path} cannot be read or written ({error}): check the disk and the folder's permissions")


def no_room(path: Path) -> bool:
    """Whether nothing can be written beside `path`."""
    # SQLite says "disk I/O error" where it could not grow its shared-memory index, where a quota is used up and where a
    # file may grow no further: it is tried what the disk says to bytes of our own.
    probe = path.with_name(f"{path.name}-probe")
    try:
        with os.fdopen(create(probe), "wb") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    finally:
        with suppress(OSError):
            probe.unlink()
    try:  # there is room for these, and was none for what was to be written: a file size limit
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        sizes = [own.stat().st_size for own in path.parent.glob(f"{path.name}*")]
    except OSError:
        return False
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) >= limit - PROBE


def corrupt(text: str) -> sqlite3.DatabaseError:
    """What SQLite would raise, where it was found by us."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
