"""A ledger that is only read: by summary, export and watch, also while a tracker writes it.

Invariant: reading changes nothing in the file; what cannot be read is an error that says so, but for snapshots, which
can be made anew from the facts: those are left out and named.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from broker import files
from broker.clock import LATEST, born
from broker.errors import RequestError
from tracker import schema
from tracker.disk import corrupt, failure
from tracker.facts import TRACKER

LEDGER = "ledger.sqlite"
BESIDE = ("-wal", "-shm", "")
"""Suffixes of a ledger's files, that of the ledger itself last."""
CHECKED_NEWEST = 1_000
"""Facts that `check_newest` looks at."""
_ended_at = "SELECT position FROM ended WHERE fold = ? AND task = ?"

StoredFact = tuple[int, str, str, int, int, str, str]
"""(position, source, incarnation, sequence, time in ns, kind, body as JSON text)"""


def mending(path: Path) -> Path:
    """What says, while it is there, that the ledger is being exchanged for one that was mended."""
    return path.with_name(f"{path.name}.mending")


def check_mended(path: Path) -> None:
    """RequestError if `headrace mend` was cut short: what stands here may be half of a ledger, or none."""
    if mending(path).exists():
        raise RequestError(f"{path} was being mended when that was cut short: run `headrace mend {path.parent}` again")


def check_files(path: Path) -> bool:
    """Tell whether there is a ledger. RequestError if one of its files is not a regular file of its owner."""
    exists = False
    for suffix in BESIDE:
        try:
            files.check(Path(f"{path}{suffix}"))
            exists = True
        except FileNotFoundError:
            exists = False
    return exists  # about the last file, the ledger itself


class LedgerReader:
    """A ledger that is only read: by summary, export and watch, also while a tracker writes it."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at `path`. RequestError if there is none or another version, LedgerDamaged if unreadable."""
        self.path = Path(path)
        self.damaged: dict[str, str] = {}
        check_mended(self.path)
        if not check_files(self.path):
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
            raise failure(error, self.path) from error

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

    def newest_time(self) -> int:
        """Return the latest time, by the run's clock, among the tracker's facts and all incarnations; 0 without any."""
        with self._mapped():
            # The unary plus keeps SQLite from using another index: one of the newest facts is from the tracker.
            query = "SELECT time FROM facts WHERE +source = ? ORDER BY position DESC LIMIT 1"
            decided = self._connection.execute(query, (TRACKER,)).fetchone()
        readings = [*(decided or ()), *(born(incarnation) for _, incarnation in self.last_sequences())]
        return max((reading for reading in readings if reading < LATEST), default=0)

    def last_sequence(self, source: str, incarnation: str) -> int:
        """Return the sequence of the newest fact of this (source, incarnation); 0 without a fact."""
        query = "SELECT last_sequence FROM sources WHERE source = ? AND incarnation = ?"
        with self._mapped():
            row = self._connection.execute(query, (source, incarnation)).fetchone()
        return 0 if row is None else int(row[0])

    def snapshots(self) -> dict[str, tuple[int, Any]]:
        """By a fold's name, the position that its newest snapshot describes, and the snapshot.

        One that cannot be read is left out, and named in `damaged`.
        """
        found: dict[str, tuple[int, Any]] = {}
        with self._mapped(), self._at_one_moment():
            for name, position, text in self._connection.execute(
                "SELECT name, position, state FROM snapshots"
            ).fetchall():
                try:
                    found[name] = (position, self._whole(name, position, json.loads(text)))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    self.damaged[name] = (
                        f"the snapshot of {name} at position {position} cannot be read ({error!r:.200})"
                    )
        return found

    @contextmanager
    def _at_one_moment(self) -> Iterator[None]:
        """Reading several rows as of one commit: a tracker may replace them meanwhile."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def _whole(self, name: str, position: int, snapshot: dict[str, Any]) -> dict[str, Any]:
        parts = snapshot.pop("parts", 0)
        if parts:
            query = "SELECT state FROM snapshot_parts WHERE name = ? AND position = ? ORDER BY part"
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

    def verify(self) -> None:
        """Read the file through; LedgerDamaged says what SQLite found."""
        with self._mapped():
            found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise failure(corrupt(str(found)), self.path)

    def check_newest(self) -> None:
        """LedgerDamaged unless the newest facts are there and agree with their sources: cheap at any size."""
        sequences, position = self.last_sequences(), self.last_position
        said = sum(sequences.values())
        if said != position:
            raise failure(corrupt(f"{position} facts are there, of {said} that the sources have"), self.path)
        rows = self.read(max(0, position - CHECKED_NEWEST), CHECKED_NEWEST)
        last = {(row[1], row[2]): row[3] for row in rows}
        if len(rows) != min(position, CHECKED_NEWEST) or any(sequences.get(key) != n for key, n in last.items()):
            raise failure(corrupt("the newest facts are not those that the sources have"), self.path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
