"""Several processes make, draw and finish tasks at once, while the tracker is killed: no id twice, no outcome lost."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from broker.errors import RequestError
from tests.chaos.test_tracker_under_load import Tracker
from tests.flow.running import assert_folds_equal_rebuild, quiet, until
from tracker.curriculum.pool import Curriculum
from tracker.ledger import LedgerReader
from tracker.lock import is_held
from tracker.standard import standard_folds

PLAYERS = 3
KILLS = 6
POOL = {
    "capacity": 60,
    "min_samples": 3,
    "min_presentations": 5,
    "epoch_outcomes": 300,
    "evict_share": 0.2,
    "generate": 8,
    "generating": 2,
    "backoff_seconds": 0.1,
}


def drawn(ledger: Path) -> int:
    try:
        with LedgerReader(ledger) as reader:
            return [fact[5] for fact in reader.read_all()].count("draw")
    except RequestError:  # it is being made
        return 0


def test_the_pool_is_what_the_players_said(tmp_path: Path) -> None:
    chance = random.Random(4)
    stop = tmp_path / "stop"
    tracker = Tracker(tmp_path, curriculum=POOL)
    with ExitStack() as stack:
        stack.callback(tracker.close)
        tracker.start()
        players = []
        for index in range(PLAYERS):
            script = [sys.executable, str(Path(__file__).with_name("player.py")), f"actor-{index}", tracker.address]
            player = subprocess.Popen(
                [*script, str(tracker.where.token_file), str(stop)], stdout=subprocess.PIPE, text=True, env=quiet()
            )
            stack.callback(player.wait, 10)
            stack.callback(player.kill)
            players.append(player)
        for _ in range(KILLS):
            more = drawn(tracker.where.ledger) + chance.randrange(10, 60)
            until(lambda: is_held(tracker.where.path), "it holds the run", 20)
            until(
                lambda more=more: drawn(tracker.where.ledger) >= more,  # type: ignore[misc]
                f"{more} draws; it said {tracker.words()}",
                30,
            )
            assert tracker.end(signal.SIGKILL) == -signal.SIGKILL
            tracker.start()
        stop.touch()
        told = []
        for player in players:
            out, _ = player.communicate(timeout=60)
            assert player.returncode == 0
            told.append(json.loads(out))
        assert all(one["flushed"] for one in told)
        assert tracker.end(signal.SIGTERM) == 0, tracker.words()

    folds = standard_folds()
    with LedgerReader(tracker.where.ledger) as reader:
        folds.restore(reader)
    pool = folds.folds["curriculum"]
    assert isinstance(pool, Curriculum)
    minted = [name for one in told for name in one["minted"]]
    assert len(minted) == len(set(minted))
    draws = [number for one in told for number in one["draws"]]
    assert len(draws) == len(set(draws))
    counts = pool.counts
    with LedgerReader(tracker.where.ledger) as reader:
        gone = {fact[6].split('"task":"')[1].split('"')[0] for fact in reader.read_all() if fact[5] == "pool_evict"}
        assert all(reader.ended_at("curriculum", name) for name in gone)
    assert pool.entries.keys() | gone <= set(minted)
    said = sum(len(scores) for one in told for scores in one["said"].values()) + sum(one["errors"] for one in told)
    assert counts.outcomes + counts.transient + counts.permanent + counts.late == said
    assert counts.refused == 0
    for name, entry in pool.entries.items():
        scores = [score for one in told for score in one["said"].get(name, ())]
        assert entry.count == len(scores)
        assert entry.total == sum(scores)  # multiples of 1/1024: exact in any order
    assert sum(tally.outcomes for tally in pool.labels.values()) == counts.outcomes
    assert pool.labels.keys() <= {"level 0", "level 1", "level 2"}
    assert counts.evicted > 0
    assert counts.outcomes > 500
    assert_folds_equal_rebuild(tracker.where.ledger)
