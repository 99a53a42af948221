"""A ledger of version 1, written by the code of version 1 (`version_1.sql` is its dump), in the hands of this one."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from broker.errors import RequestError
from tests.flow.running import assert_folds_equal_rebuild
from tracker import schema
from tracker.folds import Folds
from tracker.ledger import Ledger, LedgerDamaged, LedgerReader
from tracker.standard import standard_folds
from tracker.standings import Standings
from tracker.summary import summarise
from tracker.tasks import Tasks

FACTS = 37
COUNTS = [4, 3, 1, 0, 0, 1, 0, 0]
"""Of tasks, as version 1 counted them: minted, done, failed, evicted, returned, late, duplicates, unknown."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(Path(__file__).with_name("version_1.sql").read_text())
    connection.close()
    return path


def content(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as connection:
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in ("facts", "sources")}
        found["version"] = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return found


def folds_of(ledger: LedgerReader) -> Folds:
    folds = standard_folds()
    folds.restore(ledger, settle=ledger.settle if isinstance(ledger, Ledger) else None)
    return folds


def test_it_is_read_as_it_is(old: Path) -> None:
    before = content(old)
    assert before["version"] == (1,)
    summary = summarise(old.parent)
    assert (summary["facts"]["stored"], summary["episodes"]) == (FACTS, 13)
    assert [summary["tasks"][name] for name in ("minted", "done", "failed")] == COUNTS[:3]
    assert content(old) == before


def test_it_is_migrated_in_place(old: Path) -> None:
    before = content(old)
    ledger = Ledger(old)
    folds = folds_of(ledger)
    tasks, standings = folds.folds["tasks"], folds.folds["standings"]
    assert isinstance(tasks, Tasks)
    assert isinstance(standings, Standings)
    assert tasks.snapshot()["counts"] == COUNTS
    assert standings.episodes == 13
    assert folds.flaws == []  # snapshots of an older fold are no damage
    assert tasks.knows("t0")
    with ledger.commit():
        ledger.store_ended(folds.fresh_ended())
        ledger.store_snapshots(folds.snapshots(), folds.position)
    folds.forget_ended()
    assert tasks.knows("t0")
    ledger.close()
    after = content(old)
    assert after.pop("version") == (schema.VERSION,)
    assert after == {"facts": before["facts"], "sources": before["sources"]}
    assert_folds_equal_rebuild(old)
    Ledger(old).close()  # once is enough
    with sqlite3.connect(old) as connection:
        assert connection.execute("SELECT count(*) FROM episodes").fetchone() == (13,)
        assert connection.execute("SELECT task, state FROM tasks WHERE policy = 'p' ORDER BY task").fetchall() == [
            ("t0", "done"), ("t1", "done"), ("t2", "failed"), ("t3", "done"),
        ]  # fmt: skip
    connection.close()


def test_views_of_version_2_are_made_anew(tmp_path: Path) -> None:
    for name in ("fresh", "older"):
        Ledger(tmp_path / name).close()
    with sqlite3.connect(tmp_path / "older") as connection:
        connection.execute("DROP VIEW tasks")
        connection.execute("CREATE VIEW tasks AS SELECT 1 AS task")
        connection.execute("DROP INDEX facts_of_kind")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    Ledger(tmp_path / "older").close()

    def made(name: str) -> Any:
        with sqlite3.connect(tmp_path / name) as connection:
            found = set(connection.execute("SELECT name, sql FROM sqlite_master").fetchall())
            version = connection.execute("PRAGMA user_version").fetchone()
        connection.close()
        return found, version

    assert made("older") == made("fresh")


def test_a_migrated_file_is_as_a_new_one(old: Path, tmp_path: Path) -> None:
    Ledger(old).close()
    Ledger(tmp_path / "new.sqlite").close()

    def objects(path: Path) -> set[tuple[str, str]]:
        with sqlite3.connect(path) as connection:
            found = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
        connection.close()
        return set(found)

    assert objects(old) == objects(tmp_path / "new.sqlite")


def test_a_migration_that_fails_leaves_the_file_as_it_was(old: Path) -> None:
    with sqlite3.connect(old) as connection:
        connection.execute("CREATE TABLE losses (mine)")
    connection.close()
    before = content(old)
    with pytest.raises(LedgerDamaged, match="losses already exists"):
        Ledger(old)
    assert content(old) == before
    with LedgerReader(old) as reader:
        assert json.dumps(folds_of(reader).snapshots())


def test_one_of_a_later_version_is_refused_with_what_to_do(old: Path) -> None:
    with sqlite3.connect(old) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    for opened in (Ledger, LedgerReader):
        with pytest.raises(
            RequestError, match=r"version 5, this Headrace reads versions 1 to 4: use the Headrace that"
        ):
            opened(old)
