from __future__ import annotations

import json
from pathlib import Path

from tests.tracker import bodies as b
from tracker.ended import Ended
from tracker.facts import decode
from tracker.folds import Folds
from tracker.ledger import Ledger, LedgerReader
from tracker.standard import standard_folds
from tracker.tasks import Tasks


def minted(name: str) -> tuple[str, str]:
    return "mint", json.dumps({"policy": "p", "tasks": [{"task": name, "body": {}}]})


def outcome(name: str) -> tuple[str, str]:
    return "outcome", json.dumps({"task": name, "score": 1.0})


class Writer:
    """Facts into a ledger and its folds, each in a commit of its own, as the tracker does it."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path)
        self.folds: Folds = standard_folds()
        self.folds.restore(self.ledger, settle=self.ledger.settle)

    def write(self, *facts: tuple[str, str], snapshot: bool = False) -> None:
        for kind, text in facts:
            sequence = self.ledger.last_sequences().get(("learner-p", b.ONE), 0) + 1
            row = ("learner-p", b.ONE, sequence, 0, kind, text)
            with self.ledger.commit():
                positions = self.ledger.append([row])
                self.ledger.store_ended(self.folds.fresh_ended())
            self.folds.forget_ended()
            self.folds.apply(positions, [row], [decode(kind, text)])
        if snapshot:
            with self.ledger.commit():
                self.ledger.store_ended(self.folds.fresh_ended())
                self.ledger.store_snapshots(self.folds.snapshots(), self.folds.position)
            self.folds.forget_ended()

    @property
    def tasks(self) -> Tasks:
        fold = self.folds.folds["tasks"]
        assert isinstance(fold, Tasks)
        return fold


def test_an_ended_id_is_a_row_and_not_in_memory(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "ledger.sqlite")
    for number in range(20):
        writer.write(minted(f"t{number}"), outcome(f"t{number}"))
    assert len(writer.tasks.ended.fresh) == 1  # of the last commit: the next one takes it along
    writer.write(minted("t3"), outcome("t5"), outcome("nobody's"))
    assert (writer.tasks.minted, writer.tasks.duplicates) == (20, 1)
    assert (writer.tasks.done, writer.tasks.late, writer.tasks.unknown) == (20, 1, 1)
    assert not writer.tasks.ended.fresh
    assert "t3" not in json.dumps(writer.tasks.snapshot()["tasks"])
    assert writer.tasks.knows("t3")
    assert not writer.tasks.knows("t99")
    writer.ledger.close()


def test_what_the_table_knows_of_the_future_changes_no_fold(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = Writer(path)
    writer.write(minted("a"), minted("b"), snapshot=True)
    writer.write(outcome("a"), minted("a"), minted("c"), outcome("c"), outcome("b"), outcome("a"))
    kept = json.dumps(writer.folds.snapshots())
    writer.ledger.close()
    # The rows of a and c are there, the snapshot is of before: c's mint is new all the same, a's second is not.
    restored = Writer(path)
    assert restored.ledger.ended_at("tasks", "c") == 6
    assert json.dumps(restored.folds.snapshots()) == kept
    assert restored.tasks.duplicates == 1
    restored.ledger.close()
    # and so from the first fact, with rows or without
    rebuilt = standard_folds()
    ledger = Ledger(path)
    ledger._connection.execute("DELETE FROM snapshots")
    rebuilt.restore(ledger)
    assert json.dumps(rebuilt.snapshots()) == kept
    ledger._connection.execute("DELETE FROM ended")
    alone = standard_folds()
    alone.restore(ledger)
    assert json.dumps(alone.snapshots()) == kept
    ledger.close()


def test_a_fold_that_is_made_anew_forgets_what_it_took_for_ended(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = Writer(path)
    writer.write(minted("a"), minted("b"), outcome("b"), minted("c"), snapshot=True)
    with writer.ledger.commit():  # as a fold of another version saw it
        writer.ledger.store_ended([("tasks", "a", 1), ("other", "a", 1)])
        writer.ledger._connection.execute("""UPDATE snapshots SET state = json_set(state, '$.version', 0)""")
    writer.ledger.close()
    with LedgerReader(path) as reader:  # changes nothing, and believes nothing of it
        folds = standard_folds()
        folds.restore(reader)
        assert sorted(folds.folds["tasks"].ended.fresh) == ["b"]  # type: ignore[attr-defined]
        assert "a" not in folds.folds["tasks"].ended  # type: ignore[attr-defined]
        assert reader.ended_at("tasks", "a") == 1
    again = Writer(path)
    assert (again.tasks.waiting, again.tasks.done, again.tasks.duplicates) == (2, 1, 0)
    again.write(("evict", json.dumps({"task": "c", "reason": "r"})), minted("a"))
    assert again.tasks.duplicates == 1, "it waits"
    again.write(outcome("a"))
    again.write(minted("a"), minted("b"), minted("c"))
    assert (again.tasks.waiting, again.tasks.done, again.tasks.duplicates) == (0, 2, 4)
    assert again.ledger.ended_at("other", "a") == 1
    again.ledger.close()


def test_before_is_about_a_position() -> None:
    ended = Ended()
    assert "x" not in ended
    ended.find = {"x": 7}.get
    assert "x" in ended
    assert not ended.before("x", 7)
    assert ended.before("x", 8)
    ended.add("y", 9)
    assert ended.before("y", 10)
