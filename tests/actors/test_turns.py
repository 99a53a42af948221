"""Stepping an AEC environment in turns gives what PettingZoo's own converter gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpe2 import simple_adversary_v3, simple_spread_v3, simple_tag_v3
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import ClipOutOfBoundsWrapper

from actors.environments.turns import CHECKING, InTurns

WORLDS = [
    (simple_spread_v3, {}),
    (simple_spread_v3, {"continuous_actions": True}),
    (simple_tag_v3, {}),
    (simple_spread_v3, {"terminate_on_success": True}),
    (simple_adversary_v3, {}),
]


def same(left: Any, right: Any) -> None:
    assert left.keys() == right.keys()
    for agent, value in left.items():
        np.testing.assert_array_equal(value, right[agent])


@pytest.mark.parametrize(("world", "settings"), WORLDS)
def test_every_step_is_the_converters(world: Any, settings: dict[str, Any]) -> None:
    converted = world.parallel_env(max_cycles=7, **settings)
    ours = InTurns(world.parallel_env(max_cycles=7, **settings))
    assert isinstance(converted, aec_to_parallel_wrapper)
    random = np.random.default_rng(3)
    for episode in range(3):
        seed = 11 if episode == 0 else None
        same(converted.reset(seed=seed)[0], ours.reset(seed=seed)[0])
        while converted.agents:
            assert converted.agents == ours.agents
            actions = {}
            for agent in converted.agents:
                space = converted.action_space(agent)
                drawn = random.uniform(-2, 2, space.shape).astype(np.float32)
                actions[agent] = int(random.integers(space.n)) if hasattr(space, "n") else drawn
            with np.errstate(all="ignore"):
                theirs = converted.step(actions)
                mine = ours.step(actions)
            for left, right in zip(theirs, mine, strict=True):
                same(left, right)
        assert not ours.agents
    ours.close()


def test_only_wrappers_that_check_are_taken_off() -> None:
    continuous = InTurns(simple_spread_v3.parallel_env(continuous_actions=True))
    assert type(continuous._turns) is ClipOutOfBoundsWrapper
    assert type(InTurns(simple_spread_v3.parallel_env())._turns) not in CHECKING


def test_an_environment_that_does_not_act_in_a_cycle_is_refused() -> None:
    environment = InTurns(simple_spread_v3.parallel_env())
    environment.reset(seed=0)
    environment._turns.agent_selection = environment.agents[1]
    with pytest.raises(RuntimeError, match="in a cycle"):
        environment.step(dict.fromkeys(environment.agents, 0))
