"""A run keeps the agents and spaces that it began with, and the meaning that actions had then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from actors.environments.columns import AgentColumns
from broker.errors import RequestError
from launcher import environment_record
from launcher.directory import RunDirectory
from launcher.probing import Spaces
from launcher.reading import load, resume


def found(width: int = 3, high: float = 1.0, agents: tuple[str, ...] = ("agent",)) -> Spaces:
    columns = AgentColumns("agent", spaces.Box(-1, 1, (width,)), spaces.Box(-1, high, (2,)), 1)
    specs = {"observation": columns.observation_spec.to_plain(), "action": columns.action_spec.to_plain()}
    return Spaces("gymnasium", dict.fromkeys(agents, specs))


def test_another_space_is_named_with_the_recorded_one(tmp_path: Path) -> None:
    where = RunDirectory(tmp_path)
    assert not environment_record.compare(where, found())  # a run of before has no record
    environment_record.keep(where, found())
    environment_record.keep(where, found())
    assert environment_record.compare(where, found())
    with pytest.raises(RequestError, match=r"agent saw box \[3\], and now box \[4\]; restore the environment's code"):
        environment_record.keep(where, found(width=4))
    with pytest.raises(RequestError, match=r"agent did box \[2\] from \[-1.0, -1.0\] to \[1.0, 1.0\], and now .*2.0\]"):
        environment_record.compare(where, found(high=2.0))
    with pytest.raises(RequestError, match="its agents were agent, and are now agent, other"):
        environment_record.compare(where, found(agents=("agent", "other")))


def test_keys_that_are_newer_than_the_record_are_passed_over() -> None:
    before: dict[str, Any] = {"agent": {**found().agents["agent"]}}
    before["agent"]["action"] = {k: v for k, v in before["agent"]["action"].items() if k != "rescaled"}
    assert environment_record.differing(before, found().agents) == []


def test_a_stored_run_without_the_key_is_clipped(tmp_path: Path) -> None:
    stored = tmp_path / "run.toml"
    load("cartpole", seed=1).write(stored)
    assert load(stored, stored=True).policies.actions == resume(stored)[0].policies.actions == "rescale"
    stored.write_text(stored.read_text().replace('actions = "rescale"\n', ""))
    assert load(stored, stored=True).policies.actions == resume(stored)[0].policies.actions == "clip"
    assert load(stored).policies.actions == "rescale"  # a new run
    with pytest.raises(RequestError, match=r"policies\.actions: 'clip' -> 'rescale'"):
        resume(stored, ["policies.actions=rescale"])


def test_actions_have_the_run_files_meaning() -> None:
    heater = spaces.Box(0.0, 10_000.0, (1,), np.float32)
    for rescale, expected in ((True, [5000.0, 10_000.0, 7500.0]), (False, [0.0, 7.0, 0.5])):
        columns = AgentColumns("agent", spaces.Box(-1, 1, (1,)), heater, 3, rescale=rescale)
        actions = columns.rows(np.array([[0.0], [7.0], [0.5]], np.float32))
        assert [float(action[0]) for action in actions] == expected
        assert all(heater.contains(action) for action in actions)
