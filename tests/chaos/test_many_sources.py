"""Promises 1 to 3 by doing it: many sources of every kind of fact, while trackers and sources are killed at random."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.durable_log import acknowledged
from tests.chaos.test_tracker_under_load import Tracker
from tests.flow.running import assert_folds_equal_rebuild, quiet, until
from tracker.ledger import LedgerReader
from tracker.lock import is_held

Logs = dict[tuple[str, str], int]
"""By (source, incarnation), the highest sequence that it knew to be durable."""


class Sources:
    """Processes under the names actor-0, actor-1, ...; each name has one at a time."""

    def __init__(self, tracker: Tracker, home: Path, count: int) -> None:
        self._tracker, self._home = tracker, home
        self.stop = home / "stop"
        self.logs = home / "logs"
        self.logs.mkdir()
        self.running: dict[str, subprocess.Popen[str]] = {}
        for index in range(count):
            self.start(f"actor-{index}")

    def start(self, name: str) -> None:
        paths = [str(path) for path in (self._tracker.where.token_file, self.logs, self.stop)]
        script = [sys.executable, str(Path(__file__).with_name("mixed_source.py")), name, self._tracker.address, *paths]
        self.running[name] = subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=quiet())

    def kill(self, name: str) -> None:
        source = self.running[name]
        source.kill()
        source.communicate(timeout=10)
        self.start(name)

    def acknowledged(self) -> Logs:
        return {tuple(log.name.split("~")): acknowledged(log) for log in self.logs.iterdir()}  # type: ignore[misc]

    def newest(self) -> dict[str, int]:
        """Of each name's newest incarnation."""
        return {name: sequence for (name, _), sequence in sorted(self.acknowledged().items())}

    def end(self) -> dict[tuple[str, str], int]:
        """How many facts those that still ran have sent."""
        self.stop.touch()
        sent = {}
        for name, source in self.running.items():
            out, _ = source.communicate(timeout=120)
            incarnation, count, flushed = out.split()
            assert source.returncode == 0
            assert flushed == "True", f"{name} still held facts"
            sent[name, incarnation] = int(count)
        return sent

    def close(self) -> None:
        for source in self.running.values():
            source.kill()
            source.wait(10)


def stored(ledger: Path) -> Logs:
    with LedgerReader(ledger) as reader:
        return reader.last_sequences()


def keep_killing(home: Path, *, count: int, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    tracker = Tracker(home)
    killed: Counter[str] = Counter()
    with ExitStack() as stack:
        stack.callback(tracker.close)
        tracker.start()
        sources = Sources(tracker, home, count)
        stack.callback(sources.close)
        until(
            lambda: len(sources.acknowledged()) == count and all(sources.acknowledged().values()), "all are heard", 60
        )
        for number in range(kills):
            # The moment is drawn in facts: some are killed before anything was acknowledged since the last kill.
            enough = sum(sources.acknowledged().values()) + draw.choice((0, 1, 300, 1500))
            until(lambda: is_held(tracker.where.path), "the tracker holds the run", 20)
            until(
                lambda enough=enough: sum(sources.acknowledged().values()) >= enough,  # type: ignore[misc]
                f"{enough} facts acknowledged after kill {number}; the tracker said {tracker.words()}",
                60,
            )
            victim = "tracker" if number % 3 == 0 else draw.choice(["tracker", *sources.running])
            killed[victim] += 1
            if victim == "tracker":
                assert tracker.end(signal.SIGKILL) == -signal.SIGKILL
                promised, there = sources.acknowledged(), stored(tracker.where.ledger)
                for key, sequence in promised.items():
                    assert there.get(key, 0) >= sequence, f"{key}: {sequence} acknowledged, {there.get(key)} stored"
                tracker.start()
            else:
                sources.kill(victim)
        until(lambda: all(sources.newest().values()), "the last ones are heard", 60)
        sent = sources.end()
        promised = sources.acknowledged()
        assert tracker.end(signal.SIGTERM) == 0, tracker.words()
    assert killed["tracker"] >= kills // 3
    assert count < len(promised) <= count + sum(killed.values()) - killed["tracker"]
    check(tracker.where.ledger, promised, sent)
    assert_folds_equal_rebuild(tracker.where.ledger)


def check(ledger: Path, promised: Logs, sent: Logs) -> None:
    """Every fact once, in the order of its source, nothing that was acknowledged is missing."""
    numbers: Counter[tuple[str, str]] = Counter()
    kinds: Counter[str] = Counter()
    with LedgerReader(ledger) as reader:
        for position, fact in enumerate(reader.read_all(), 1):
            assert fact[0] == position
            assert fact[5] != "refused"
            key = (fact[1], fact[2])
            numbers[key] += 1
            assert fact[3] == numbers[key], f"{key}: {fact[3]} stands where {numbers[key]} belongs"
            kinds[fact[5]] += 1
            if fact[1] != "tracker":
                assert json.loads(fact[6])["n"] == fact[3]
        assert reader.last_sequences() == dict(numbers)
    for key, sequence in promised.items():
        assert numbers[key] >= sequence, f"{key}: {sequence} were acknowledged, {numbers[key]} are there"
    for key, sequence in sent.items():
        assert numbers[key] == sequence, f"{key}: {sequence} were sent and flushed, {numbers[key]} are there"
    for kind in ("episode", "progress", "mint", "outcome", "rollout_error", "duplicate_task", "late_outcome"):
        assert kinds[kind], f"no {kind}: {kinds}"


def test_4_sources_under_4_kills(tmp_path: Path) -> None:
    keep_killing(tmp_path, count=4, kills=4, seed=5)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [6, 7, 8])
def test_16_sources_under_30_kills(tmp_path: Path, seed: int) -> None:
    keep_killing(tmp_path, count=16, kills=30, seed=seed)
