"""The run file: what is right is kept as it is, what is wrong is one message that names it all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import RequestError
from launcher.reading import from_plain, load, resume, resume_differences, shipped


def wrong(overrides: list[str], run: str = "cartpole") -> str:
    with pytest.raises(RequestError) as caught:
        load(run, overrides)
    return str(caught.value)


def test_the_launcher_is_light() -> None:
    modules = "runfile reading plan inquiry probing rehearsal engines nursery child supervision directory lifeline host"
    code = f"import sys\nfor m in {modules.split()}: __import__('launcher.' + m)\n"
    code += "print([m for m in ('torch', 'numpy', 'gymnasium') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_none_is_spread_and_all_shipped_runs_are_right() -> None:
    assert load(seed=1).name == "spread"
    assert {"spread", "cartpole"} <= set(shipped())
    for name in shipped():
        assert load(name).name == name


@pytest.mark.parametrize("name", ["spread", "cartpole"])
def test_a_resolved_run_file_is_read_back_equal(name: str, tmp_path: Path) -> None:
    run = load(name, ["policies.agents.agent_*=shared"])
    run.write(tmp_path / "run.toml")
    again = load(tmp_path / "run.toml")
    assert again.model_copy(update={"folder": None}) == run
    assert from_plain(run.to_plain()) == run
    assert list(tmp_path.iterdir()) == [tmp_path / "run.toml"]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.none().map(lambda _: 0)
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.text()
            | st.floats(-1e9, 1e9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_any_plain_settings_survive_toml(tmp_path_factory: pytest.TempPathFactory, given_settings: dict) -> None:  # type: ignore[type-arg]
    plain = load("cartpole", seed=1).to_plain()
    plain["environment"]["settings"] = given_settings
    run = from_plain(plain)
    path = tmp_path_factory.mktemp("run") / "run.toml"
    run.write(path)
    assert load(path).environment == run.environment


def test_overrides_are_toml_or_else_text_and_an_empty_one_takes_away() -> None:
    settings_ = ["stop.seconds=", "stop.return=", "actors.processes=3", "name=mine", "learner.settings.x=[1, 2]"]
    run = load("cartpole", [*settings_, "policies.agents.agent_*=shared", "stop.env_steps=10_000"], seed=5)
    assert (run.stop.seconds, run.stop.mean_return, run.stop.env_steps) == (None, None, 10_000)
    assert (run.actors.processes, run.name, run.seed) == (3, "mine", 5)
    assert run.learner.settings["x"] == [1, 2]
    assert run.policies.agents == {"agent_*": "shared"}
    assert load("cartpole", ["learner.settings.x=1\ny = 2"]).learner.settings["x"] == "1\ny = 2"


def test_a_seed_is_drawn_once_and_recorded(tmp_path: Path) -> None:
    run = load()
    run.write(tmp_path / "run.toml")
    assert load(tmp_path / "run.toml").seed == run.seed
    assert load(tmp_path / "run.toml", seed=3).seed == 3


def test_all_mistakes_are_told_at_once_with_the_nearest_key() -> None:
    text = wrong(["actors.proceses=3", "learner.window=0", "window=2", "stop.seconds=soon", "actor.processes=1"])
    for line in (
        "actors.proceses: unknown key; did you mean actors.processes?",
        "learner.window: should be greater than or equal to 1 (is 0)",
        "window: unknown key; did you mean learner.window?",
        "stop.seconds: should be a valid number (is 'soon')",
        "actor: unknown key; did you mean actors?",
    ):
        assert f"  {line}" in text.splitlines()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["actors.processes=0"], "actors.processes: should be greater"),
        (["actors=3"], "actors: is a section"),
        (["environment="], "environment: is missing"),
        (["environment=", "actors.rollout=mine:R", "stop.return="], "must name its policies"),
        (["environment=", "actors.rollout=mine:R", 'policies.names=["a"]'], "stop.return: there are no returns"),
        (["policies.names=['a']"], "policies.names: is for runs without"),
        (["policies.agents.x=a b"], "cannot name a policy"),
        (["tracker.address=tcp://0.0.0.0:7400"], "is not loopback"),
        (["tracker.address=tcp://127.0.0.1:65535"], "write ipc://PATH or tcp://HOST:PORT"),
        (["tracker.address=tcp://127.0.0.1:0"], "everybody must know the port"),
        (["tracker.lease_seconds=1e300"], "tracker.lease_seconds: should be less than or equal to"),
        (["tracker.address=udp://x"], "is no address"),
        (["learner.settings.batch_steps=0"], "learner.settings.batch_steps: must be a whole number"),
        (["learner.algorithm=pppo"], "did you mean ppo?"),
        (["learner.device=gpu"], "learner.device: "),
        (["learner.settings.x=[nan]"], "learner.settings.x: must be finite"),
        (["learner.settings.x=2020-01-01"], "learner.settings.x: "),
        (["environment.normalise=['rewards']"], "should be 'observation' or 'reward'"),
        (["actors.processes=2.0"], "should be a valid integer"),
        (["services.x.main=server"], "services.x.main: 'server' is no function; write"),
        (["services.x.mian=a:b"], "services.x.mian: unknown key; did you mean services.x.main?"),
        (["services.x={}"], "services.x.main: is missing"),
        (["services.'a b'.main=a:b"], "services.a b: 'a b' cannot name a service"),
        (["nonsense"], "write it as key=value"),
        (["name.x=1"], "name is a value, not a section"),
    ],
)
def test_what_cannot_be(overrides: list[str], told: str) -> None:
    assert told in wrong(overrides)


def test_a_run_file_that_fits_no_fact_is_told() -> None:
    long = {"text": "x" * 300_000}
    with pytest.raises(RequestError, match=r"learner: the run file has 30\d,\d{3} characters.*a file of its own"):
        from_plain({"environment": {"id": "CartPole-v1"}, "learner": {"settings": long}})


def test_insecure_is_taken_at_its_word() -> None:
    assert load("cartpole", ["tracker.address=tcp://0.0.0.0:7400", "tracker.insecure=true"]).tracker.insecure


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = 'a'\n[stop\n", "mine.toml:2:6: "),
        ("name = 'a'\nstop = {\n", "mine.toml:"),
        ("a = 1\na = 2\n", "mine.toml:2"),
        (b"name = '\xff'", "not UTF-8"),
    ],
)
def test_bad_toml_is_told_with_file_and_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RequestError, match=told):
        load(path)


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"did you mean spread\?"):
        load("spred")
    with pytest.raises(RequestError, match="No such file"):
        load(tmp_path / "none.toml")


def test_the_folder_of_the_run_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[environment]\nid = 'CartPole-v1'\n")
    assert load(tmp_path / "mine.toml").folder == str(tmp_path)
    assert load("spread").folder is None


def test_what_a_resumed_run_may_change(tmp_path: Path) -> None:
    run = load("cartpole")
    run.write(tmp_path / "run.toml")
    asked = ["stop.seconds=500", "stop.return=", "actors.processes=4", "learner.settings.learning_rate=0.1"]
    after, changed = resume(tmp_path / "run.toml", asked)
    assert after.actors.processes == 4
    assert changed["stop.seconds"] == (120.0, 500.0)
    assert changed["stop.return"] == (475.0, None)
    assert set(changed) == {"stop.seconds", "stop.return", "actors.processes", "learner.settings.learning_rate"}
    with pytest.raises(RequestError, match=r"learner\.window: 1 -> 3"):
        resume(tmp_path / "run.toml", ["learner.window=3"])
    assert resume_differences(run, run) == {}
