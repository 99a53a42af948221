"""What users get wrong in modules of their own is told where they look, and a run in which nothing came of it fails."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import launcher
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from tests.flow.running import Running, headrace

OWN = """
import gymnasium
import numpy as np
from gymnasium import spaces
from learners.ppo import Ppo


class Plain(gymnasium.Env):
    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 1.0, self.steps >= 10, False, {}


class Blind(Plain):
    def step(self, action):
        seen, *rest = super().step(action)
        return seen * float("nan"), *rest


class Falling(Plain):
    made = 0

    def step(self, action):
        self.made += 1
        if self.made == 60:
            raise RuntimeError("the floor is missing")
        return super().step(action)


class Shrinking(Falling):
    def step(self, action):
        self.made += 1
        seen, *rest = Plain.step(self, action)
        return seen[: 1 if self.made == 60 else 3], *rest


class Silent(Plain):
    def step(self, action):
        super().step(action)


class Tensors(Ppo):
    def snapshot(self):
        return {"network": self.network.state_dict()}


class Nothing(Ppo):
    def snapshot(self):
        pass
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    text = 'name = "own"\n[environment]\nid = "own:Plain"\n[actors]\nprocesses = 1\nenvironments = 4\n'
    (tmp_path / "own.toml").write_text(text)
    return tmp_path


def test_experience_that_is_refused_is_told_in_the_summary_with_its_reason(home: Path) -> None:
    done = headrace("run", "own.toml", "--headless", "--seconds", "4", "--set", "environment.id=own:Blind", cwd=home)
    assert done.returncode == 1, done.stdout
    cause = "nothing was learned: agent refused all of its [0-9,]+ fragments: the observation of agent is not finite"
    assert re.search(f"{cause} in environment 0 \\(seed [0-9]+, step [0-9]+\\)", done.stderr), done.stderr
    assert "are not finite" in done.stdout
    assert "! agent refused" in done.stdout
    (directory,) = (home / "runs-out").iterdir()
    policy = json.loads((directory / "summary.json").read_text())["policies"]["agent"]
    assert policy["refusal"].endswith("are not finite")
    assert policy["fragments"]["refused"] > 0 == policy["fragments"]["consumed"]


def test_a_run_in_which_everything_fell_has_failed(home: Path) -> None:
    done = headrace("run", "own.toml", "--headless", "--seconds", "5", "--set", "environment.id=own:Falling", cwd=home)
    assert done.returncode == 1, done.stdout
    assert "nothing was learned: an environment raised RuntimeError" in done.stderr
    assert "actor-0 ended with status 1" in done.stderr
    assert "the floor is missing" in done.stderr


def test_an_observation_not_of_its_space_is_an_environment_error(home: Path) -> None:
    setting = ("--set", "environment.id=own:Shrinking", "--set", "supervision.restarts=0")
    done = headrace("run", "own.toml", "--headless", "--seconds", "20", *setting, cwd=home)
    assert done.returncode == 1, done.stdout
    assert "agent's observation is float32[1] (0), and its space says float32[3]" in done.stderr
    (directory,) = (home / "runs-out").iterdir()
    with closing(sqlite3.connect(directory / "ledger.sqlite")) as ledger:
        ((body,),) = ledger.execute("SELECT body FROM facts WHERE kind = 'environment_error'").fetchall()
    fault = json.loads(body)
    assert (fault["step"], fault["episode"]) == (9, 5)
    assert "NotOfSpace" in fault["traceback"]


def test_a_run_whose_environment_changed_is_not_resumed(home: Path) -> None:
    directory = ("--run-dir", "run")
    done = headrace("run", "own.toml", "--headless", "--seconds", "3", *directory, cwd=home)
    assert done.returncode == 0, done.stderr
    facts = (home / "run" / "ledger.sqlite").read_bytes()
    (home / "own.py").write_text(OWN.replace("(3,)", "(4,)").replace("zeros(3", "zeros(4"))
    for command in (("run", "--headless", "--resume", *directory), ("evaluate", "run")):
        refused = headrace(*command, cwd=home)
        assert refused.returncode == 2, refused.stderr
        assert "its environment has changed since the run began: agent saw box [3], and now box [4]" in refused.stderr
    assert (home / "run" / "ledger.sqlite").read_bytes() == facts, "no role was started"


@pytest.mark.parametrize("command", ["check", "run"])
def test_what_the_first_episode_shows_starts_no_run(home: Path, command: str) -> None:
    message = headrace(command, "own.toml", "--set", "environment.id=own:Silent", cwd=home)
    assert message.returncode == 2
    assert "step(): the answer is NoneType, not (observation, reward, terminated" in message.stderr
    assert not (home / "runs-out").exists() or not list((home / "runs-out").iterdir())


@pytest.mark.parametrize(
    ("algorithm", "told"),
    [("Tensors", "Tensors.snapshot() cannot be kept: /network/"), ("Nothing", "Nothing.snapshot() returned nothing")],
)
def test_what_cannot_be_kept_is_found_by_check_and_ends_a_run(home: Path, algorithm: str, told: str) -> None:
    setting = ("--set", f"learner.algorithm=own:{algorithm}")
    checked = headrace("check", "own.toml", *setting, cwd=home)
    assert checked.returncode == 2
    assert told in checked.stderr
    often = ("--set", "learner.checkpoint_seconds=0.5", "--set", "learner.settings.batch_steps=64")
    done = headrace("run", "own.toml", "--headless", "--seconds", "20", *often, *setting, cwd=home)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr


def test_a_run_is_resumed_as_itself(cartpole: Running, tmp_path: Path) -> None:
    done = headrace("run", "spread", "--headless", "--resume", "--run-dir", str(cartpole.directory), cwd=tmp_path)
    assert done.returncode == 2
    assert "'spread' is another run than the one in" in done.stderr


def test_a_loaded_policy_keeps_to_the_mask(tmp_path: Path) -> None:
    text = '[environment]\nid = "tests.actors.worlds:Doors"\n[learner.settings]\nbatch_steps = 512\n'
    (tmp_path / "doors.toml").write_text(text)
    root = Path(__file__).parents[2]
    done = headrace("run", "doors.toml", "--headless", "--seconds", "5", "--set", f"folder={root}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "runs-out").iterdir()
    policy = launcher.load(directory).policy("agent")
    settings = EnvironmentSettings(id="tests.actors.worlds:Doors")
    doors = make(settings, 1)._environments[0]  # type: ignore[attr-defined]
    observation, _ = doors.reset(seed=3)
    for _ in range(300):
        observation, *_ = doors.step(policy.act(observation))
    with pytest.raises(ValueError, match="give the observation with its action_mask"):
        policy.act(observation["observation"])
    with pytest.raises(ValueError, match=r"action_mask is 2 .*from 0 to 1"):
        policy.act({**observation, "action_mask": np.full(6, 2, np.int8)})
    with pytest.raises(ValueError, match=r"observation is float32\[5\], and its space says float32\[6\]"):
        policy.act({**observation, "observation": observation["observation"][:5]})
