"""What newcomers' environments get wrong, in real environments."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actors.environments.probe import probe
from actors.environments.settings import EnvironmentSettings
from broker.errors import RequestError
from tests.actors.worlds import Relay


class Room(gymnasium.Env):
    """`wrong` is what it does; anything else is right."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.wrong == "raises":
            raise OSError("no task")
        seen = np.zeros(4 if self.wrong == "shape" else 3, np.float32)
        return seen if self.wrong == "bare" else (seen, {})

    def step(self, action: Any) -> Any:
        if self.wrong == "old":
            return np.zeros(3, np.float32), 0.0, False, {}
        reward = None if self.wrong == "unpaid" else 0.0
        return ({"a": 1} if self.wrong == "dict" else np.zeros(3, np.float32)), reward, False, False, {}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("shape", r"reset\(\) gave an observation of shape \[4\], and its observation_space says \[3\]"),
        ("bare", r"reset\(\) gave ndarray\. To mend it: return \(observation, info\)"),
        ("old", r"step\(\) gave 4 of them\. To mend it: return \(observation, reward, terminated, truncated, info\)"),
        ("unpaid", r"step\(\) gave a reward of type NoneType"),
        ("dict", r"step\(\) gave an observation that is none of its space"),
    ],
)
def test_it_is_told_before_anything_is_played(wrong: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        probe(EnvironmentSettings(id=f"{__name__}:Room", settings={"wrong": wrong}))


@pytest.mark.parametrize("wrong", ["", "raises"])
def test_what_is_right_and_what_is_raised_pass(wrong: str) -> None:
    assert probe(EnvironmentSettings(id=f"{__name__}:Room", settings={"wrong": wrong}))["kind"] == "gymnasium"


class Leaving(Relay):
    """Who is gone sees nothing any more."""

    def step(self, actions: Any) -> Any:
        seen, *rest = super().step(actions)
        return {agent: None if agent == "early" else one for agent, one in seen.items()}, *rest


@pytest.mark.parametrize(
    "name",
    [f"{__name__}:Leaving", "CartPole-v1", "mpe2:simple_spread_v3", "FrozenLake-v1", "tests.actors.worlds:Relay"],
)
def test_the_environments_of_others_have_manners(name: str) -> None:
    assert probe(EnvironmentSettings(id=name))["agents"]
