"""Small environments of our own, each with one property that the public ones lack."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Relay(ParallelEnv):
    """Three agents: "early" dies in step 2, "late" appears after step 3, "steady" is truncated with it in step 5.

    Observations are [agent's place, cycle] as float64, with a mask that forbids choice `cycle % 3`; rewards are the
    action given, so that a return tells which actions arrived. `keep` leaves the dead in `agents`, as careless
    environments do.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "relay"}
    possible_agents: ClassVar[list[str]] = ["early", "late", "steady"]

    def __init__(self, keep: bool = False) -> None:
        self.agents: list[str] = []
        self.keep = keep
        self.cycle = 0
        self.received: list[dict[str, int]] = []

    def observation_space(self, agent: str) -> spaces.Space:
        plain = spaces.Box(0, 100, (2,), np.float64)
        return spaces.Dict({"observation": plain, "action_mask": spaces.MultiBinary(3)})

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(3, start=10)

    def _see(self, agents: list[str]) -> dict[str, Any]:
        mask = np.ones(3, np.int8)
        mask[self.cycle % 3] = 0
        place = self.possible_agents.index
        return {a: {"observation": np.array([place(a), self.cycle], float), "action_mask": mask} for a in agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.cycle = 0
        self.agents = ["early", "steady"]
        return self._see(self.agents), {a: {} for a in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        self.received.append(dict(actions))
        self.cycle += 1
        acted = list(actions)
        terminations = {a: a == "early" for a in acted} if self.cycle == 2 else dict.fromkeys(acted, False)
        truncations = dict.fromkeys(acted, self.cycle == 5)
        if not self.keep:
            self.agents = [a for a in self.agents if not (terminations[a] or truncations[a])]
        elif "early" in self.agents and self.cycle >= 2:
            terminations["early"] = True
        if self.cycle == 3:
            self.agents = [*self.agents, "late"]
            terminations["late"] = truncations["late"] = False
        seen = self._see([*dict.fromkeys([*acted, *self.agents])])
        return seen, {a: float(actions[a]) for a in acted}, terminations, truncations, {a: {} for a in seen}


class Fragile(gymnasium.Env):
    """Raises in step 4 of the second episode; an episode is terminated after 5 steps."""

    observation_space = spaces.Dict(
        {"place": spaces.Discrete(9, start=1), "parts": spaces.Tuple((spaces.Box(0, 1, (2,)), spaces.MultiBinary(2)))}
    )
    action_space = spaces.MultiDiscrete([2, 3], start=[1, 0])

    def __init__(self, when: str = "step") -> None:
        if when == "constructor":
            raise OSError("no such level")
        self.when = when
        self.resets = 0
        self.at = 0
        self.received: list[Any] = []

    def _see(self) -> Any:
        return {"place": self.at + 1, "parts": (np.full(2, self.at / 10, np.float32), np.array([1, 0], np.int8))}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.resets += 1
        if self.when == "reset" and self.resets == 2:
            raise RuntimeError("the floor gave way")
        self.at = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.received.append(action)
        if self.when == "step" and self.resets == 2 and self.at == 3:
            raise RuntimeError("the wall gave way")
        self.at += 1
        return self._see(), 1.0, self.at == 5, False, {}


class Steered(gymnasium.Env):
    """Continuous actions; keeps what it received. Truncated and terminated by turns, every second step."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.array([-1.0]), {}

    def step(self, action: Any) -> Any:
        self.received.append(action)
        self.steps += 1
        ends = self.steps % 2 == 0
        return (
            np.array([self.steps / 3]),
            np.float64(0.5),
            ends and self.steps % 4 == 0,
            ends and self.steps % 4 != 0,
            {},
        )


class Doors(gymnasium.Env):
    """Some of six doors are open; a closed one ends it all. It has no end of its own if `ends` is false."""

    observation_space = spaces.Dict(
        {"observation": spaces.Box(0.0, 1.0, (6,), np.float32), "action_mask": spaces.Box(0, 1, (6,), np.int8)}
    )
    action_space = spaces.Discrete(6)

    def __init__(self, ends: bool = True) -> None:
        self.ends = ends

    def _see(self) -> Any:
        self.open = (self.np_random.random(6) < 0.4).astype(np.int8)
        self.open[self.np_random.integers(6)] = 1
        return {"observation": self.np_random.random(6, dtype=np.float32), "action_mask": self.open}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._see(), {}

    def step(self, action: Any) -> Any:
        assert self.open[action], "a closed door"
        self.steps += 1
        return self._see(), 1.0, False, self.ends and self.steps >= 10, {}


def no_environment() -> int:
    return 3


def unreadable() -> gymnasium.Env:
    environment = Steered()
    environment.action_space = spaces.Text(3)
    return environment
