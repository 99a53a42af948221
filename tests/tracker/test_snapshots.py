from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as asked
from hypothesis import strategies as st

from tests.tracker import bodies as b
from tests.tracker.pools import Pooled
from tracker import parts, snapshots
from tracker.curriculum import cut
from tracker.facts import decode
from tracker.folds import Folds
from tracker.ledger import Ledger, LedgerReader
from tracker.parts import whole
from tracker.snapshots import Snapshots
from tracker.standard import standard_folds
from tracker.tasks import Tasks


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECE", 3)
    monkeypatch.setattr("tracker.curriculum.state.PIECE", 2)


def change(pool: Pooled, what: int) -> None:
    """Something that changes entries, or brings or takes some."""
    names = list(pool.fold.entries)
    if what == 0 or not names:
        pool.mint(f"new-{len(pool.facts)}")
    elif what == 1:
        task = pool.lease(names[what % len(names)])
        pool.outcome(task, names[what % len(names)], 0.25)
    elif what == 2:
        pool.error(pool.lease(names[-1]), names[-1], permanent=True)
        pool.decide()
    elif what == 3:
        pool.error(pool.lease(names[0]), names[0], permanent=False)
        pool.decide(later=400.0)
    else:
        theta = 0.3 - pool.fold.launch / 1000
        scorer = "replay" if pool.fold.launch % 2 else "learning_progress"
        given = {"min_samples": 1, "capacity": 50, "theta": theta, "scorer": scorer, "migrate": {"scorer": "reset"}}
        pool.begin(pool.fold.launch + 1, **given)
    pool.decide()


@asked(max_examples=60, deadline=None)
@given(st.integers(0, 7), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=25))
def test_a_snapshot_is_of_one_moment_whatever_happens_while_it_is_written(size: int, happens: list[Any]) -> None:
    pool = Pooled(min_samples=1, capacity=50)
    pool.mint(*[f"t{number}" for number in range(size)])
    truth = json.dumps(pool.fold.snapshot())
    drafting = pool.fold.parts()
    made = [next(drafting)]
    for turns, what in happens:
        for _ in range(turns):
            made += [part for part in [next(drafting, None)] if part is not None]
        change(pool, what)
    made += drafting
    assert json.dumps(whole(made)) == truth
    assert pool.fold.cut is None or not size


class Kept:
    """Folds, their ledger, and the shell that stores their snapshots."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path)
        self.folds: Folds = standard_folds()
        self.folds.restore(self.ledger)
        self.snapshots = Snapshots(self.ledger, self.folds.draft)

    def facts(self, *bodies: tuple[str, Any]) -> None:
        last = self.ledger.last_sequences().get(("actor-0", b.ONE), 0)
        rows = [("actor-0", b.ONE, n, n, kind, json.dumps(body)) for n, (kind, body) in enumerate(bodies, last + 1)]
        with self.ledger.commit():
            positions = self.ledger.append(rows)
            self.snapshots.store()
        self.snapshots.stored()
        self.folds.apply(positions, rows, [decode(row[4], row[5]) for row in rows])

    def mint(self, *names: str) -> None:
        self.facts(("mint", {"policy": "p", "tasks": [{"task": name, "body": {}} for name in names]}))


def stored(ledger: Ledger) -> tuple[int, list[str]]:
    rows = ledger._connection.execute("SELECT DISTINCT position FROM snapshots").fetchall()
    return rows[0][0] if rows else 0, [name for name, *_ in ledger._connection.execute("SELECT * FROM snapshot_parts")]


def test_parts_go_with_the_facts_and_count_once_they_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SLICE", 0.0)  # a part at most in each turn: none but what `facts` asks for
    path = tmp_path / "ledger.sqlite"
    kept = Kept(path)
    kept.mint(*[f"a{n}" for n in range(10)])
    kept.snapshots.go_on(due=True, at_once=True)
    truth = json.dumps(kept.folds.snapshots())
    kept.mint("b")
    assert stored(kept.ledger) == (1, ["tasks"] * 4)
    assert kept.snapshots._draft is None
    # another one is begun, and the tracker is killed before it is whole
    kept.snapshots.go_on(due=True)
    kept.snapshots._pending = [next(kept.snapshots._parts)]
    assert kept.snapshots.under_way
    kept.mint("c")
    assert stored(kept.ledger) == (1, ["tasks"] * 5)
    everything = json.dumps(kept.folds.snapshots())
    kept.ledger.close()
    again = Kept(path)
    assert again.folds.restored == 1
    assert json.dumps(again.folds.snapshots()) == everything != truth
    # what was left of it goes when the next one is whole
    again.snapshots.go_on(due=True, at_once=True)
    assert again.snapshots.under_way
    again.facts()
    assert stored(again.ledger)[0] == 3
    again.facts()
    assert not again.snapshots.under_way
    assert stored(again.ledger) == (3, ["tasks"] * 4)
    again.ledger.close()


def test_what_is_left_of_one_is_not_in_the_way_of_the_next_of_the_same_position(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    kept = Kept(path)
    kept.mint(*[f"a{n}" for n in range(40)])
    kept.snapshots.go_on(due=True)
    kept.snapshots._pending = [*kept.snapshots._pending, *kept.snapshots._parts][:12]
    kept.snapshots._whole = False
    kept.facts()
    truth = json.dumps(kept.folds.snapshots())
    kept.ledger.close()
    again = Kept(path)  # nothing came since
    again.snapshots.go_on(due=True, at_once=True)
    again.facts()
    again.ledger.close()
    third = Kept(path)
    assert third.folds.restored == third.folds.position == 1
    assert json.dumps(third.folds.snapshots()) == truth
    third.ledger.close()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("UPDATE snapshots SET state = substr(state, 1, 40)", "cannot be read"),
        ("DELETE FROM snapshot_parts WHERE part = 2", "3 of 4 parts are there"),
        ("UPDATE snapshot_parts SET state = '{\"x\": [1]}'", "cannot be read"),
        ("UPDATE snapshots SET state = '7'", "cannot be read"),
        ("UPDATE snapshots SET state = json_remove(state, '$.state.counts', '$.state.roles')", "does not fit"),
    ],
)
def test_a_damaged_snapshot_is_said_and_made_anew(tmp_path: Path, harm: str, words: str) -> None:
    path = tmp_path / "ledger.sqlite"
    kept = Kept(path)
    kept.mint(*[f"a{n}" for n in range(10)])
    kept.snapshots.go_on(due=True, at_once=True)
    kept.facts(("outcome", {"task": "a1", "score": 1.0}))
    truth = json.dumps(kept.folds.snapshots())
    kept.ledger._connection.execute(harm)
    kept.ledger.close()
    again = Kept(path)
    assert any(words in flaw and "tasks at position 1" in flaw for flaw in again.folds.flaws), again.folds.flaws
    assert json.dumps(again.folds.snapshots()) == truth
    again.mint("a1")  # what the fold knows of ended tasks is whole, too
    tasks = again.folds.folds["tasks"]
    assert isinstance(tasks, Tasks)
    assert (tasks.duplicates, tasks.knows("a1"), tasks.ended is again.folds.ended["tasks"]) == (1, True, True)
    again.ledger.close()


def test_a_reader_finds_whole_snapshots_while_they_are_replaced(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "ledger.sqlite")
    kept.mint(*[f"a{n}" for n in range(40)])
    over = threading.Event()

    def snapshot() -> None:
        kept.snapshots.go_on(due=True, at_once=True)
        kept.facts(("outcome", {"task": "a1", "score": 1.0}))
        kept.facts()

    def write() -> None:
        while not over.is_set():
            snapshot()

    snapshot()  # from now on a reader always finds one
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(150):
            with LedgerReader(tmp_path / "ledger.sqlite") as reader:
                folds = standard_folds()
                folds.restore(reader)
                assert folds.flaws == []
                assert folds.restored > 0
    finally:
        over.set()
        writer.join(30)
    kept.ledger.close()


def test_numbers_are_kept_bit_for_bit() -> None:
    pool = Pooled(min_samples=1)
    pool.mint("a", "b")
    pool.outcome(pool.lease("a"), "a", 0.1)
    again = [entry for columns in pool.fold.snapshot()["entries"] for entry in cut.unpacked(columns)]
    for entry, other in zip(pool.fold.entries.values(), again, strict=True):
        assert cut._values(entry) == cut._values(other)
