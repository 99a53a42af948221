"""A tracker that is killed comes back to a ledger of millions, and to one without snapshots."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.restart import ONE, fill
from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity
from tests.chaos.test_tracker_under_load import Tracker
from tests.flow.running import headrace, until
from tracker.core import SNAPSHOT_FACTS
from tracker.ledger import Ledger, LedgerReader
from tracker.standard import standard_folds
from tracker.standings import Standings
from tracker.summary import summarise


def told(tracker: Tracker, n: int, seconds: float) -> int:
    """A fact that is acknowledged within `seconds` of now; its sequence."""
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        reactor = Reactor()
        stack.callback(reactor.close)
        token = tracker.where.token_file.read_text().strip()
        spoke = TrackerSpoke(reactor, Identity(token, f"actor-{n}", new_incarnation()), "actor", tracker.address)
        sequence = spoke.fact("progress", {"env_steps": 1, "agent_steps": {}}, timeout=seconds)
        assert spoke.flush(max(0.0, deadline - time.monotonic())), f"not served within {seconds:g} s: {tracker.words()}"
        spoke.farewell("done", 1.0)
    return sequence


def come_back(home: Path, facts: int, seconds: float) -> None:
    tracker = Tracker(home)
    with ExitStack() as stack:
        stack.callback(tracker.close)
        ledger = Ledger(tracker.where.ledger)
        fill(ledger, facts - SNAPSHOT_FACTS + 1 if facts > SNAPSHOT_FACTS else facts // 2)
        folds = standard_folds()
        folds.restore(ledger, settle=ledger.settle)
        with ledger.commit():
            ledger.store_ended(folds.fresh_ended())
            ledger.store_snapshots(folds.snapshots(), folds.position)
        fill(ledger, facts)
        ledger.close()
        tracker.start()
        assert told(tracker, 9, seconds) == 1
        assert tracker.end(signal.SIGKILL) == -signal.SIGKILL
        with LedgerReader(tracker.where.ledger) as reader:
            stored = reader.last_position
            assert reader.last_sequences()["actor-0", ONE] > 0
        # The same without snapshots: from the first fact, and what it then serves is the same.
        before = summarise(tracker.where.path)
        ledger = Ledger(tracker.where.ledger)
        with ledger.commit():
            ledger._connection.execute("DELETE FROM snapshots")
            ledger._connection.execute("DELETE FROM ended")
        ledger.close()
        tracker.start()
        assert told(tracker, 8, 60 + facts / 20_000) == 1
        assert tracker.end(signal.SIGTERM) == 0, tracker.words()
    after = summarise(tracker.where.path)
    assert before["facts"]["stored"] == stored
    same = ("episodes", "policies", "agent_steps", "tasks", "return_mean", "seed")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["env_steps"] == before["env_steps"] + 1
    fold = standard_folds().folds["standings"]
    assert isinstance(fold, Standings)
    with LedgerReader(tracker.where.ledger) as reader:  # it left new snapshots
        position, kept = reader.snapshots()["standings"]
        assert position > stored
        assert reader.ended_at("tasks", "task-98") is not None
    fold.restore(kept["state"])
    assert fold.episodes == after["episodes"]


def test_a_tracker_comes_back_with_snapshots_and_without(tmp_path: Path) -> None:
    come_back(tmp_path, 20_000, 60)


@pytest.mark.soak
def test_a_tracker_serves_5_seconds_after_it_comes_back_to_10_million_facts(tmp_path: Path) -> None:
    come_back(tmp_path, 10_000_000, 5)
    run_file = tmp_path / "run" / "run.toml"
    run_file.touch()
    assert until(lambda: headrace("summary", "run", "--json", cwd=tmp_path).returncode == 0, "a summary", 30)
    assert (tmp_path / "run" / "ledger.sqlite").stat().st_size > 2e9
