"""Environments whose episodes are drawn tasks: every task has one end, and rows without one are not valid."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo import ParallelEnv

from actors.curriculum.drawn import DrawnTask
from actors.curriculum.scoring import Played
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.settings import EnvironmentSettings

SPACE = gymnasium.spaces.Box(0, 100, (1,), np.float32)


class Count(gymnasium.Env[Any, Any]):
    """Lasts `options.steps`, each of reward 1, its observation the step.

    `fall` is the step that raises, `odd` the one that shows what no column can hold.
    """

    made = 0

    def __init__(self, high: float = 100, bad: bool = False) -> None:
        if bad:
            raise OSError("no such file")
        type(self).made += 1
        self.observation_space = gymnasium.spaces.Box(0, high, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.options, self.t = seed, options or {}, 0
        if "door" in self.options:
            raise {"stuck": OSError, "wrong": ValueError}[self.options["door"]]("the door")
        return np.zeros(1 if self.options.get("odd") != 0 else 2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        if self.t == self.options.get("fall"):
            raise RuntimeError("fell")
        over = self.t >= self.options.get("steps", 3)
        info = {"seed": self.seed, "drawn": float(self.np_random.random())}
        seen = np.full(1 if self.t != self.options.get("odd") else 2, self.t, np.float32)
        return seen, 1.0, over, False, info


class Two(ParallelEnv[str, Any, Any]):
    """The same for two agents."""

    metadata: ClassVar = {"name": "two"}

    def __init__(self) -> None:
        self.possible_agents = ["a", "b"]

    def observation_space(self, agent: str) -> Any:
        return SPACE

    def action_space(self, agent: str) -> Any:
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        self.inner = Count()
        seen, _ = self.inner.reset(seed=seed, options=options)
        self.agents = ["a", "b"]
        return dict.fromkeys(self.agents, seen), {"a": {}, "b": {}}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        seen, _, over, _, info = self.inner.step(0)
        acting = self.agents
        if over:
            self.agents = []
        every = dict.fromkeys
        return every(acting, seen), every(acting, 1.0), every(acting, over), every(acting, False), every(acting, info)


class Pile:
    """Tasks as a list; what came of each."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.left = deque(DrawnTask(f"t{n}", "label", n, body) for n, body in enumerate(bodies))
        self.scores: dict[str, float] = {}
        self.errors: dict[str, bool] = {}
        self.texts: dict[str, str] = {}

    @property
    def stock(self) -> int:
        return len(self.left)

    def tend(self, wanted: int = 0) -> None: ...

    def hungry(self) -> bool:
        return not self.left

    def take(self) -> DrawnTask | None:
        return self.left.popleft() if self.left else None

    def outcome(self, drawn: DrawnTask, score: float) -> None:
        assert drawn.task not in self.scores.keys() | self.errors.keys()
        self.scores[drawn.task] = score

    def failed(self, drawn: DrawnTask, traceback: str, *, permanent: bool) -> None:
        assert drawn.task not in self.scores.keys() | self.errors.keys()
        self.errors[drawn.task], self.texts[drawn.task] = permanent, traceback


def made(pile: Pile, count: int = 1, form: str = "Count", score: Any = None) -> TaskedEnvironments:
    environment = EnvironmentSettings(id=f"{__name__}:{form}")
    return TaskedEnvironments(environment, count, 7, pile, score or (lambda played: played.length / 100))


def play(environment: TaskedEnvironments, rows: int = 200) -> tuple[int, int, list[int]]:
    """Env steps, valid rows and the lengths of episodes, until nothing can be played (AssertionError: never)."""
    environment.reset()
    steps, valid, lengths = 0, 0, []
    for _ in range(rows):
        if not environment.tend():
            return steps, valid, lengths
        step = environment.step({agent: np.zeros(environment.count, np.int64) for agent in environment.agents})
        steps += step.env_steps
        lengths += [episode.length for episode in step.episodes]
        first = environment.agents[0]
        valid += int(step.valid[first].sum())
        for agent in environment.agents:
            row = step.valid[agent]
            assert (row == step.valid[first]).all()
            assert not (step.terminated[agent] & ~row).any()
            assert not (step.truncated[agent] & ~row).any()
            assert not step.rewards[agent][~row].any()
    raise AssertionError(f"it still plays after {rows} rows")


body = st.one_of(
    st.integers(1, 6).map(lambda n: {"options": {"steps": n}, "seed": n}),
    st.builds(lambda n, how: {"options": {"steps": 6, how: n}}, st.integers(1, 6), st.sampled_from(["fall", "odd"])),
    st.sampled_from([{"options": {"door": "stuck"}}, {"options": {"door": "wrong"}}, {"options": {"odd": 0}}]),
    st.sampled_from([{"options": 3}, {"seed": "x"}]),
)


@pytest.mark.parametrize("form", ["Count", "Two"])
@settings(max_examples=40, deadline=None)
@given(bodies=st.lists(body, max_size=12), count=st.integers(1, 4))
def test_every_task_has_one_end_and_only_real_rows_are_valid(
    form: str, bodies: list[dict[str, Any]], count: int
) -> None:
    pile = Pile(*bodies)
    steps, valid, lengths = play(made(pile, count, form), 400)
    whole, rows = [], 0
    for number, given_body in enumerate(bodies):
        options = given_body.get("options")
        name = f"t{number}"
        if not isinstance(options, dict) or "door" in options or options.get("odd") == 0:
            assert pile.errors[name] == (options != {"door": "stuck"})
        elif "fall" in options or "odd" in options:
            rows += options.get("fall", options.get("odd")) - 1
            assert pile.errors[name] is False
        else:
            whole.append(options["steps"])
            rows += options["steps"]
            assert pile.scores[name] == options["steps"] / 100
    assert sorted(lengths) == sorted(whole)
    assert steps == valid == rows


def test_a_seed_makes_the_same_episode_and_settings_another_environment() -> None:
    drawn: list[Any] = []

    def score(played: Played) -> float:
        drawn.append((played.info["seed"], played.info["drawn"]))
        return 1.0

    before = Count.made
    one = {"seed": 3, "options": {"steps": 2}}
    pile = Pile(
        one, {"options": {"steps": 2}}, one, {**one, "settings": {"high": 100}}, {**one, "settings": {"high": 100}}
    )
    play(made(pile, score=score))
    assert drawn[0] == drawn[2] == drawn[3] == drawn[4]
    assert drawn[1][0] is None  # the stream goes on
    assert drawn[1][1] != drawn[0][1]
    assert Count.made - before == 2  # the one with settings of its own was made once


def test_what_cannot_be_made_is_its_tasks_fault_and_the_next_is_played() -> None:
    pile = Pile({"settings": {"high": 5}}, {"settings": {"bad": True}}, {"settings": {"wrong": 1}}, {})
    play(made(pile))
    assert pile.errors == {"t0": True, "t1": True, "t2": True}
    assert "its spaces are" in pile.texts["t0"]
    assert pile.scores == {"t3": 0.03}


def test_a_score_that_raises_is_an_error_of_the_task() -> None:
    pile = Pile({}, {})

    def score(played: Played) -> float:
        raise ZeroDivisionError(played.label)

    play(made(pile, score=score))
    assert pile.errors == {"t0": False, "t1": False}
    assert "ZeroDivisionError: label" in pile.texts["t0"]
