"""What a user's own code may do wrong in the middle of a run: it is a fact, a clear message, and the right exit."""

from __future__ import annotations

import json
from pathlib import Path

from tests.flow.running import Running

OWN = '''
import os
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from learners.ppo import Ppo

HERE = Path(__file__).parent


class Trap(gymnasium.Env):
    """Raises in step `at`, once in a run (the file `sprung` tells) or always, or in every
    reset of the run, not in the check before it; each takes `pause`."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, at=200, once=True, on_reset=False, pause=0.0):
        self.at, self.once, self.on_reset, self.pause, self.steps = at, once, on_reset, pause, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.on_reset and (HERE / "checked").exists():
            time.sleep(self.pause)
            raise RuntimeError("the door is stuck")
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        time.sleep(self.pause)
        if self.steps >= self.at and not (self.once and (HERE / "sprung").exists()):
            (HERE / "sprung").touch()
            raise RuntimeError("the trap is sprung")
        return np.zeros(3, np.float32), 1.0, self.steps % 10 == 0, False, {}

    def close(self):
        (HERE / "checked").touch()


class Sour(Ppo):
    """Fails in its third update, in every process."""

    tried = 0

    def update(self):
        self.tried += 1
        if self.tried == 3:
            raise ArithmeticError("the gradient is sour")
        return super().update()


class Frail(torch.nn.Module):
    """A network that can be evaluated once: when it is looked at."""

    def __init__(self, observation, action, **settings):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.looked_at = False

    def forward(self, observations):
        if self.looked_at:
            raise ValueError("no such layer")
        self.looked_at = True
        out = self.layer(observations)
        return out[..., :2], out[..., 2]
'''
RUN = """
name = "trap"
[stop]
seconds = {seconds}
[environment]
id = "own:Trap"
settings = {settings}
[actors]
processes = 1
environments = 4
[learner]
fragment_steps = 16
settings = {{ batch_steps = 64 }}
"""


def written(home: Path, settings: str = "{}", seconds: float = 600) -> str:
    (home / "own.py").write_text(OWN)
    (home / "own.toml").write_text(RUN.format(settings=settings, seconds=seconds))
    return "own.toml"


def test_an_environment_that_raises_once(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path), "--set", "supervision.backoff_seconds=0.1") as run:
        run.restarts.add("actor-0")
        error = run.until(lambda: run.last("environment_error"), "the error is a fact", 45)
        assert "the trap is sprung" in error.body["traceback"]
        assert "own.py" in error.body["traceback"]
        assert isinstance(error.body["seed"], int)
        assert error.body["step"] >= 1
        assert error.body["environment"] in range(4)
        run.until(lambda: run.pid("actor-0") and run.spawned("actor-0").body["attempt"] == 2, "it is there again")  # type: ignore[union-attr]
        known = error.incarnation
        run.until(lambda: [f for f in run.facts("episode", "actor-0") if f.incarnation != known], "it plays on", 20)
        (fell,) = [f for f in run.facts("exited") if not f.body["expected"]]
        assert fell.body["status"] == 1
        assert "the trap is sprung" in fell.body["last_words"]
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["environment_errors"] == 1
    assert summary["restarts"]["actor-0"] == 1
    assert summary["state"] == "ended"


def failed(run: Running, words: str, who: str) -> None:
    """It ended with 1, and said why, on stderr and in the ledger."""
    assert run.wait(60) == 1, run.told()
    run.restarts.add(who)
    told = run.errors.read_text()
    assert words in told, told
    assert who in told
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["state"] == "failed"
    assert who in summary["reason"]
    assert any(who in alarm for alarm in summary["alarms"])
    fell = [f for f in run.facts("exited") if not f.body["expected"]]
    assert {f.body["role"] for f in fell} == {who}
    assert all(f.body["status"] == 1 and words in f.body["last_words"] for f in fell)


def test_a_budget_of_none(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path), "--set", "supervision.restarts=0", status=1) as run:
        failed(run, "the trap is sprung", "actor-0")
        assert [f.body["attempt"] for f in run.facts("spawned") if f.body["role"] == "actor-0"] == [1]


QUICK = ("--set", "supervision.backoff_seconds=0.05", "--set", "supervision.restarts=1")


def test_an_environment_that_never_resets(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, "{ on_reset = true }"), *QUICK, status=1) as run:
        failed(run, "the door is stuck", "actor-0")
        errors = run.facts("environment_error")
        assert len(errors) == 2
        assert all("the door is stuck" in error.body["traceback"] for error in errors)


SLOW = (*QUICK, "--set", "supervision.window_seconds=1")


def test_slow_falls_without_progress_end_the_run(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, "{ on_reset = true, pause = 1.2 }"), *SLOW, status=1) as run:
        failed(run, "the door is stuck", "actor-0")
        assert "actor-0 ended 2 times in" in run.errors.read_text()
        assert "with nothing done between" in run.errors.read_text()


def test_slow_falls_with_work_between_do_not_end_the_run(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, "{ at = 60, once = false, pause = 0.006 }"), *SLOW) as run:
        run.restarts.add("actor-0")
        run.until(lambda: len([f for f in run.facts("exited") if not f.body["expected"]]) >= 4, "falls", 45)
        assert run.phase() == "running"


def test_an_algorithm_that_raises_in_an_update(tmp_path: Path) -> None:
    more = ("--set", "learner.algorithm=own:Sour", "--set", "learner.checkpoint_seconds=0.01")
    with Running(tmp_path, written(tmp_path, "{ at = 1000000 }"), *more, *QUICK, status=1) as run:
        failed(run, "the gradient is sour", "learner-agent")
        lives = {life for life, _ in run.versions()}
        assert lives == {1, 2}


def test_a_network_that_fails(tmp_path: Path) -> None:
    more = ("--set", "policies.network=own:Frail", "--set", "supervision.restarts=0")
    with Running(tmp_path, written(tmp_path, "{ at = 1000000 }"), *more, status=1) as run:
        failed(run, "no such layer", "actor-0")


def test_a_ledger_that_was_removed_ends_the_run_whole(tmp_path: Path) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.seconds=600", status=1) as run:
        run.learning(2)
        for path in run.directory.glob("ledger.sqlite*"):
            path.unlink()
        assert run.wait() == 1
    told = run.out.read_text()
    assert "ALARM: " in told
    assert "ledger.sqlite was removed while the run went on" in told
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["state"] == "failed"
    assert "headrace run --resume" in summary["reason"]
    with Running(tmp_path, "--resume") as run:
        run.until(lambda: run.last("resumed"), "the learner goes on from its last checkpoint", 45)
