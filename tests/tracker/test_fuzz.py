"""Whatever a source says, the tracker goes on and every reader of its ledger does; `fuzzing` makes up what is said."""

from __future__ import annotations

import json
import random
import sqlite3
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json
from rich.console import Console

from broker.liveness import Event
from launcher.dashboard import screen
from launcher.lines import Teller
from launcher.report import render_summary
from launcher.watch import afterwards, told
from tests.tracker import bodies as b
from tests.tracker.fuzzing import OF_SOURCES, OTHERS, SOURCES, Facts
from tests.tracker.pools import settings
from tracker.core import Core
from tracker.curriculum.report import section
from tracker.document import standings_document
from tracker.exchange import Joined, Now, Restoring, Settings
from tracker.export import export
from tracker.folds import Folds
from tracker.leaderboard import standings_part
from tracker.leases import Request
from tracker.ledger import Ledger, LedgerReader
from tracker.live import Live
from tracker.standard import standard_folds
from tracker.summary import summarise

VIEWS = ("templates", "rewards", "tasks", "labels", "evictions", "episodes", "versions", "checkpoints", "losses")


class Tracker:
    """The tracker's core over a ledger on disk, without sockets: `turn` is one turn of its loop."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.folds = standard_folds()
        self.folds.restore(self.ledger, settle=self.ledger.settle)
        pool = settings(capacity=8, min_samples=1, min_presentations=1, epoch_outcomes=5, generating=2)
        asked = Settings(stop_return=1e9, stop_env_steps=2**60, epoch_steps=50, curriculum=pool, seed=seed)
        self.core = Core(asked, self.folds, f"{self.ledger.last_position + 1:032x}")
        self.live = Live()
        self.sequences: dict[str, int] = {}
        self.turns = 0
        for name in SOURCES:
            self.core.handle(Joined(name, "learner" if name == "learner-p" else "actor", b.ONE))

    def turn(self, facts: list[tuple[str, str, str]], chance: Any) -> None:
        self.turns += 1
        now = Now(self.turns * 10**9, float(self.turns))
        for source, kind, text in facts:
            self.sequences[source] = self.sequences.get(source, 0) + 1
            self.core.accept(source, b.ONE, self.sequences[source], ((chance.choice((1, 2**63 - 1)), kind, text),))
        for actor in ("actor-0", "actor-1"):
            self.core.handle(Request(actor, b.ONE, self.turns, 8, chance.choice((None, "p")), generate=True))
        if chance.random() < 0.1:
            self.core.handle(Event("actor-1", b.ONE, chance.choice(("lost", "returned"))))
        if chance.random() < 0.1:
            self.core.handle(Restoring("p", f"{self.turns:032x}"))
        batch = self.core.gather(now)
        with self.ledger.commit():
            positions = self.ledger.append(batch.rows)
            self.ledger.store_ended(self.folds.fresh_ended())
        self.folds.forget_ended()
        for answer in self.core.committed(positions).answers:
            answer.message(now.clock, lambda position: self.ledger.read(position - 1, 1)[0][6])

    def show(self) -> None:
        """The standings, drawn as a terminal and as lines."""
        document = standings_document(
            self.core.standings,
            self.live,
            float(self.turns),
            tasks=self.core.tasks,
            pool=section(self.core.pool),
            prompts=standings_part(self.core.templates),
        )
        draw(json.loads(json.dumps(document, allow_nan=False)))


def draw(document: dict[str, Any]) -> None:
    for width, height in ((80, 24), (200, 60)):
        console = Console(width=width, height=height, file=StringIO(), force_terminal=True)
        console.print(screen(document, width, height, 0.0))
    Teller().tell(document, 0.0)
    json.dumps(told(document), allow_nan=False)


def read(folder: Path, *, export_all: bool = True) -> Folds:
    """Everything that reads a run that is over; gives the folds as made from the facts alone."""
    summary = summarise(folder)
    Console(width=100, file=StringIO()).print(render_summary(json.loads(json.dumps(summary, allow_nan=False))))
    draw(afterwards(folder))
    if export_all:
        for form in ("json", "csv", "parquet"):
            export(folder, form, folder / f"out-{form}")
        json.loads((folder / "out-json").read_text())
    connection = sqlite3.connect(folder / "ledger.sqlite")
    for view in VIEWS:
        connection.execute(f"SELECT * FROM {view}").fetchall()
    connection.close()
    with LedgerReader(folder / "ledger.sqlite") as ledger:
        folds = standard_folds()
        folds.restore(ledger)
    return folds


def run(folder: Path, seed: int, count: int) -> None:
    facts = Facts(seed)
    tracker = Tracker(folder, seed)
    for turn in range(count // 20):
        tracker.turn([facts.next() for _ in range(20)], facts.random)
        if turn % 20 == 19:
            tracker.show()
        if turn == count // 40:  # a restart finds snapshots and a tail
            with tracker.ledger.commit():
                tracker.ledger.store_snapshots(
                    json.loads(json.dumps(tracker.folds.snapshots())), tracker.folds.position
                )
    running = json.dumps(tracker.folds.snapshots(), allow_nan=False)
    assert tracker.folds.alarms == ()
    tracker.ledger.close()
    restored = read(folder)
    assert json.dumps(restored.snapshots(), allow_nan=False) == running
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("DELETE FROM snapshots")
    connection.commit()
    connection.close()
    rebuilt = read(folder, export_all=False)
    assert json.dumps(rebuilt.snapshots(), allow_nan=False) == running
    assert rebuilt.alarms == ()


def stored(folder: Path, seed: int, count: int) -> dict[str, int]:
    """Write a ledger of facts of every kind from anybody, which no tracker looked at; gives the last sequences."""
    facts = Facts(seed)
    sequences: dict[str, int] = {}
    with Ledger(folder / "ledger.sqlite") as ledger, ledger.commit():
        for _ in range(count):
            source = facts.random.choice(("tracker", *SOURCES))
            kind = facts.random.choice((*OF_SOURCES, *OTHERS))
            body = facts.body(kind)
            for _ in range(facts.random.choice((0, 0, 0, 1, 2))):
                body = facts.mutated(body)
            text = json.dumps(body)
            try:
                from_json(text, allow_inf_nan=False)
            except ValueError:
                text = '"what is no JSON, SQLite does not index"'
            sequences[source] = sequences.get(source, 0) + 1
            ledger.append([(source, b.ONE, sequences[source], 1, kind, text)])
    return sequences


def take(folder: Path, seed: int, count: int) -> None:
    """Everything that reads a ledger of anything, and a tracker that goes on with it."""
    sequences = stored(folder, seed, count)
    assert all("body does not fit its kind" in alarm for alarm in read(folder).alarms)
    tracker = Tracker(folder, seed)
    tracker.sequences = sequences
    facts = Facts(seed)
    for _ in range(5):
        tracker.turn([facts.next() for _ in range(10)], facts.random)
    tracker.show()
    running = json.dumps(tracker.folds.snapshots(), allow_nan=False)
    tracker.ledger.close()
    assert json.dumps(read(folder, export_all=False).snapshots(), allow_nan=False) == running


@pytest.mark.parametrize("seed", range(2))
def test_a_ledger_of_anything_is_read(tmp_path: Path, seed: int) -> None:
    take(tmp_path, seed, 200)


@pytest.mark.parametrize("seed", range(2))
def test_no_fact_of_a_source_stops_anything(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 800)


def test_sums_that_leave_64_bits_stop_nothing(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, 0)
    most = 2**40
    counts = dict.fromkeys(("agent_steps", "consumed", "stale", "refused", "lost"), most)
    said = [
        ("actor-0", "progress", {**b.progress(most, most), "dropped": {"p": most}}),
        ("learner-p", "update", {**b.update(), **counts, "staleness": {"9": most}, "version": [2**53 - 1, 2**53 - 1]}),
    ]
    facts = [(source, kind, json.dumps(body)) for source, kind, body in said]
    tracker.turn(facts, random.Random(0))
    standings = tracker.core.standings
    standings.env_steps = standings.agent_steps = standings.policies["p"].agent_steps = 2**63 - 1
    standings.policies["p"].fragments = dict.fromkeys(standings.policies["p"].fragments, 2**63 - 1)
    tracker.core.handle(Restoring("p", f"{2:032x}"))
    tracker.turn(facts, random.Random(0))
    assert standings.env_steps == 2**63 - 1 + most
    assert standings.policies["p"].life == 2**53
    tracker.show()
    again = standard_folds()
    for name, state in json.loads(json.dumps(tracker.folds.snapshots(), allow_nan=False)).items():
        again.folds[name].restore(state["state"])
    assert again.snapshots() == tracker.folds.snapshots()
    tracker.ledger.close()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 150))
def test_100_000_facts_of_sources_stop_nothing(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 2_000)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 150))
def test_ledgers_of_10_000_facts_of_anything_are_read(tmp_path: Path, seed: int) -> None:
    take(tmp_path, seed, 200)
