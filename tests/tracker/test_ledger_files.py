"""What befalls the ledger's files while a tracker writes them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.hubstate import FactsArrived
from tests.tracker import bodies as b
from tests.tracker.test_role import Made
from tracker.exchange import Now
from tracker.ledger import FALSE_ALARMS, PAGE, Ledger, LedgerDamaged, LedgerFull, LedgerReader
from tracker.summary import summarise


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xa5" * path.stat().st_size)


def overwrite_behind(path: Path) -> None:
    """All but the first page, and the length stays."""
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xa5" * (path.stat().st_size - PAGE))


def overwrite_head(path: Path, content: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def swap(path: Path) -> None:
    shutil.copyfile(path, path.with_name("other"))
    path.with_name("other").rename(path)


def remove_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def beside(suffix: str, deed: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda path: deed(Path(f"{path}{suffix}"))


DEEDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "ledger removed": (Path.unlink, "was removed"),
    "all removed": (remove_all, "was removed"),
    "ledger moved": (lambda path: path.rename(path.with_name("elsewhere")), "was removed"),
    "ledger replaced": (swap, "was replaced by another file"),
    "WAL removed": (beside("-wal", Path.unlink), "was removed"),
    "WAL replaced": (beside("-wal", swap), "was replaced by another file"),
    "WAL cut": (beside("-wal", lambda path: os.truncate(path, 0)), "was cut from"),
    "WAL overwritten": (beside("-wal", overwrite), "was overwritten"),
    "WAL's head overwritten": (beside("-wal", lambda path: overwrite_head(path, b"\0" * 32)), "was overwritten"),
    "WAL's salt overwritten": (beside("-wal", lambda path: overwrite_head(path, b"\0" * 8, 16)), "was overwritten"),
    "WAL overwritten behind": (beside("-wal", overwrite_behind), "or its WAL was overwritten"),
    "index removed": (beside("-shm", Path.unlink), "was removed"),
    "ledger cut": (lambda path: os.truncate(path, 0), "was cut from"),
    "ledger overwritten": (overwrite, "was overwritten"),
}


class Said:
    """A tracker's role that a source talks to; `acknowledged` is how many of its facts the tracker says are durable."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = Made(folder)
        self.path = folder / "ledger.sqlite"
        self.said = self.acknowledged = 0
        self.turns = 0.0
        monkeypatch.setattr(self.made.role._hub, "acknowledge", self._acknowledge)

    def _acknowledge(self, durable: dict[tuple[str, str], int]) -> None:
        self.acknowledged = durable.get(("actor-0", b.ONE), self.acknowledged)

    def say(self, count: int) -> None:
        items = tuple((1, "episode", json.dumps(b.episode(1.0))) for _ in range(count))
        self.made.receives(FactsArrived("actor-0", b.ONE, self.said + 1, items))
        self.said += count

    def turn(self) -> None:
        self.turns += 1
        self.made.role._commit(Now(int(self.turns * 1e9), self.turns))

    def stored(self) -> int:
        """How many of the source's facts another process finds."""
        with LedgerReader(self.path) as reader:
            reader.verify()
            return reader.last_sequences().get(("actor-0", b.ONE), 0)


@pytest.mark.parametrize("deed", DEEDS)
def test_what_befalls_the_files_loses_no_fact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str) -> None:
    tracker = Said(tmp_path, monkeypatch)
    act, what = DEEDS[deed]
    for count in (500, 7):
        tracker.say(count)
        tracker.turn()
        assert tracker.acknowledged == tracker.said
    assert tracker.made.role._ledger.change() == ""
    act(tracker.path)
    for _ in range(3):
        tracker.say(20)
        tracker.turn()
        assert tracker.stored() >= tracker.acknowledged
    assert tracker.acknowledged == tracker.said
    standings = tracker.made.role._core.standings
    assert standings.failed
    assert standings.phase == "stopping"
    assert what in standings.reason
    assert "headrace run --resume" in standings.reason
    assert any(what in alarm for alarm in standings.alarms)
    tracker.made.role.close()
    assert summarise(tmp_path)["episodes"] == tracker.said
    Ledger(tracker.path).close()


def test_nothing_is_acknowledged_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Said(tmp_path, monkeypatch)
    tracker.say(5)
    tracker.turn()

    def full(_: Ledger) -> Path:
        raise LedgerFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr("tracker.role.rescue", full)
        patch.setattr("tracker.role.FULL_PAUSE", 0.0)
        written = tracker.made.role._keep

        def removed(rows: Any) -> range:
            positions = written(rows)
            tracker.path.unlink(missing_ok=True)
            return positions

        patch.setattr(tracker.made.role, "_keep", removed)  # between the commit and the acknowledgement
        tracker.say(5)
        tracker.turn()
        tracker.turn()
        assert tracker.acknowledged == 5
    tracker.turn()
    assert tracker.acknowledged == tracker.stored() == 10
    tracker.made.role.close()


def test_what_cannot_be_saved_ends_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    tracker = Said(folder, monkeypatch)
    tracker.say(5)
    tracker.turn()
    folder.rename(tmp_path / "away")
    tracker.say(5)
    with pytest.raises(LedgerDamaged, match=r"was removed while the run went on.*headrace mend"):
        tracker.turn()
    assert tracker.acknowledged == 5
    tracker.made.role.close()
    assert not folder.exists()


def test_a_tracker_makes_no_second_ledger(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.role.close()
    remove_all(tmp_path / "ledger.sqlite")
    with pytest.raises(LedgerDamaged, match="is gone"):
        Made(tmp_path)


def test_other_readers_and_a_touch_change_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    body = json.dumps({"text": "x" * 9000})
    for first in range(1, 4000, 100):  # the WAL begins again after 32 MiB
        with ledger.commit():
            ledger.append([("actor-0", b.ONE, number, 1, "note", body) for number in range(first, first + 100)])
        assert ledger.change() == ""
        with LedgerReader(ledger.path) as reader:
            assert reader.last_position == first + 99
        ledger.path.touch()
        Path(f"{ledger.path}-wal").touch()
        assert ledger.change() == ""
        assert ledger._alarms_left == max(0, FALSE_ALARMS - 1 - first // 100)  # the touches, and nothing else
    assert ledger.path.stat().st_size > 20_000_000
    ledger.close()


@pytest.mark.parametrize(
    "deed",
    [
        *(f"PRAGMA wal_checkpoint({how})" for how in ("PASSIVE", "FULL", "RESTART", "TRUNCATE")),
        "PRAGMA wal_checkpoint(RESTART); CREATE VIEW mine AS SELECT count(*) FROM facts",
        "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
    ],
)
def test_what_other_tools_do_to_a_ledger_ends_no_run(tmp_path: Path, deed: str) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for first in range(1, 2400, 200):
        with ledger.commit():
            ledger.append([("actor-0", b.ONE, number, 1, "note", "{}") for number in range(first, first + 200)])
        assert ledger.change() == ""
        with closing(sqlite3.connect(ledger.path, isolation_level=None)) as tool:
            tool.executescript(deed.replace("mine", f"view_{first}"))
        assert ledger.change() == ""
    ledger.close()
    with LedgerReader(ledger.path) as reader:
        reader.verify()
        assert reader.last_position == 2400


def test_another_writer_of_the_ledger_ends_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Said(tmp_path, monkeypatch)
    tracker.say(5)
    tracker.turn()
    with closing(sqlite3.connect(tracker.path)) as other:
        other.execute("CREATE VIEW mine AS SELECT count(*) FROM facts")  # not in its way
        other.commit()
        tracker.say(5)
        tracker.turn()
        assert tracker.acknowledged == 10
        other.execute("INSERT INTO facts VALUES (NULL, 'tracker', ?, 1, 1, 'note', '{}')", (b.TWO,))
        other.commit()
    tracker.say(5)
    with pytest.raises(LedgerDamaged, match="was written to by another process"):
        tracker.turn()
    assert tracker.acknowledged == 10
    tracker.made.role._reactor.close()


def test_a_tool_that_holds_the_ledger_delays_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Said(tmp_path, monkeypatch)
    monkeypatch.setattr("tracker.role.FULL_PAUSE", 0.0)
    tracker.made.role._ledger._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(tracker.path, isolation_level=None)) as tool:
        tool.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            tracker.say(5)
            tracker.turn()
        assert tracker.acknowledged == 0
        assert "is held by another process" in tracker.made.role._live.alarms["disk"]
        tool.execute("COMMIT")
    for _ in range(2):
        tracker.turn()
    assert tracker.acknowledged == tracker.stored() == 15
    assert "disk" not in tracker.made.role._live.alarms
    tracker.made.role.close()
