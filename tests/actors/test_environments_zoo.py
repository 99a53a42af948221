"""PettingZoo environments: agents that die early or appear late, and the rows of a bare loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpe2 import simple_spread_v3

from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import EnvironmentFailed
from actors.environments.zoo import ZooEnvironments
from actors.seeds import environment_seed
from tests.actors.worlds import Relay


def _settings(**settings: Any) -> EnvironmentSettings:
    return EnvironmentSettings(id="mpe2:simple_spread_v3", settings={"max_cycles": 7, **settings})


def test_spread_gives_the_rows_of_a_bare_loop() -> None:
    count, rows = 2, 30
    agents = ("agent_0", "agent_1", "agent_2")
    actions = np.random.default_rng(0).integers(0, 5, (rows, len(agents), count))
    vector = make(_settings(), count, seed=11)
    assert vector.agents == agents
    vector.reset()
    seen, env_steps, episodes = [], 0, []
    for row in actions:
        step = vector.step(dict(zip(agents, row, strict=True)))
        columns = (step.rewards, step.terminated, step.truncated, step.valid)
        seen.append({a: (step.observations[a][""].copy(), *(c[a].copy() for c in columns)) for a in agents})
        env_steps += step.env_steps
        episodes += step.episodes
    vector.close()
    made = 0
    for i in range(count):
        bare = simple_spread_v3.parallel_env(max_cycles=7)
        bare.reset(seed=environment_seed(11, i))
        over, returns = False, dict.fromkeys(agents, 0.0)
        mine = [episode for episode in episodes if episode.environment == i]
        for row, given in zip(actions, seen, strict=True):
            if over:
                observations, _ = bare.reset()
                expected = {a: (observations[a], 0.0, False, False, False) for a in agents}
                over, returns = False, dict.fromkeys(agents, 0.0)
            else:
                moves = {a: int(row[j, i]) for j, a in enumerate(agents)}
                observations, rewards, terminations, truncations, _ = bare.step(moves)
                made += 1
                over = not bare.agents
                expected = {a: (observations[a], rewards[a], terminations[a], truncations[a], True) for a in agents}
                for a in agents:
                    returns[a] += rewards[a]
                if over:
                    episode = mine.pop(0)
                    assert (episode.length, episode.lengths) == (7, dict.fromkeys(agents, 7))
                    assert episode.returns == pytest.approx(returns, rel=1e-6)
            for a in agents:
                np.testing.assert_array_equal(given[a][0][i], expected[a][0])
                assert given[a][1][i] == np.float32(expected[a][1])
                assert tuple(c[i] for c in given[a][2:]) == expected[a][2:]
        bare.close()
    assert env_steps == made


@pytest.mark.parametrize("keep", [False, True])
def test_agents_that_die_early_and_appear_late(keep: bool) -> None:
    worlds = [Relay(keep), Relay(keep)]
    vector = ZooEnvironments(worlds)
    assert all(spec.masked for spec in vector.action_specs.values())
    first = vector.reset(0)
    assert first["late"][""].tolist() == [[0, 0], [0, 0]]
    assert vector.masks["late"] is not None
    assert vector.masks["late"].all()
    names = ("early", "late", "steady")
    rows, masks, episodes = {a: [] for a in names}, [], []
    for cycle in range(8):
        step = vector.step({a: np.full(2, cycle % 3) for a in names})
        for a in names:
            flags = "".join(
                letter
                for letter, column in (("v", step.valid), ("t", step.terminated), ("u", step.truncated))
                if column[a][1]
            )
            rows[a].append((flags, float(step.observations[a][""][1, 1])))
        masks.append(step.masks["steady"][1].copy())
        episodes += step.episodes
        assert step.env_steps == (0 if cycle == 5 else 2)
        assert step.rewards["early"][1] == (10 + cycle % 3 if step.valid["early"][1] else 0)
    # flags of the row, and the cycle that the observation after it shows
    assert rows["steady"] == [("v", 1), ("v", 2), ("v", 3), ("v", 4), ("vu", 5), ("", 0), ("v", 1), ("v", 2)]
    assert rows["early"] == [("v", 1), ("vt", 2), ("", 2), ("", 2), ("", 2), ("", 0), ("v", 1), ("vt", 2)]
    assert rows["late"] == [("", 0), ("", 0), ("", 3), ("v", 4), ("vu", 5), ("", 0), ("", 0), ("", 0)]
    np.testing.assert_array_equal(masks[0], [True, False, True])
    assert [(e.length, e.lengths) for e in episodes] == [(5, {"early": 2, "late": 2, "steady": 5})] * 2
    assert episodes[0].returns == {"early": 21.0, "late": 21.0, "steady": 54.0}  # Discrete.start came back in
    assert worlds[0].received[3] == {"steady": 10, "late": 10}


def test_an_agent_that_leaves_without_a_flag_is_terminated() -> None:
    class Leaving(Relay):
        def step(self, actions: dict[str, int]) -> Any:
            given, rewards, terminations, truncations, rest = super().step(actions)
            self.agents = [a for a in self.agents if a != "early"]
            given.pop("early", None)
            return given, rewards, dict.fromkeys(terminations, False), truncations, rest

    vector = ZooEnvironments([Leaving()])
    vector.reset(0)
    step = vector.step({a: np.zeros(1, np.int64) for a in vector.agents})
    assert step.terminated["early"].tolist() == [True]
    assert step.valid["early"].tolist() == [True]
    assert not step.terminated["steady"].any()
    assert not vector.step({a: np.zeros(1, np.int64) for a in vector.agents}).valid["early"].any()


def test_a_mask_that_allows_nothing_allows_everything() -> None:
    class Stuck(Relay):
        def _see(self, agents: list[str]) -> dict[str, Any]:
            seen = super()._see(agents)
            return {a: {**value, "action_mask": np.zeros(3, np.int8)} for a, value in seen.items()}

    vector = ZooEnvironments([Stuck()])
    vector.reset(0)
    assert all(mask is not None and mask.all() for mask in vector.masks.values())


def test_failures_name_environment_seed_and_step() -> None:
    class Falling(Relay):
        def step(self, actions: dict[str, int]) -> Any:
            if self.cycle == 3:
                raise ZeroDivisionError("a stone too many")
            return super().step(actions)

    class Stranger(Relay):
        def step(self, actions: dict[str, int]) -> Any:
            result = super().step(actions)
            self.agents = [*self.agents, "nobody"]
            return result

    for world, step, text in ((Falling(), 3, "a stone too many"), (Stranger(), 0, "nobody.*possible_agents")):
        vector = ZooEnvironments([Relay(), world], seed=2)
        vector.reset()
        actions = {a: np.zeros(2, np.int64) for a in vector.agents}
        for _ in range(step):
            vector.step(actions)
        with pytest.raises(EnvironmentFailed, match=text) as caught:
            vector.step(actions)
        failed = caught.value
        assert (failed.environment, failed.seed, failed.episode, failed.step) == (1, environment_seed(2, 1), 0, step)


def test_continuous_actions_reach_spread() -> None:
    vector = make(_settings(continuous_actions=True), 2, seed=0)
    vector.reset()
    step = vector.step({a: np.full((2, 5), 1.5, np.float32) for a in vector.agents})  # beyond the bounds: clipped
    assert step.env_steps == 2
    vector.close()
