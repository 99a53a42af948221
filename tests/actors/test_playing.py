from __future__ import annotations

import pytest

from actors import playing
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.policies.policy import Policy, build_network
from broker.errors import RunError


@pytest.mark.parametrize("ends", [True, False])
def test_an_environment_without_an_end_is_not_played_for_ever(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    monkeypatch.setattr(playing, "MOST_STEPS", 40)
    settings = EnvironmentSettings(id="tests.actors.worlds:Doors", settings={"ends": ends})
    environment = make(settings, 2)
    observation, action = environment.observation_specs["agent"], environment.action_specs["agent"]
    policy = Policy(build_network("mlp", observation, action), observation, action, seed=1)
    if ends:  # though all of them together take longer
        assert len(playing.play(environment, {"p": policy}, {"agent": "p"}, 20)) == 20
        return
    with pytest.raises(RunError, match="no episode ended within 40 steps"):
        playing.play(environment, {"p": policy}, {"agent": "p"}, 20)
