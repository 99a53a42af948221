"""The ledger: every fact of a run, in the order in which it was made durable (SQLite, WAL, synchronous=FULL).

Invariants: only one process writes it (see `tracker.lock`); positions are 1, 2, 3, ... without holes; of each
(source, incarnation) the sequences are 1, 2, 3, ... in the order of positions; what a `commit()` block wrote is on disk
whole when the block has ended without an error, and not there at all when it ended with one.

The UNIQUE constraint costs a third of the rate (measured, batches of 1,000: 410,000 facts/s without, 270,000 with it,
330,000 with sources interned in a table of their own). It stays: that is still well above what is wanted, the file
keeps the promise by itself, and other tools read one plain table.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from broker.errors import RequestError, RunError
from tracker import schema
from tracker.facts import Row

LEDGER = "ledger.sqlite"
PROBE = 1024 * 1024
"""Bytes that are tried when it is not clear whether there is room."""
CHECKED_WHOLE = 32 * 1024 * 1024
"""A file up to this size (bytes) is checked through when it is opened; a larger one as it is read."""

CHECKED_NEWEST = 1_000
"""Facts that are looked at whatever the file's size."""

_insert = "INSERT INTO facts (source, incarnation, sequence, time, kind, body) VALUES (?, ?, ?, ?, ?, ?)"
_ended_at = "SELECT position FROM ended WHERE fold = ? AND task = ?"
_clear = """DELETE FROM snapshot_parts WHERE rowid IN (SELECT rowid FROM snapshot_parts AS part WHERE NOT EXISTS (
    SELECT 1 FROM snapshots WHERE snapshots.name = part.name AND snapshots.position = part.position) LIMIT ?)"""
_upsert = "INSERT INTO sources VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last_sequence = excluded.last_sequence"

StoredFact = tuple[int, str, str, int, int, str, str]
"""(position, source, incarnation, sequence, time in ns, kind, body as JSON text)"""


class LedgerFull(RunError):  # noqa: N818 - as broker.errors names them
    """There is no room to write; nothing of the transaction was kept, and it can be tried again."""


class LedgerDamaged(RunError):  # noqa: N818
    """The file is not a ledger that can be read or written."""


def _failure(error: sqlite3.Error, path: Path) -> RunError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _no_room(path)):
        return LedgerFull(f"no room to write {path} ({error}): free some space; the run goes on by itself")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return LedgerDamaged(
            f"{path} is damaged ({error}): `headrace mend {path.parent}` keeps the file aside and makes a new one of "
            "what can be read; or start a new run directory"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunError(f"{path} is held by another process ({error}): close the tool that writes to it")
    return LedgerDamaged(f"{path} cannot be read or written ({error}): check the disk and the folder's permissions")


def _no_room(path: Path) -> bool:
    # SQLite says "disk I/O error" where it could not grow its shared-memory index, where a quota is used up and where a
    # file may grow no further: it is tried what the disk says to bytes of our own.
    probe = path.with_name(f"{path.name}-probe")
    try:
        with probe.open("wb") as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    finally:
        probe.unlink(missing_ok=True)
    try:  # there is room for these, and was none for what was to be written: a file size limit
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        sizes = [own.stat().st_size for own in path.parent.glob(f"{path.name}*")]
    except OSError:
        return False
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) >= limit - PROBE


class LedgerReader:
    """A ledger that is only read: by summary, export and watch, also while a tracker writes it."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at `path`. RequestError if there is none or another version, LedgerDamaged if unreadable."""
        self.path = Path(path)
        self.damaged: dict[str, str] = {}
        if not self.path.is_file():
            raise RequestError(f"no ledger at {self.path}: name the directory of a run (it holds {LEDGER})")
        uri = self.path.resolve().as_uri()
        with self._mapped():
            self._connection = self._connect(f"{uri}?mode=ro")
            try:
                self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                # In a folder that cannot be written the WAL index cannot be made; nobody writes there either.
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (
                    sqlite3.SQLITE_CANTOPEN,
                    sqlite3.SQLITE_READONLY,
                ):
                    raise
                self._connection.close()
                self._connection = self._connect(f"{uri}?immutable=1")
        self._check_version()

    @staticmethod
    def _connect(uri: str) -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _failure(error, self.path) from error

    def _check_version(self) -> None:
        with self._mapped():
            found = self.version = schema.version(self._connection)
        if not schema.OLDEST <= found <= schema.VERSION:
            self._connection.close()
            raise RequestError(
                f"{self.path} has ledger version {found}, this Headrace reads versions {schema.OLDEST} to "
                f"{schema.VERSION}: use the Headrace that wrote it, or give another --run-dir"
            )

    @property
    def last_position(self) -> int:
        """The position of the newest fact, 0 if there is none; as positions have no holes, also how many there are."""
        with self._mapped():
            found = self._connection.execute("SELECT max(position) FROM facts").fetchone()[0]
        return int(found or 0)

    def read(self, after: int = 0, limit: int = 10_000) -> list[StoredFact]:
        """Up to `limit` facts with a position above `after`, in order."""
        with self._mapped():
            return self._connection.execute(
                "SELECT * FROM facts WHERE position > ? ORDER BY position LIMIT ?", (after, limit)
            ).fetchall()

    def read_all(self, after: int = 0, through: int | None = None, chunk: int = 10_000) -> Iterator[StoredFact]:
        """Every fact above `after` up to `through` (by default the newest at the first call), a chunk at a time."""
        through = self.last_position if through is None else through
        while after < through:
            rows = self.read(after, min(chunk, through - after))
            if not rows:
                return
            yield from rows
            after = rows[-1][0]

    def last_sequences(self) -> dict[tuple[str, str], int]:
        """For every (source, incarnation) the sequence of its newest fact."""
        with self._mapped():
            rows = self._connection.execute("SELECT source, incarnation, last_sequence FROM sources").fetchall()
        return {(source, incarnation): last for source, incarnation, last in rows}

    def snapshots(self) -> dict[str, tuple[int, Any]]:
        """By a fold's name, the position that its newest snapshot describes, and the snapshot.

        One that cannot be read is left out, and named in `damaged`.
        """
        with self._mapped():
            rows = self._connection.execute("SELECT name, position, state FROM snapshots").fetchall()
        found: dict[str, tuple[int, Any]] = {}
        for name, position, text in rows:
            try:
                found[name] = (position, self._whole(name, position, json.loads(text)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.damaged[name] = f"the snapshot of {name} at position {position} cannot be read ({error!r:.200})"
        return found

    def _whole(self, name: str, position: int, snapshot: dict[str, Any]) -> dict[str, Any]:
        parts = snapshot.pop("parts", 0)
        if parts:
            query = "SELECT state FROM snapshot_parts WHERE name = ? AND position = ? ORDER BY part"
            with self._mapped():
                texts = self._connection.execute(query, (name, position)).fetchall()
            if len(texts) != parts:
                raise ValueError(f"{len(texts)} of {parts} parts are there")
            for (text,) in texts:
                for key, items in json.loads(text).items():
                    snapshot["state"][key].extend(items)
        return snapshot

    def ended_at(self, fold: str, task: str) -> int | None:
        """The position of the fact that ended this task, as `fold` saw it; None if it has no row."""
        if self.version < 2:
            return None  # read as it is: its ids are found again with the facts
        with self._mapped():
            found = self._connection.execute(_ended_at, (fold, task)).fetchone()
        return None if found is None else int(found[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ledger(LedgerReader):
    """The ledger as its one writer holds it. Every write stands within `with ledger.commit():`."""

    def __init__(self, path: Path) -> None:
        """Open or create. RequestError: another version. LedgerDamaged: what is wrong and what to do."""
        self.path = Path(path)
        self.damaged = {}
        with self._mapped():
            self._connection = self._connect(self.path.absolute().as_uri())
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA wal_autocheckpoint = 8192")  # pages: copied every 32 MiB, not every 4
            self._connection.execute("PRAGMA cache_size = -65536")  # KiB: the index's pages stay at hand
            self._create()
        self._check_version()
        if self.path.stat().st_size <= CHECKED_WHOLE:
            self.verify()
        self._sequences = super().last_sequences()
        self._position = super().last_position
        self._check_newest()

    def _create(self) -> None:
        connection = self._connection
        if schema.version(connection) < schema.VERSION:
            connection.execute("BEGIN IMMEDIATE")
            try:
                schema.create(connection)
                connection.execute("COMMIT")
            except sqlite3.Error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def verify(self) -> None:
        """Read the file through; LedgerDamaged says what SQLite found."""
        with self._mapped():
            found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _failure(_corrupt(str(found)), self.path)

    def _check_newest(self) -> None:
        """Whether the newest facts are there and agree with their sources: cheap in a file of any size."""
        said = sum(self._sequences.values())
        if said != self._position:
            raise _failure(_corrupt(f"{self._position} facts are there, of {said} that the sources have"), self.path)
        rows = self.read(max(0, self._position - CHECKED_NEWEST), CHECKED_NEWEST)
        last = {(row[1], row[2]): row[3] for row in rows}
        if len(rows) != min(self._position, CHECKED_NEWEST) or any(
            self._sequences[key] != n for key, n in last.items()
        ):
            raise _failure(_corrupt("the newest facts are not those that the sources have"), self.path)

    @property
    def last_position(self) -> int:
        """The position of the newest fact, 0 if there is none."""
        return self._position

    def last_sequences(self) -> dict[tuple[str, str], int]:
        """For every (source, incarnation) the sequence of its newest fact."""
        return dict(self._sequences)

    @contextmanager
    def commit(self) -> Iterator[None]:
        """One transaction: all that is written within is on disk when it ends, or, after any error, none of it is."""
        before = self._position, dict(self._sequences)
        with self._mapped():
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._position, self._sequences = before
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def append(self, batch: Sequence[Row]) -> range:
        """Append facts in order and give their positions. ValueError if one is not the next of its source."""
        sequences = self._sequences
        touched: set[tuple[str, str]] = set()
        key = ("", "")
        expected = 0
        for row in batch:
            if row[0] != key[0] or row[1] != key[1]:
                if expected:
                    sequences[key] = expected
                key = (row[0], row[1])
                expected = sequences.get(key, 0)
                touched.add(key)
            expected += 1
            if row[2] != expected:
                raise ValueError(f"fact {row[2]} of {row[0]} ({row[1]}) is out of order: {expected} is the next")
        if expected:
            sequences[key] = expected
        self._connection.executemany(_insert, batch)
        self._connection.executemany(_upsert, [(*key, sequences[key]) for key in touched])
        first = self._position + 1
        self._position += len(batch)
        return range(first, self._position + 1)

    def store_ended(self, rows: Iterable[tuple[str, str, int]]) -> None:
        """Keep ids of tasks that ended: (fold, id, position of the fact that ended it)."""
        self._connection.executemany("INSERT OR IGNORE INTO ended VALUES (?, ?, ?)", rows)

    def settle(self, rows: Iterable[tuple[str, str, int]]) -> bool:
        """`store_ended` in a commit of its own; False where there is no room, and they must be kept in mind."""
        try:
            with self.commit():
                self.store_ended(rows)
        except LedgerFull:
            return False
        return True

    def store_parts(self, position: int, parts: Iterable[tuple[str, int, str]]) -> None:
        """Keep parts (name, number, text) of snapshots that describe `position`. They count from `store_heads` on."""
        rows = [(name, position, number, part) for name, number, part in parts]
        self._connection.executemany("INSERT INTO snapshot_parts VALUES (?, ?, ?, ?)", rows)

    def clear_parts(self, most: int) -> bool:
        """Remove up to `most` parts that belong to no snapshot. True if there may be more."""
        return self._connection.execute(_clear, (most,)).rowcount == most

    def store_heads(self, position: int, heads: Mapping[str, str]) -> None:
        """Make the parts that are stored the newest snapshots, in place of the older ones."""
        rows = [(name, position, head) for name, head in heads.items()]
        self._connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", rows)

    def store_snapshots(self, snapshots: Mapping[str, Any], position: int) -> None:
        """Keep each fold's snapshot, which describes the facts up to `position`, in place of its older one."""
        rows = [(name, position, json.dumps(state, allow_nan=False)) for name, state in snapshots.items()]
        self._connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", rows)

    def close(self) -> None:
        """Fold the WAL into the file, so that one file holds the run, and close it."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the WAL stays beside the file, and is as good
        finally:
            self._connection.close()


def _corrupt(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
