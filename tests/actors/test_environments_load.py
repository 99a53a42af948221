"""Ids, and what is said of those that are wrong; the probe as the launcher runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.probe import Question
from actors.probe import probe as answer
from broker.errors import RequestError, UnsupportedSpace


@pytest.mark.parametrize(
    ("name", "kind", "agents"),
    [
        ("CartPole-v1", "gymnasium", ["agent"]),
        ("gymnasium:CartPole-v1", "gymnasium", ["agent"]),
        ("mpe2:simple_spread_v3", "pettingzoo", ["agent_0", "agent_1", "agent_2"]),
        ("mpe2.simple_spread_v3", "pettingzoo", ["agent_0", "agent_1", "agent_2"]),
        ("mpe2.simple_spread_v3:env", "pettingzoo", ["agent_0", "agent_1", "agent_2"]),  # AEC, converted
        ("tests.actors.worlds:Relay", "pettingzoo", ["early", "late", "steady"]),
        ("tests.actors.worlds:Steered", "gymnasium", ["agent"]),
    ],
)
def test_every_form_of_id(name: str, kind: str, agents: list[str]) -> None:
    found = probe(EnvironmentSettings(id=name))
    assert found["kind"] == kind
    assert list(found["agents"]) == agents
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "settings", "vector", "said"),
    [
        ("CartPol-v1", {}, False, "Did you mean: `CartPole`"),
        ("CartPole", {}, False, "No registered env"),
        ("CartPole-v1", {"gravityy": 1}, False, "gravityy"),
        ("CartPole-v1", {"gravityy": 1}, True, "gravityy"),
        ("Pendulum-v1", {}, True, r"no vector form.*actors\.vector = false"),
        ("CartPole-v99", {}, True, r"Gymnasium does not know it \(VersionNotFound.*`v0`, `v1`"),
        ("tests.actors.worlds:Steered", {}, True, r"no vector form.*actors\.vector = false"),
        ("mpe2:simple_spread_v3", {"max_cycle": 1}, False, "max_cycle"),
        ("mpe2:simple_sprad_v3", {}, False, "'mpe2' has no 'simple_sprad_v3'"),
        ("nowhere_at_all:thing", {}, False, "no module 'nowhere_at_all'"),
        ("nowhere_at_all.thing", {}, False, "no module 'nowhere_at_all'"),
        (":thing", {}, False, "nothing on one side"),
        ("json", {}, False, "does not know it"),
        ("os.path", {}, False, "neither parallel_env nor env"),
        ("tests.actors.worlds:no_environment", {}, False, "gave a builtins.int"),
        ("tests.actors.worlds:Fragile", {"when": "constructor"}, False, "OSError: no such level"),
    ],
)
def test_every_failure_is_one_clear_request_error(name: str, settings: dict, vector: bool, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        make(EnvironmentSettings(id=name, settings=settings, vector=vector), 2)
    assert str(caught.value).startswith(f"environment.id {name!r}: ")
    assert "To mend it: " in str(caught.value)


def test_an_unsupported_space_names_the_environment_too() -> None:
    with pytest.raises(UnsupportedSpace, match=r"worlds:unreadable.*agent 'agent': action space Text.*supported"):
        make(EnvironmentSettings(id="tests.actors.worlds:unreadable"), 1)


def test_a_module_that_lacks_what_it_needs_says_so(tmp_path, monkeypatch) -> None:
    (tmp_path / "half_a_world.py").write_text("import nowhere_at_all\n")
    (tmp_path / "broken_world.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match="needs 'nowhere_at_all', which is missing"):
        probe(EnvironmentSettings(id="half_a_world:World"))
    with pytest.raises(RequestError, match="importing 'broken_world' raised ZeroDivisionError"):
        probe(EnvironmentSettings(id="broken_world:World"))


def probe(settings: EnvironmentSettings) -> dict:
    return answer(Question(settings))


def _probe(text: str) -> tuple[int, dict]:
    command = [sys.executable, "-m", "actors.probe"]
    ran = subprocess.run(
        command, input=f'{{"environment": {text}}}', capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.count("\n") == 1
    return ran.returncode, json.loads(ran.stdout)


def test_the_probe_as_a_program() -> None:
    settings = EnvironmentSettings(id="CartPole-v1", vector=True)
    assert _probe(settings.model_dump_json()) == (0, probe(settings))
    status, reply = _probe('{"id": "CartPol-v1"}')
    assert (status, list(reply)) == (2, ["error"])
    assert "environment.id 'CartPol-v1'" in reply["error"]
    status, reply = _probe('{"idd": 3}')
    assert status == 2
    assert "idd" in reply["error"]


def test_what_an_environment_prints_does_not_reach_the_answer(tmp_path, monkeypatch) -> None:
    loud = "import os\nfrom tests.actors.worlds import Steered\nprint('hello')\nos.write(1, b'from below')\n"
    (tmp_path / "loud_world.py").write_text(loud)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, reply = _probe('{"id": "loud_world:Steered"}')
    assert (status, reply.get("kind")) == (0, "gymnasium"), reply
