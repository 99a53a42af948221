"""Promises 1 and 2 by doing it: the tracker is killed again and again while sources send as fast as they may."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from launcher import directory as directories
from launcher.engines import Exited, PlainEngine, Started
from launcher.lifeline import Lifeline
from launcher.plan import child_of, make_plan, tracker_address
from launcher.reading import from_plain
from tests.chaos.durable_log import acknowledged
from tests.flow.running import assert_folds_equal_rebuild, quiet, until
from tracker.curriculum.settings import CurriculumSettings
from tracker.ledger import LedgerReader
from tracker.lock import is_held

SOURCES = 3


class Tracker:
    """The real tracker's process, started again and again in one run directory."""

    def __init__(self, home: Path, curriculum: dict[str, Any] | None = None) -> None:
        own = {"name": "load", "actors": {"rollout": "nowhere:Nothing"}, "policies": {"names": ["p"]}}
        run = from_plain(own)
        if curriculum is not None:  # no run file may have it yet; the tracker's side stands
            run = run.model_copy(update={"curriculum": CurriculumSettings.model_validate(curriculum)})
        self.where = directories.make("load", home / "run")
        self.plan = make_plan(run, None)
        self.address = tracker_address(run, self.where)
        self.lifeline = Lifeline()
        self.engine = PlainEngine(self.lifeline)
        self.attempt = self.pid = 0

    def start(self) -> None:
        self.attempt += 1
        self.engine.spawn(child_of(self.plan, "tracker", self.attempt, self.where))
        (started,) = self.engine.events()
        assert isinstance(started, Started)
        self.pid = started.pid

    def end(self, number: signal.Signals) -> int | None:
        os.kill(self.pid, number)
        seen: list[Exited] = []

        def gone() -> list[Exited]:
            seen.extend(event for event in self.engine.events() if isinstance(event, Exited))
            return seen

        return until(gone, f"the tracker's end by {number.name}", 10)[0].status

    def words(self) -> str:
        log = self.where.log("tracker", self.attempt)
        return log.read_text()[-8000:] if log.exists() else ""

    def close(self) -> None:
        self.engine.close(1.0)
        self.lifeline.close()
        self.where.close()


def last_sequences(ledger: Path) -> dict[str, int]:
    with LedgerReader(ledger) as reader:
        return {source: last for (source, _), last in reader.last_sequences().items()}


def kill_again_and_again(home: Path, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    tracker = Tracker(home)
    stop = home / "stop"
    logs = {f"actor-{index}": home / f"{index}.log" for index in range(SOURCES)}
    with ExitStack() as stack:
        stack.callback(tracker.close)
        tracker.start()
        sources = {}
        for name, log in logs.items():
            script = [sys.executable, str(Path(__file__).with_name("source.py"))]
            paths = [str(path) for path in (tracker.where.token_file, log, stop)]
            source = subprocess.Popen(
                [*script, name, tracker.address, *paths], stdout=subprocess.PIPE, text=True, env=quiet()
            )
            stack.callback(source.wait, 10)
            stack.callback(source.kill)
            sources[name] = source
        until(lambda: all(acknowledged(log) for log in logs.values()), "all sources are heard", 30)
        for number in range(kills):
            # The moment is drawn in facts: some trackers are killed before they acknowledged anything.
            more = draw.choice((0, 1, 500, 3000))
            before = sum(acknowledged(log) for log in logs.values())
            until(lambda: is_held(tracker.where.path), "it holds the run", 20)
            until(
                lambda more=more, before=before: sum(acknowledged(log) for log in logs.values()) >= before + more,  # type: ignore[misc]
                f"{more} more facts acknowledged after kill {number}; it said {tracker.words()}",
                20,
            )
            assert tracker.end(signal.SIGKILL) == -signal.SIGKILL
            promised = {name: acknowledged(log) for name, log in logs.items()}
            stored = last_sequences(tracker.where.ledger)
            for name, sequence in promised.items():
                assert stored[name] >= sequence, f"{name}: {sequence} acknowledged, {stored[name]} stored"
            tracker.start()
        stop.touch()
        sent = {}
        for name, source in sources.items():
            out, _ = source.communicate(timeout=60)
            incarnation, count, flushed = out.split()
            assert flushed == "True", f"{name} still held facts"
            sent[name, incarnation] = int(count)
            assert source.returncode == 0
        assert tracker.end(signal.SIGTERM) == 0, tracker.words()
    numbers: dict[tuple[str, str], int] = dict.fromkeys(sent, 0)
    with LedgerReader(tracker.where.ledger) as reader:
        position = 0
        for fact in reader.read_all():
            position += 1
            assert fact[0] == position
            if fact[1] == "tracker":
                assert fact[5] != "refused"
                continue
            key = (fact[1], fact[2])
            numbers[key] += 1
            assert fact[3] == numbers[key], f"{key}: {fact[3]} stands where {numbers[key]} belongs"
            assert fact[5] == "progress"
            assert json.loads(fact[6])["n"] == fact[3]
    assert numbers == sent
    assert_folds_equal_rebuild(tracker.where.ledger)


def test_20_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 20, seed=1)


@pytest.mark.soak
def test_100_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, 100, seed=2)
