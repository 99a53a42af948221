"""A policy without torch or an environment: parameters are a dictionary, and it mints the tasks that it learns from."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from broker.arrays import from_bytes
from tests.flow.running import Running
from tracker.checkpoints import newest_valid

OWN = '''
import asyncio
import time
from pathlib import Path

import numpy as np

from actors.rollout import Outcome, Piece
from learners.algorithm import Task

HERE = Path(__file__).parent


class Guess:
    """Finds a number: mints five guesses around its own, keeps the best. An update is a coroutine."""


    def __init__(self, context):
        self.at, self.round, self.seen, self.open = 0.0, 0, {}, False

    def mint(self):
        if self.open:
            return ()
        self.open = True
        return [Task(f"{self.round}.{step}", {"guess": self.at + step}) for step in range(-2, 3)]

    def accept(self, fragment):
        if fragment.task.startswith(f"{self.round}."):  # one that comes twice, or too late, changes nothing
            self.seen[fragment.task] = (float(fragment.arrays["score"][0]), fragment.note["guess"])

    def ready(self):
        return len(self.seen) >= 5

    async def update(self):
        await asyncio.sleep(0.01)
        score, self.at = max(self.seen.values())
        self.seen, self.open, self.round = {}, False, self.round + 1
        return {"score": score}

    def parameters(self):
        return {"at": self.at, "words": ["warm", "cold"]}

    def snapshot(self):
        return {"at": self.at, "round": self.round}

    def restore(self, tree):
        self.at, self.round = tree["at"], tree["round"]


class Judge:
    """Scores a guess; 17 is right. The first process that gets a task named in `hold` keeps it for ever."""

    def __init__(self, context):
        self.actor = context.actor

    def score(self, task, parameters):
        assert parameters["p"].tree["words"] == ["warm", "cold"]
        guess = task.body["guess"]
        score = 1.0 / (1.0 + abs(guess - 17.0))
        return Outcome(score, [Piece("p", {"score": np.array([score])}, note={"guess": guess})])

    def run(self, task, parameters):
        mark = HERE / "held"
        if (HERE / "hold").exists() and task.task == "1.0" and not mark.exists():
            mark.write_text(self.actor)
            time.sleep(600)
        return self.score(task, parameters)


class Patient(Judge):
    async def run(self, task, parameters):
        await asyncio.sleep(0.01)
        return self.score(task, parameters)


class Clumsy(Judge):
    """Drops every task once."""

    def run(self, task, parameters):
        mark = HERE / f"dropped-{task.task}"
        if not mark.exists():
            mark.touch()
            raise RuntimeError("it slipped")
        return self.score(task, parameters)
'''
RUN = """
name = "guess"
[actors]
processes = 2
rollout = "own:{rollout}"
concurrency = {concurrency}
[policies]
names = ["p"]
[learner]
algorithm = "own:Guess"
"""


def written(home: Path, rollout: str, concurrency: int = 1) -> str:
    (home / "own.py").write_text(OWN)
    (home / "own.toml").write_text(RUN.format(rollout=rollout, concurrency=concurrency))
    return "own.toml"


def settled(run: Running) -> Counter[str]:
    """Outcomes by task, without those that came too late to count."""
    late = Counter(f.body["task"] for f in run.facts("late_outcome"))
    return Counter(f.body["task"] for f in run.facts("outcome")) - late


@pytest.mark.parametrize(("rollout", "concurrency"), [("Judge", 1), ("Patient", 4), ("Clumsy", 1)])
def test_a_policy_that_mints_its_own_work(tmp_path: Path, rollout: str, concurrency: int) -> None:
    with Running(tmp_path, written(tmp_path, rollout, concurrency)) as run:
        run.until(lambda: len(run.versions("p")) >= 10, "ten updates", 60)
    minted = [task["task"] for fact in run.facts("mint") for task in fact.body["tasks"]]
    assert len(set(minted)) == len(minted)
    done = settled(run)
    assert set(done.values()) == {1}
    assert set(done) <= set(minted)
    assert len(done) >= 50
    scores = [fact.body["losses"]["score"] for fact in run.facts("update")]
    assert scores[8] == 1.0, "two steps a round, 17 in nine"
    errors = run.facts("rollout_error")
    assert all("it slipped" in error.body["traceback"] for error in errors)
    assert len(errors) >= 50 if rollout == "Clumsy" else not errors
    found, _ = newest_valid(run.directory / "checkpoints", "p")
    assert found is not None
    tree = from_bytes(found[0].read_bytes())
    assert tree["parameters"]["at"] == 17.0
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["tasks"]["done"] == len(done)
    assert summary["tasks"]["late"] == 0


def test_a_runner_that_dies_with_a_lease(tmp_path: Path) -> None:
    (tmp_path / "hold").touch()
    with Running(tmp_path, written(tmp_path, "Judge")) as run:
        held = tmp_path / "held"
        run.until(lambda: held.exists() and held.read_text(), "a runner holds the task", 60)
        assert len(run.versions("p")) == 1
        name = held.read_text()
        before = run.kill(name)
        run.restarted(before)
        run.until(lambda: len(run.versions("p")) >= 5, "it goes on", 30)
    (first, second) = [f for f in run.facts("assign") if f.body["task"] == "1.0"]
    (returned,) = [f for f in run.facts("lease_returned") if f.body["task"] == "1.0"]
    (outcome,) = [f for f in run.facts("outcome") if f.body["task"] == "1.0"]
    assert (first.body["to"], returned.body["from"]) == (name, name)
    assert (second.body["to"], second.body["incarnation"]) == (outcome.source, outcome.incarnation)
    assert first.position < returned.position < second.position < outcome.position
    assert first.body["incarnation"] != second.body["incarnation"]


def test_the_first_outcome_counts(tmp_path: Path) -> None:
    """A runner that is silent for longer than its lease: the task goes to another, its own outcome comes too late."""
    (tmp_path / "hold").touch()
    run_file = written(tmp_path, "Judge")
    own = tmp_path / "own.py"
    own.write_text(own.read_text().replace("time.sleep(600)", "time.sleep(3)"))
    with Running(tmp_path, run_file, "--set", "tracker.lease_seconds=1") as run:
        run.until(lambda: run.facts("late_outcome"), "an outcome came late", 60)
        run.until(lambda: len(run.versions("p")) >= 5, "it goes on", 30)
    outcomes = [f for f in run.facts("outcome") if f.body["task"] == "1.0"]
    (late,) = run.facts("late_outcome")
    assert len(outcomes) == 2
    assert late.body["task"] == "1.0"
    assert late.body["from"] == (tmp_path / "held").read_text() == outcomes[1].source
    assert outcomes[0].source != outcomes[1].source
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["tasks"]["late"] == 1


def test_a_learner_that_falls_between_rounds(tmp_path: Path) -> None:
    """It goes back to its checkpoint and mints the same names again: other tasks, whose outcomes are its own."""
    with Running(tmp_path, written(tmp_path, "Patient", 4), "--set", "learner.checkpoint_seconds=0.2") as run:
        run.until(lambda: run.last("checkpoint"), "a checkpoint", 60)
        before = run.pid("learner-p")
        run.restarts.add("learner-p")
        os.kill(before, signal.SIGKILL)
        run.until(lambda: [v for v in run.versions("p") if v[0] == 2][2:], "versions of the next life", 30)
