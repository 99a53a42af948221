"""What an environment gives is what its space says, or one message names the place, what came and what was expected."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import AECEnv

from actors.conform import NotOfSpace
from actors.environments.columns import AgentColumns
from actors.environments.gym import GymEnvironments, GymVectorForm
from actors.environments.load import _accepted
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import EnvironmentFailed
from actors.environments.zoo import ZooEnvironments
from actors.seeds import environment_seed
from actors.spaces import observation_spec
from tests.actors.worlds import Relay

TWO = spaces.Discrete(2)
MASKED = spaces.Dict({"observation": spaces.Box(0, 1, (2,)), "action_mask": spaces.MultiBinary(2)})
TREE = spaces.Dict({"place": spaces.Discrete(3, start=5), "parts": spaces.Tuple((spaces.Box(0, 1, (2,)), TWO))})
ZEROS = np.zeros(2, np.float32)


def columns(space: spaces.Space[Any]) -> AgentColumns:
    return AgentColumns("agent", space, TWO, 2)


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        (spaces.Box(0, 255, (3,), np.uint8), np.array([0.2, 0.7, 0.9]), r"float64\[3\] \(0.2, .* uint8\[3\]"),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([256]), r"256 \(int64\), .* uint8\[1\]"),
        (spaces.Box(0, 255, (1,), np.uint8), np.array([-1], np.int8), r"-1 \(int8\)"),
        (spaces.Box(-9, 9, (2,), np.int32), np.array([0.5, 1.0]), r"float64\[2\] \(0.5, 1\), .* int32\[2\]"),
        (spaces.Box(-1, 1, (4,)), np.zeros(1, np.float32), r"float32\[1\] \(0\), .* float32\[4\]"),
        (spaces.Box(-1, 1, (4,)), 0.5, r"0.5 \(float\), .* float32\[4\]"),
        (spaces.Box(-1, 1, (4,)), np.zeros((1, 4), np.float32), r"float32\[1, 4\]"),
        (spaces.Box(-1, 1, (2,)), None, r"None \(NoneType\)"),
        (spaces.Box(-1, 1, (2,)), ["0.5", "1"], r"\['0.5', '1'\] \(list\)"),
        (spaces.Box(-1, 1, (2,)), np.zeros(2, np.complex64), r"complex64\[2\]"),
        (spaces.Box(-1, 1, (2,)), [[1.0], [1.0, 2.0]], r"list"),
        (spaces.Discrete(9), 0.9, r"0.9 \(float\), .* a whole number from 0 to 8"),
        (spaces.Discrete(9), 8.0, r"8.0 \(float\)"),
        (spaces.Discrete(4), 7, r"7 .* a whole number from 0 to 3"),
        (spaces.Discrete(4), -1, r"-1 .* a whole number from 0 to 3"),
        (spaces.Discrete(3, start=5), 4, r"4 .* a whole number from 5 to 7"),
        (spaces.Discrete(3, start=5), np.int64(8), r"8 .* a whole number from 5 to 7"),
        (spaces.Discrete(4), np.array([1]), r"int64\[1\] \(1\)"),
        (spaces.Discrete(4), "1", r"'1' \(str\)"),
        (spaces.MultiBinary(2), np.array([0, 2], np.int8), r"2 \(int8\), .* int8\[2\] from 0 to 1"),
        (spaces.MultiBinary(2), np.array([0, -1]), r"-1 \(int64\)"),
        (spaces.MultiBinary(2), np.array([0.5, 1.0]), r"float64\[2\] \(0.5, 1\), .* int8\[2\]"),
        (MASKED, {"observation": ZEROS, "action_mask": np.array([1, 3], np.int8)}, r"action_mask is 3 \(int8\)"),
        (MASKED, {"observation": ZEROS, "action_mask": np.ones(3, np.int8)}, r"action_mask is int8\[3\]"),
        (MASKED, {"observation": ZEROS}, r"the keys 'observation', and its space says 'action_mask', "),
        (MASKED, ZEROS, r"says a mapping with 'action_mask', 'observation'"),
        (TREE, {"place": 5, "parts": (np.zeros(2), 2)}, r"at 'parts/1' is 2 .* a whole number from 0 to 1"),
        (TREE, {"place": 5, "parts": (np.zeros(2),)}, r"observation\['parts'\] is a tuple of 1, .* a tuple of 2"),
        (TREE, {"place": 5}, r"has the keys 'place', and its space says 'parts', 'place'"),
        (TREE, {"place": 5, "parts": (np.zeros(2), 1), "more": 1}, r"has the keys 'more', 'parts', 'place'"),
    ],
)  # fmt: skip
def test_a_value_not_of_its_space_is_refused(space: spaces.Space[Any], given: Any, message: str) -> None:
    with pytest.raises(NotOfSpace, match=message):
        columns(space).write(1, given)


@pytest.mark.parametrize(
    ("space", "given", "stored"),
    [
        (spaces.Box(-1, 1, (2,)), np.array([0.25, 7.0]), [0.25, 7.0]),  # bounds are left by many environments
        (spaces.Box(-1, 1, (2,)), [0.25, 0.5], [0.25, 0.5]),
        (spaces.Box(-1, 1, (2,)), np.array([1, 0]), [1.0, 0.0]),
        (spaces.Box(-1, 1, (), np.float64), 0.25, 0.25),
        (spaces.Box(-9, 9, (2,), np.int32), np.array([3, -4]), [3.0, -4.0]),
        (spaces.Box(0, 255, (2,), np.uint8), [255, 0], [255, 0]),
        (spaces.Discrete(3, start=5), np.array(7), 2),
        (spaces.Discrete(3, start=5), np.int32(6), 1),
        (spaces.Discrete(2), np.bool_(True), 1),
        (spaces.MultiBinary(2), np.array([True, False]), [1, 0]),
        (spaces.MultiBinary(2), np.array([0.0, 1.0]), [0, 1]),
        (spaces.MultiBinary((1, 2)), np.array([[0, 1]]), [[0, 1]]),
    ],
)
def test_a_value_that_loses_nothing_is_stored(space: spaces.Space[Any], given: Any, stored: Any) -> None:
    agent = columns(space)
    agent.write(1, given)
    assert agent.arrays[""][1].tolist() == stored
    batch = [given, given] if not isinstance(given, np.ndarray) else np.stack([given, given])
    agent.arrays[""][:] = 0
    agent.write_all(batch)
    assert agent.arrays[""].tolist() == [stored, stored]


def test_a_batch_not_of_its_space_is_refused() -> None:
    for space, given, message in (
        (spaces.Box(-1, 1, (4,)), np.zeros((2, 1), np.float32), r"float32\[2, 1\] \(0, 0\), .* float32\[2, 4\]"),
        (spaces.Box(0, 255, (3,), np.uint8), np.zeros((2, 3)), r"float64\[2, 3\], .* uint8\[2, 3\]"),
        (spaces.Discrete(4), np.array([3, 4]), r"4 \(int64\), .* int64\[2\] from 0 to 3"),
        (spaces.Discrete(4), 3, r"3 \(int\), .* int64\[2\]"),
    ):
        with pytest.raises(NotOfSpace, match=message):
            columns(space).write_all(given)


def test_a_loaded_policy_sees_no_other_values() -> None:
    assert observation_spec(TREE).encode({"place": 7, "parts": (np.zeros(2), 1)})["place"] == 2
    with pytest.raises(NotOfSpace, match=r"observation is float64\[3\]"):
        observation_spec(spaces.Box(0, 255, (3,), np.uint8)).encode(np.array([0.2, 0.7, 0.9]))
    with pytest.raises(NotOfSpace, match="observation has nothing at 'parts/1'"):
        observation_spec(TREE).encode({"place": 5, "parts": (np.zeros(2),)})


class Odd(gymnasium.Env[Any, Any]):
    """From its third step on it gives `odd` in place of what stands there."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(3, start=4)

    def __init__(self, **odd: Any) -> None:
        self.odd, self.actions = odd, list[Any]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return ZEROS, {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.actions.append(action)
        answer = {
            "observation": ZEROS,
            "reward": np.float32(1.0),
            "terminated": np.False_,
            "truncated": False,
            "info": {},
        }
        return (*({**answer, **(self.odd if self.t == 3 else {})}).values(),)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"observation": np.zeros(1)}, r"step\(\): agent's observation is float64\[1\]"),
        ({"reward": np.zeros(2)}, r"reward is float64\[2\]"),
        ({"reward": np.ones(1)}, r"reward is float64\[1\] \(1\), not a finite number"),
        ({"reward": "1"}, "reward is '1'"),
        ({"reward": float("nan")}, "reward is nan"),
        ({"truncated": "no"}, "truncated is 'no'"),
        ({"terminated": np.array([True])}, r"terminated is bool\[1\]"),
        ({"more": 1}, r"the answer is 6 values, not \(observation, reward,"),
    ],
)
def test_a_step_names_copy_seed_and_step(odd: dict[str, Any], message: str) -> None:
    vector = GymEnvironments([Odd(), Odd(**odd)], 5, "odd:Env")
    vector.reset()
    for _ in range(2):
        vector.step({"agent": np.zeros(2, np.int64)})
    with pytest.raises(EnvironmentFailed, match=message) as failed:
        vector.step({"agent": np.zeros(2, np.int64)})
    found = failed.value
    assert (found.environment, found.seed, found.step) == (1, environment_seed(5, 1), 2)
    assert str(found).startswith(f"environment 1 of odd:Env (seed {found.seed}, episode 0, step 2): step()")


def test_actions_are_numpy_scalars_of_the_space() -> None:
    world = Odd()
    vector = GymEnvironments([world])
    vector.reset()
    step = vector.step({"agent": np.array([2])})
    assert [(type(action), action) for action in world.actions] == [(np.int64, 6)]
    assert world.action_space.contains(world.actions[0])
    assert step.rewards["agent"].tolist() == [1.0]


class OddVector(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Two copies in one; `odd` in place of what stands there."""

    num_envs = 2
    single_observation_space, single_action_space = spaces.Box(-1, 1, (2,)), TWO

    def __init__(self, **odd: Any) -> None:
        self.odd = odd

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((2, 2), np.float32), {}

    def step(self, actions: Any) -> Any:
        answer = {"observation": np.zeros((2, 2), np.float32), "reward": np.ones(2), "terminated": np.zeros(2, bool)}
        return (*{**answer, "truncated": np.zeros(2, bool), "info": {}, **self.odd}.values(),)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"observation": np.zeros((1, 2), np.float32)}, r"float32\[1, 2\] .*float32\[2, 2\]"),
        ({"reward": 1.0}, "reward is 1.0"),
        ({"reward": np.ones((2, 1))}, r"reward is float64\[2, 1\]"),
        ({"reward": np.array([0.0, np.inf])}, r"reward is float32\[2\] \(0, inf\)"),
        ({"terminated": False}, r"terminated is False \(bool\), not bool\[2\]"),
        ({"truncated": np.array([0, 2])}, r"truncated is int64\[2\] \(0, 2\)"),
    ],
)
def test_a_vector_form_is_held_to_its_spaces(odd: dict[str, Any], message: str) -> None:
    vector = GymVectorForm(OddVector(**odd), 0, "odd:Vector")
    vector.reset()
    with pytest.raises(EnvironmentFailed, match=message):
        vector.step({"agent": np.zeros(2, np.int64)})


class OddRelay(Relay):
    """`part` of its answer's third step is changed for "steady"; None takes it away."""

    def __init__(self, part: int, value: Any) -> None:
        super().__init__()
        self.part, self.value = part, value

    def step(self, actions: dict[str, Any]) -> Any:
        answer = list(super().step(actions))
        if self.cycle == 3:
            answer[self.part]["steady"] = self.value
            if self.value is None:
                del answer[self.part]["steady"]
        return tuple(answer)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (0, None, "steady's observation is None"),
        (0, {"observation": np.zeros(3), "action_mask": np.ones(3, np.int8)}, r"steady's observation is float64\[3\]"),
        (0, {"observation": np.zeros(2), "action_mask": np.full(3, 2, np.int8)}, "steady's action_mask is 2"),
        (1, None, "steady's reward is None"),
        (1, float("inf"), "steady's reward is inf"),
        (1, [1.0, 2.0], r"steady's reward is \[1.0, 2.0\]"),
        (2, "yes", "steady's terminated is 'yes'"),
        (3, np.zeros(2, bool), r"steady's truncated is bool\[2\]"),
    ],
)
def test_a_parallel_environment_names_its_agent(part: int, value: Any, message: str) -> None:
    vector = ZooEnvironments([OddRelay(part, value)], 3, "odd:Relay")
    vector.reset()
    actions = {agent: np.zeros(1, np.int64) for agent in vector.agents}
    for _ in range(2):
        vector.step(actions)
    with pytest.raises(EnvironmentFailed, match=message) as failed:
        vector.step(actions)
    assert (failed.value.environment, failed.value.step) == (0, 2)


class Turns(AECEnv[str, Any, Any]):
    """Two agents in turns; "b" sees what is not in its space."""

    metadata = {"name": "turns", "is_parallelizable": True}  # noqa: RUF012
    render_mode = None

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["a", "b"]

    def observation_space(self, agent: str) -> Any:
        return spaces.Discrete(4)

    def action_space(self, agent: str) -> Any:
        return TWO

    def observe(self, agent: str) -> Any:
        return 1 if agent == "a" or not self.moves else 4

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents, self.moves = list(self.possible_agents), 0
        self.agent_selection = "a"
        self.rewards = self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}

    def step(self, action: Any) -> None:
        self.moves += 1
        self.agent_selection = "b" if self.agent_selection == "a" else "a"


def test_a_turn_based_environment_is_held_to_its_spaces() -> None:
    environment = _accepted(EnvironmentSettings(id="odd:Turns"), Turns())
    vector = ZooEnvironments([environment])
    vector.reset()
    with pytest.raises(EnvironmentFailed, match=r"b's observation is 4 .* a whole number from 0 to 3"):
        vector.step({agent: np.zeros(1, np.int64) for agent in vector.agents})
