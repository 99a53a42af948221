from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broker.errors import RequestError
from tests.tracker.bodies import ONE, TWO
from tracker.ledger import PAGE, Ledger, LedgerDamaged, LedgerFull, LedgerReader


def rows(source: str, first: int, count: int, incarnation: str = ONE, body: str = "{}") -> list[tuple]:
    return [(source, incarnation, first + index, 5, "episode", body) for index in range(count)]


def write(ledger: Ledger, batch: list[tuple]) -> range:
    with ledger.commit():
        return ledger.append(batch)


def test_facts_come_back_in_order_with_positions_without_holes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert write(ledger, rows("a", 1, 3) + rows("b", 1, 2) + rows("a", 4, 1)) == range(1, 7)
    assert write(ledger, rows("b", 3, 1, body='{"x": 1}')) == range(7, 8)
    ledger.close()
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        assert [(row[0], row[1], row[3]) for row in reader.read_all(chunk=2)] == [
            (1, "a", 1), (2, "a", 2), (3, "a", 3), (4, "b", 1), (5, "b", 2), (6, "a", 4), (7, "b", 3),
        ]  # fmt: skip
        assert reader.read(6)[0][-1] == '{"x": 1}'
        assert reader.last_sequences() == {("a", ONE): 4, ("b", ONE): 3}


def test_the_promised_table(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    write(ledger, rows("a", 1, 1))
    ledger.close()
    plain = sqlite3.connect(tmp_path / "ledger.sqlite")
    columns = [row[1] for row in plain.execute("PRAGMA table_info(facts)")]
    assert columns == ["position", "source", "incarnation", "sequence", "time", "kind", "body"]
    with pytest.raises(sqlite3.IntegrityError):
        plain.execute("INSERT INTO facts VALUES (9, 'a', ?, 1, 0, 'x', '{}')", (ONE,))
    plain.close()


@pytest.mark.parametrize(
    "batch", [rows("a", 2, 1), rows("a", 1, 1) + rows("a", 3, 1), rows("a", 1, 2) + rows("a", 2, 1)]
)
def test_a_fact_out_of_order_takes_its_whole_commit_with_it(tmp_path: Path, batch: list[tuple]) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    write(ledger, rows("b", 1, 1))
    with pytest.raises(ValueError, match="is out of order"):
        write(ledger, rows("b", 2, 5) + batch)
    assert ledger.last_position == 1
    assert ledger.last_sequences() == {("b", ONE): 1}
    assert write(ledger, rows("b", 2, 1) + rows("a", 1, 1) + rows("a", 1, 1, TWO)) == range(2, 5)
    ledger.close()


def test_a_full_disk_keeps_nothing_and_the_same_batch_goes_in_later(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    write(ledger, rows("a", 1, 1))
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    batch = rows("a", 2, 100, body='"' + "x" * 1000 + '"')
    with pytest.raises(LedgerFull, match="free some space"):
        write(ledger, batch)
    assert ledger.last_position == 1
    assert ledger.last_sequences() == {("a", ONE): 1}
    ledger._connection.execute("PRAGMA max_page_count = 1000000")
    assert write(ledger, batch) == range(2, 102)
    ledger.close()


def test_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 7")
    other.close()
    for opened in (Ledger, LedgerReader):
        with pytest.raises(RequestError, match=r"version 7.*another --run-dir"):
            opened(path)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(RequestError, match="version 0"):
        Ledger(path)


def test_damage_is_named_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is not a database, it is a text" * 100)
    with pytest.raises(
        LedgerDamaged, match=r"is damaged \(file is not a database\).*headrace mend .* keeps the file aside"
    ):
        Ledger(path)
    path.unlink()
    ledger = Ledger(path)
    write(ledger, rows("a", 1, 2000, body='"' + "x" * 200 + '"'))
    ledger.close()
    content = bytearray(path.read_bytes())
    content[8 * PAGE : 40 * PAGE] = b"\xa5" * (32 * PAGE)
    path.write_bytes(content)
    with pytest.raises(LedgerDamaged, match="is damaged"):
        Ledger(path)


def test_a_reader_needs_a_ledger_and_reads_while_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no ledger at"):
        LedgerReader(tmp_path / "ledger.sqlite")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        assert reader.last_position == 0
        write(ledger, rows("a", 1, 4))
        assert reader.last_position == 4
    ledger.close()


def late_failure(ledger: Ledger) -> None:
    with ledger.commit():
        ledger.store_snapshots({"x": {"n": 2}}, 9)
        ledger.store_snapshots({"x": {"n": float("nan")}}, 9)


def test_snapshots_replace_and_share_the_commit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger.commit():
        ledger.append(rows("a", 1, 2))
        ledger.store_snapshots({"x": {"n": 1.1}}, ledger.last_position)
    with pytest.raises(ValueError, match="not JSON compliant"):
        late_failure(ledger)
    assert ledger.snapshots() == {"x": (2, {"n": 1.1})}
    ledger.close()
