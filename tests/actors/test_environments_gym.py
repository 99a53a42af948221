"""Gymnasium environments: the rows are those of a bare loop, with the dummy rows in their places."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from actors.environments.gym import GymEnvironments
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import EnvironmentFailed
from actors.seeds import environment_seed
from tests.actors.worlds import Fragile, Steered

CARTPOLE = EnvironmentSettings(id="CartPole-v1", settings={"max_episode_steps": 30})


def test_single_environments_give_the_rows_of_a_bare_loop() -> None:
    count, rows = 3, 200
    actions = np.random.default_rng(1).integers(0, 2, (rows, count))
    vector = make(CARTPOLE, count, seed=7)
    first = vector.reset()["agent"][""].copy()
    assert first.dtype == np.float32
    steps = []
    for row in actions:
        step = vector.step({"agent": row})
        steps.append(
            (
                step.observations["agent"][""].copy(),
                *(c["agent"].copy() for c in (step.rewards, step.terminated, step.truncated, step.valid)),
                step.env_steps,
                step.episodes,
            )
        )
    vector.close()
    made, flags = 0, set()
    for i in range(count):
        bare = gymnasium.make("CartPole-v1", max_episode_steps=30)
        observation, _ = bare.reset(seed=environment_seed(7, i))
        np.testing.assert_array_equal(first[i], observation)
        over, total, length = False, 0.0, 0
        for row, (seen, rewards, terminated, truncated, valid, _, episodes) in zip(actions, steps, strict=True):
            ended = [episode for episode in episodes if episode.environment == i]
            assert valid[i] == (not over)
            if over:
                observation, _ = bare.reset()
                assert (rewards[i], terminated[i], truncated[i], ended) == (0.0, False, False, [])
                over, total, length = False, 0.0, 0
            else:
                observation, reward, t, u, _ = bare.step(int(row[i]))
                made, total, length = made + 1, total + float(reward), length + 1
                assert (rewards[i], terminated[i], truncated[i]) == (reward, t, u)
                over = t or u
                flags.add((t, u))
                assert len(ended) == over
                if over:
                    assert (ended[0].length, ended[0].returns, ended[0].lengths) == (
                        length,
                        {"agent": total},
                        {"agent": length},
                    )
            np.testing.assert_array_equal(seen[i], observation)
        bare.close()
    assert sum(step[5] for step in steps) == made
    assert flags >= {(True, False), (False, True)}  # both ends were met


def test_the_vector_form_gives_the_rows_of_gymnasiums_own() -> None:
    count, rows = 5, 300
    actions = np.random.default_rng(2).integers(0, 2, (rows, count))
    vector = make(CARTPOLE.model_copy(update={"vector": True}), count, seed=3)
    bare = gymnasium.make_vec("CartPole-v1", count, vectorization_mode="vector_entry_point", max_episode_steps=30)
    observations, _ = bare.reset(seed=environment_seed(3, 0))
    np.testing.assert_array_equal(vector.reset()["agent"][""], observations)
    over, lengths, made, counted = np.zeros(count, bool), np.zeros(count, int), 0, 0
    for row in actions:
        observations, rewards, terminated, truncated, _ = bare.step(row)
        step = vector.step({"agent": row})
        np.testing.assert_array_equal(step.observations["agent"][""], observations)
        np.testing.assert_array_equal(step.rewards["agent"], rewards)
        np.testing.assert_array_equal(step.terminated["agent"], terminated)
        np.testing.assert_array_equal(step.truncated["agent"], truncated)
        np.testing.assert_array_equal(step.valid["agent"], ~over)
        assert step.env_steps == int((~over).sum())
        made += step.env_steps
        lengths = np.where(over, 0, lengths + 1)
        over = terminated | truncated
        assert [(e.environment, e.length) for e in step.episodes] == [(i, lengths[i]) for i in np.flatnonzero(over)]
        assert all(e.returns == {"agent": float(e.length)} and e.lengths == {"agent": e.length} for e in step.episodes)
        counted += sum(e.length for e in step.episodes)
    assert made == counted + int(lengths[~over].sum())
    bare.close()
    vector.close()


def test_composite_observations_and_offset_actions() -> None:
    worlds = [Fragile(when="never") for _ in range(2)]
    vector = GymEnvironments(worlds)
    first = vector.reset(0)["agent"]
    assert {name: array.shape for name, array in first.items()} == {"place": (2,), "parts/0": (2, 2), "parts/1": (2, 2)}
    assert first["place"].tolist() == [0, 0]  # the environment counts from 1
    step = vector.step({"agent": np.array([[0, 2], [1, 0]])})
    assert step.observations["agent"]["place"].tolist() == [1, 1]
    np.testing.assert_allclose(step.observations["agent"]["parts/0"], 0.1)
    assert step.observations["agent"]["parts/1"].tolist() == [[1, 0], [1, 0]]
    assert [world.received[0].tolist() for world in worlds] == [[1, 2], [2, 0]]
    assert worlds[0].action_space.contains(worlds[0].received[0])


def test_boxes_are_clipped_floats_and_the_callers_array_is_not_lent() -> None:
    world = Steered()
    vector = GymEnvironments([world])
    vector.reset(0)
    actions = np.array([[-3.0, 0.25]], np.float32)
    step = vector.step({"agent": actions})
    assert world.received[0].tolist() == [-1.0, 0.25]
    assert world.action_space.contains(world.received[0])
    assert not np.shares_memory(world.received[0], actions)
    assert step.observations["agent"][""].dtype == np.float32
    assert step.rewards["agent"].tolist() == [0.5]


def test_termination_truncation_and_the_dummy_row_by_row() -> None:
    vector = GymEnvironments([Steered()])
    vector.reset(0)
    rows = []
    for _ in range(6):
        step = vector.step({"agent": np.zeros((1, 2), np.float32)})
        columns = (step.terminated, step.truncated, step.valid)
        rows.append(
            (*(bool(c["agent"][0]) for c in columns), step.env_steps, float(step.observations["agent"][""][0, 0]))
        )
    third = np.float32(1 / 3)
    assert [row[:4] for row in rows] == [
        (False, False, True, 1),
        (False, True, True, 1),  # truncated
        (False, False, False, 0),  # the dummy
        (False, False, True, 1),
        (True, False, True, 1),  # terminated
        (False, False, False, 0),
    ]
    np.testing.assert_allclose([row[4] for row in rows], [third, 2 * third, -1, 3 * third, 4 * third, -1])


def test_buffers_are_stable_and_reset_by_seed_repeats() -> None:
    vector = make(CARTPOLE, 2, seed=5)
    first = vector.reset()["agent"][""]
    kept = first.copy()
    step = vector.step({"agent": np.array([0, 1])})
    assert step.observations["agent"][""] is first
    assert not np.array_equal(kept[0], kept[1])  # streams differ between copies
    np.testing.assert_array_equal(vector.reset(5)["agent"][""], kept)
    assert not np.array_equal(vector.reset(6)["agent"][""], kept)
    vector.close()


@pytest.mark.parametrize(("when", "rows", "step"), [("step", 10, 3), ("reset", 6, 0)])
def test_an_environment_that_raises_is_named_with_the_place(when: str, rows: int, step: int) -> None:
    vector = GymEnvironments([Fragile(when="never"), Fragile(when=when)], seed=9)
    vector.reset()
    actions = {"agent": np.zeros((2, 2), np.int64)}
    for _ in range(rows - 1):
        vector.step(actions)
    with pytest.raises(EnvironmentFailed, match="gave way") as caught:
        vector.step(actions)
    failed = caught.value
    assert (failed.environment, failed.seed, failed.episode, failed.step) == (1, environment_seed(9, 1), 1, step)
    assert "worlds.py" in failed.traceback
    assert "RuntimeError" in failed.traceback
    vector.close()


def test_actions_of_the_wrong_shape_are_the_callers_fault() -> None:
    vector = make(CARTPOLE, 2)
    vector.reset()
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(2,\)"):
        vector.step({"agent": np.zeros(3, np.int64)})
    vector.close()


class Halves(gymnasium.Env[np.ndarray, int]):
    """An episode of 5,000 rewards of 1, each in 16 bits: a sum of 16 bits stands still at 2,048."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 5000
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), np.float16(1.0), not self.left, False, {}


def test_returns_are_sums_in_64_bits() -> None:
    vector = GymEnvironments([Halves()])
    vector.reset()
    steps = (vector.step({"agent": np.zeros(1, np.int64)}) for _ in range(5000))
    episodes = [episode for step in steps for episode in step.episodes]
    assert [episode.returns for episode in episodes] == [{"agent": 5000.0}]
