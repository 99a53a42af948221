"""What newcomers' environments get wrong is found before a run, by playing them as an actor does."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actors.environments.settings import EnvironmentSettings
from actors.probe import Question, probe
from actors.spaces import ActionSpec
from actors.trial import random_actions
from broker.errors import RequestError
from tests.actors.worlds import Relay


class Room(gymnasium.Env):
    """`wrong` is what it does; anything else is right. An episode has four steps."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.wrong == "raises":
            raise OSError("no task")
        if self.wrong == "C int" and seed is not None:
            np.int32(seed)
        if self.wrong == "second" and seed is None:
            raise OSError("no second episode")
        self.t = 0
        seen = np.zeros(4 if self.wrong == "shape" else 3, np.float32)
        return seen if self.wrong == "bare" else (seen, {})

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.wrong == "item":
            action.item()
        if self.wrong == "silent":
            return None
        if self.wrong == "old":
            return np.zeros(3, np.float32), 0.0, False, {}
        if self.wrong == "falls" and self.t == 3:
            raise RuntimeError("the floor is missing")
        reward = {"unpaid": None, "infinite": float("inf"), "pair": np.zeros(2), "text": "1.0"}.get(self.wrong, 0.0)
        over = self.t == 4 and self.wrong != "endless"
        flag = {"none": None, "half": 0.5}.get(self.wrong, over)
        info: Any = [] if self.wrong == "info" else {}
        seen = np.full(3, 500 if self.wrong == "large" else 0, np.float32)
        return ({"a": 1} if self.wrong == "dict" else seen), reward, flag, False, info


class Old(Room):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


def tried(wrong: str, name: str = "Room") -> dict[str, Any]:
    settings = {"wrong": wrong} if wrong else {}
    return probe(Question(EnvironmentSettings(id=f"{__name__}:{name}", settings=settings), copies=3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("shape", r"reset\(\): agent's observation is float32\[4\] .*, and its space says float32\[3\]"),
        ("bare", r"reset\(\): the answer is ndarray, .*To mend it: return \(observation, info\)"),
        (
            "old",
            r"step\(\): the answer is 4 values, .*To mend it: return \(observation, reward, terminated, truncated,",
        ),
        ("silent", r"step\(\): the answer is NoneType, not \(observation, reward"),
        ("unpaid", r"step\(\): reward is None \(NoneType\), not a finite number"),
        ("infinite", r"reward is inf \(float\), not a finite number"),
        ("pair", r"reward is float64\[2\] \(0, 0\), not a finite number"),
        ("text", r"reward is '1.0' \(str\), not a finite number"),
        ("none", r"terminated is None \(NoneType\), not True or False"),
        ("half", r"terminated is 0.5 \(float\), not True or False"),
        ("info", r"a part of the answer is \[\] \(list\), not a mapping"),
        ("dict", r"step\(\): agent's observation is \{'a': 1\} \(dict\), and its space says float32\[3\]"),
        ("raises", r"reset\(\) raised OSError: no task \(test_trial.py, line \d+; seed \d+, episode 0, step 0\)"),
        ("second", r"reset\(\) raised OSError: no second episode"),
        ("falls", r"step\(\) raised RuntimeError: the floor is missing .*step 2\)"),
    ],
)
def test_what_a_run_would_meet_is_told_before_it(wrong: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        tried(wrong)


def test_a_reset_of_older_gym_is_told_how_to_be() -> None:
    with pytest.raises(RequestError, match=r"write def reset\(self, \*, seed=None, options=None\)"):
        tried("", "Old")


def test_an_endless_environment_is_reset_without_seed() -> None:
    class Endless(Room):
        resets: list[int | None] = []  # noqa: RUF012

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.resets.append(seed)
            return super().reset(seed=seed)

    globals()["Endless"] = Endless
    tried("endless", "Endless")
    assert Endless.resets[-1] is None
    assert all(seed is not None for seed in Endless.resets[:-1])


@pytest.mark.parametrize("wrong", ["", "item", "C int"])
def test_numpy_actions_and_seeds_of_a_c_int_are_given(wrong: str) -> None:
    answer = tried(wrong)
    assert (answer["kind"], answer["warnings"]) == ("gymnasium", [])


def test_large_observations_are_warned_of_unless_normalised() -> None:
    assert "values or bounds up to 500" in tried("large")["warnings"][0]
    settings = EnvironmentSettings(id=f"{__name__}:Room", settings={"wrong": "large"}, normalise=("observation",))
    assert probe(Question(settings))["warnings"] == []


@pytest.mark.parametrize(
    ("high", "actions", "words"),
    [
        (10_000.0, "clip", "action has bounds up to 10000, and a policy begins about 1 from 0: set policies.actions"),
        (10_000.0, "rescale", ""),
        (np.inf, "rescale", "action is a Box without bounds"),
        (2.0, "clip", ""),
    ],
)
def test_bounds_that_are_out_of_reach_are_warned_of(high: float, actions: Any, words: str) -> None:
    class Steered(Room):
        action_space = spaces.Box(-high, high, (1,))  # type: ignore[assignment]

    globals()["SteeredRoom"] = Steered
    settings = EnvironmentSettings(id=f"{__name__}:SteeredRoom", actions=actions)
    warnings = probe(Question(settings))["warnings"]
    assert words in "".join(warnings)
    assert bool(warnings) == bool(words)


class Leaving(Relay):
    """Who is gone sees nothing any more."""

    def step(self, actions: Any) -> Any:
        seen, *rest = super().step(actions)
        return {agent: None if agent == "early" and self.cycle > 1 else one for agent, one in seen.items()}, *rest


@pytest.mark.parametrize(
    "name",
    [
        f"{__name__}:Leaving",
        "CartPole-v1",
        "Pendulum-v1",
        "mpe2:simple_spread_v3",
        "FrozenLake-v1",
        "tests.actors.worlds:Relay",
        "tests.actors.worlds:Doors",
    ],
)
def test_the_environments_of_others_can_be_played(name: str) -> None:
    assert probe(Question(EnvironmentSettings(id=name), copies=3))["agents"]


def test_random_actions_are_legal_ones() -> None:
    random = np.random.default_rng(0)
    masks = np.tile(np.array([False, True, False, True, True]), (200, 1))
    drawn = random_actions(ActionSpec("multi_discrete", (2, 3), (2,)), masks, 200, random)
    assert (drawn[:, 0] == 1).all()
    assert set(drawn[:, 1].tolist()) == {1, 2}
    assert set(random_actions(ActionSpec("discrete", (3,)), None, 200, random).tolist()) == {0, 1, 2}


LEVELS = {"levels": {"attribute": "levels"}, "score": "success", "capacity": 10, "generate_seconds": 5.0}


class Stairs(Room):
    """Levels with NumPy's numbers; `success` is in the last info only if `tells` or the level is easy."""

    def __init__(self, tells: bool = True, falls: bool = False) -> None:
        super().__init__()
        self.tells, self.falls = tells, falls

    def levels(self) -> Any:
        return [(f"steps {n}", {"options": {"steps": n}, "seed": n}) for n in np.arange(1, 5)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        assert type(options["steps"]) is int
        if self.falls:
            raise OSError("no stairs")
        self.steps = options["steps"]
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        seen, reward, *_ = super().step(action)
        over = self.t >= self.steps
        return seen, reward, over, False, {"success": 1.0} if self.tells or self.steps == 1 else {}


def climbed(**settings: Any) -> dict[str, Any]:
    environment = EnvironmentSettings(id=f"{__name__}:Stairs", settings=settings)
    return probe(Question(environment, copies=2, curriculum=LEVELS))


def test_drawn_tasks_are_played_with_plain_numbers() -> None:
    assert climbed()["warnings"] == []


def test_a_score_that_failure_lacks_is_told_with_its_key() -> None:
    with pytest.raises(
        RequestError, match=r"curriculum.score 'success': the last info of an episode of 'steps \d' has"
    ):
        climbed(tells=False)


def test_a_curriculum_that_cannot_be_played_is_told() -> None:
    with pytest.raises(RequestError, match=r"none of 8 tasks of the curriculum could be played.*no stairs"):
        climbed(falls=True)
