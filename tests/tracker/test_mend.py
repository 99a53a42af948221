from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from broker.errors import RequestError
from tests.flow.running import headrace
from tests.tracker import bodies as b
from tracker import ledger as ledgers
from tracker import mend as mends
from tracker.facts import Row
from tracker.ledger import PAGE, Ledger, LedgerDamaged, LedgerReader
from tracker.lock import RunLock
from tracker.mend import mend
from tracker.summary import summarise

FACTS = 3000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of two sources in turns."""
    written = Ledger(tmp_path / "ledger.sqlite")
    rows = [
        (f"actor-{n % 2}", b.ONE, n // 2 + 1, n, "episode", json.dumps({**b.episode(1.0), "n": n}))
        for n in range(FACTS)
    ]
    with written.commit():
        written.append(rows)
    written.close()
    return written.path


def damage(path: Path, share: float, pages: int = 3) -> None:
    content = bytearray(path.read_bytes())
    at = int(len(content) * share) // PAGE * PAGE
    content[at : at + pages * PAGE] = b"\xa5" * (pages * PAGE)
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7, 0.95])
def test_what_stands_before_the_damage_is_kept(path: Path, share: float) -> None:
    with LedgerReader(path) as reader:
        whole = list(reader.read_all())
    damage(path, share)
    harmed = path.read_bytes()
    with pytest.raises(LedgerDamaged, match="headrace mend"):
        Ledger(path)
    made = mend(path.parent)
    assert made.aside.read_bytes() == harmed
    with Ledger(path) as ledger:
        ledger.verify()
        kept = list(ledger.read_all())
    assert kept == whole[: made.facts]
    assert bool(made.why) == (made.facts < FACTS)
    assert summarise(path.parent)["episodes"] == made.facts


def test_facts_survive_the_loss_of_everything_that_is_derived_from_them(path: Path) -> None:
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_autoindex_facts%'").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    content[(root[0] - 1) * PAGE : root[0] * PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)
    made = mend(path.parent)
    assert (made.facts, made.why) == (FACTS, "")
    assert mended_again(path) == "is not damaged"


def test_facts_that_could_not_be_folded_into_the_new_file_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(path, 0.7)
    readable = mends._readable
    readers: list[sqlite3.Connection] = []

    def watched(path: Path, why: list[str], refused: list[int]) -> Iterator[list[Row]]:
        for rows in readable(path, why, refused):
            yield rows
            if not readers:  # what comes after the moment that it sees stays in the WAL, as on a full disk
                readers.append(sqlite3.connect(path.with_name("ledger.sqlite.mended"), isolation_level=None))
                readers[0].execute("BEGIN")
                assert readers[0].execute("SELECT count(*) FROM facts").fetchone() == (1000,)

    impatient = partial(sqlite3.connect, uri=True, isolation_level=None, timeout=0.2, check_same_thread=False)
    monkeypatch.setattr(LedgerReader, "_connect", staticmethod(impatient))
    monkeypatch.setattr(mends, "_readable", watched)
    made = mend(path.parent)
    readers[0].close()
    with LedgerReader(path) as reader:
        assert reader.last_position == made.facts > 1000
        reader.check_newest()


@pytest.mark.parametrize("moved", range(5))
def test_killed_at_any_moment_it_is_done_the_next_time(path: Path, monkeypatch: pytest.MonkeyPatch, moved: int) -> None:
    late = [("actor-0", b.ONE, FACTS // 2 + 1, FACTS, "episode", json.dumps(b.episode(1.0)))]
    kept = path.parent / "kept"
    kept.mkdir()
    with Ledger(path) as ledger:
        with ledger.commit():
            ledger.append(late)
        for own in path.parent.glob("ledger.sqlite*"):  # as they are while it is in the WAL
            shutil.copyfile(own, kept / own.name)
    path = kept / path.name
    damage(path, 0.95)
    harmed = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")}
    assert harmed["-wal"]
    rename, count = Path.rename, 0

    def killed(self: Path, target: Path | str) -> Path:
        nonlocal count
        count += 1
        if count > moved:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            mend(path.parent)
    if moved:
        for kind in (Ledger, LedgerReader):
            with pytest.raises(RequestError, match=r"run `headrace mend .*` again"):
                kind(path)
    made = mend(path.parent)
    assert {suffix: Path(f"{made.aside}{suffix}").read_bytes() for suffix in harmed} == harmed
    assert made.aside.name == "ledger.sqlite.damaged-1"
    with LedgerReader(path) as reader:
        reader.verify()
        assert reader.last_position == made.facts > 1000
    assert mended_again(path) == "is not damaged"
    assert not list(path.parent.glob("*mend*"))


def test_a_plan_that_is_none_is_a_message(path: Path) -> None:
    begun = path.with_name("ledger.sqlite.mending")
    for text in ("", "[]", "{}"):
        begun.write_text(text)
        with pytest.raises(RequestError, match="remove it"):
            mend(path.parent)


def mended_again(path: Path) -> str:
    with pytest.raises(RequestError) as told:
        mend(path.parent)
    return "is not damaged" if "is not damaged" in str(told.value) else str(told.value)


def test_the_command_says_what_is_kept_and_where(path: Path) -> None:
    damage(path, 0.5)
    said = headrace("mend", str(path.parent), cwd=path.parent)
    assert said.returncode == 0, said.stderr
    assert "facts are in the new ledger" in said.stdout
    assert "ledger.sqlite.damaged-1" in said.stdout
    damage(path, 0.5)
    assert mend(path.parent).aside.name == "ledger.sqlite.damaged-2"
    nothing = headrace("mend", str(path.parent / "nowhere"), cwd=path.parent)
    assert (nothing.returncode, "no ledger at" in nothing.stderr) == (2, True)


def test_a_run_that_goes_on_is_left_alone(path: Path) -> None:
    damage(path, 0.5)
    with RunLock(path.parent), pytest.raises(RequestError):
        mend(path.parent)


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM facts WHERE position = 2999",
        "DELETE FROM facts WHERE position > 2990",
        "UPDATE sources SET last_sequence = 7 WHERE source = 'actor-1'",
        "UPDATE sources SET last_sequence = 3000 - last_sequence - 2 WHERE source = 'actor-1'",
    ],
)
def test_newest_facts_that_are_not_those_of_the_sources_are_damage_in_a_file_of_any_size(
    path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "CHECKED_WHOLE", 0)
    connection = sqlite3.connect(path)
    connection.execute(harm)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerDamaged, match="facts are"):
        Ledger(path)
    made = mend(path.parent)
    assert made.facts == {"DELETE FROM facts WHERE position = 2999": 2998}.get(harm, 2990 if "> 2990" in harm else 3000)
