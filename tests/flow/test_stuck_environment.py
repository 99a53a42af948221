"""An environment whose step does not return is named while it lasts, ended after a key's time, and delays no end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flow.running import Running

OWN = """
import ctypes
import time
from pathlib import Path

from gymnasium.envs.classic_control import CartPoleEnv

HERE = Path(__file__).parent


class Stuck(CartPoleEnv):
    made = 0

    def __init__(self, hold=False):
        super().__init__()
        self.copy, Stuck.made = Stuck.made, Stuck.made + 1  # a probe makes three
        self.hold, self.steps = hold, 0

    def step(self, action):
        self.steps += 1
        if self.copy == 3 and self.steps > 120 and not (HERE / "well").exists():
            (ctypes.PyDLL(None).sleep if self.hold else time.sleep)(600)
        return super().step(action)
"""
RUN = """
[stop]
env_steps = 100_000_000
[environment]
id = "own:Stuck"
step_seconds = {seconds}
start_seconds = 20
settings = {{ hold = {hold} }}
[actors]
processes = 1
environments = 4
[learner]
fragment_steps = 8
settings = {{ batch_steps = 64 }}
"""


def written(home: Path, seconds: float, hold: str = "false") -> str:
    (home / "own.py").write_text(OWN)
    (home / "own.toml").write_text(RUN.format(seconds=seconds, hold=hold))
    return "own.toml"


def test_a_step_that_never_returns(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, 10.0)) as run:
        run.restarts.add("actor-0")
        says = "actor-0 is stalled, in environment 3's step for "
        run.until(lambda: says in run.out.read_text(), "the call is named", 45)
        error = run.until(lambda: run.last("environment_error"), "it is over its limit", 30)
        assert (error.body["environment"], error.body["step"] >= 0, error.body["seed"] > 0) == (3, True, True)
        assert 'own.py", line ' in error.body["traceback"]
        assert "environment 3's step" in error.body["traceback"]
        assert "environment.step_seconds allows 10 s" in error.body["traceback"]
        (fell,) = run.until(lambda: run.facts("exited"), "it was ended")
        assert (fell.body["status"], fell.body["expected"]) == (1, False)
        assert "environment.step_seconds allows 10 s" in fell.body["last_words"]
        before = run.out.read_text().count(says)
        run.until(lambda: run.out.read_text().count(says) > before, "it is stuck again", 45)
    left = [fact.body for fact in run.facts("exited") if fact.body["role"] == "actor-0"][-1]
    assert (left["status"], left["expected"]) == (0, True), "it left by itself as the run was ending"
    assert "environment 3's step" in left["last_words"]


@pytest.mark.soak
def test_a_step_that_holds_the_interpreter(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, 1.0, "true")) as run:
        run.restarts.add("actor-0")
        (fell,) = run.until(lambda: run.facts("exited"), "it was ended", 90)
        assert (fell.body["status"], fell.body["expected"]) == (1, False)
        assert "Timeout (" in fell.body["last_words"]
        assert 'own.py", line ' in fell.body["last_words"]
        (tmp_path / "well").touch()
        run.learning()
