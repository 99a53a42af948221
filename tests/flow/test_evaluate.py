"""What a run has learned, played again: `headrace evaluate` and `launcher.load`."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import launcher
from broker.arrays import from_bytes
from tests.flow.running import Running, headrace
from tracker.checkpoints import newest_valid


def evaluated(run: Running, *more: str) -> dict[str, object]:
    done = headrace("evaluate", str(run.directory), "--json", *more, cwd=run.directory.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_evaluation_agrees_with_the_last_training_returns(spread: Running) -> None:
    training = json.loads((spread.directory / "summary.json").read_text())["policies"]
    result = evaluated(spread, "--episodes", "60")
    policies = result["policies"]
    assert isinstance(policies, dict)
    assert policies.keys() == training.keys()
    for name, policy in policies.items():
        low, high = policy["interval"]
        assert low <= policy["return_mean"] <= high
        assert policy["version"] == training[name]["version"]
        # Training's mean is over policies of the last seconds: some slack, in units of the returns' own spread.
        slack = 3.0
        assert low - slack <= training[name]["return_mean"] <= high + slack
    again = evaluated(spread, "--episodes", "60")
    assert again == result, "the seeds follow from the run's"


def test_a_trained_policy_balances(cartpole: Running) -> None:
    first = json.loads((cartpole.directory / "summary.json").read_text())["return_first"]
    result = evaluated(cartpole, "--episodes", "20", "--deterministic")
    assert isinstance(result["return_mean"], float)
    assert result["return_mean"] > 3 * first


def test_loaded_policies_are_the_checkpoints(cartpole: Running, spread: Running) -> None:
    for run in (cartpole, spread):
        loaded = launcher.load(run.directory)
        for name in loaded.plan.policies:
            found, _ = newest_valid(run.directory / "checkpoints", name)
            assert found is not None
            tree = from_bytes(found[0].read_bytes())
            policy = loaded.policy(name)
            assert list(policy.version) == tree["version"]
            assert policy.parameters.keys() == tree["parameters"].keys()
            for key, value in tree["parameters"].items():
                np.testing.assert_array_equal(policy.parameters[key], value)


def test_a_loaded_policy_acts(cartpole: Running) -> None:
    policy = launcher.load(cartpole.directory).policy("agent")
    environment = gymnasium.make("CartPole-v1")
    observation, _ = environment.reset(seed=5)
    steps, done = 0, False
    while not done:
        observation, _, terminated, truncated, _ = environment.step(policy.act(observation))
        steps, done = steps + 1, terminated or truncated
    environment.close()
    assert steps > 60


def test_what_cannot_be_evaluated(cartpole: Running, tmp_path: Path) -> None:
    wrong = headrace("evaluate", str(cartpole.directory), "--policy", "nobody", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "agent" in wrong.stderr
    nothing = headrace("evaluate", str(tmp_path), cwd=tmp_path)
    assert nothing.returncode == 2
    with pytest.raises(Exception, match="holds no run"):
        launcher.load(tmp_path)
