"""A wrong request: one message that says what is wrong, exit status 2, no process left; and no run directory, unless a
role was started in it: then it is kept, and the message says where.
"""

from __future__ import annotations

import re
import shutil
import socket
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from broker.errors import RequestError
from launcher import directory as directories
from tests.flow.running import Running, headrace, processes_in

WORLDS = """
import gymnasium
from gymnasium import spaces


class Wordy(gymnasium.Env):
    observation_space = spaces.Text(8)
    action_space = spaces.Discrete(2)


class Broken(gymnasium.Env):
    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(2)

    def __init__(self):
        raise OSError("the level is missing")
"""


def refused(home: Path, *arguments: str, kept: bool = False) -> str:
    """Run it; its one message. `kept`: a role met the mistake, so that there are logs."""
    before = {process.pid for process in psutil.process_iter()}
    done = headrace("run", *arguments, "--headless", cwd=home, seconds=60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip()
    assert message.startswith("headrace: ")
    assert message.count("headrace: ") == 1
    ours = [p for p in psutil.process_iter() if p.pid not in before and "launcher." in " ".join(_command(p))]
    assert not [p for p in ours if p.cwd() == str(home)], "processes were left"
    assert not processes_in(home)
    left = list(home.glob("runs-out/*"))
    assert bool(left) is kept, "a directory is left where a role was started, and only there"
    for directory in left:
        assert f"the files of the run are kept in {directory}" in message
        assert list((directory / "logs").iterdir())
    return message


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["learner.algoritm=ppo"], r"learner\.algoritm.*did you mean.*algorithm"),
        (["actors.processes=two"], r"actors\.processes"),
        (["environment.id=CartPoll-v1"], r"CartPoll"),
        (["environment.id=nowhere:Nothing"], r"nowhere"),
        (["environment.id=worlds:Wordy"], r"(?s)Text"),
        (["environment.id=worlds:Broken"], r"(?s)the level is missing"),
        (["tracker.address=tcp://0.0.0.0:7400"], r"insecure|loopback"),
        (["learner.algorithm=mine"], r"learner\.algorithm.*package\.module:Name"),
        (["learner.settings.batch_steps=0"], r"batch_steps"),
    ],
)
def test_what_is_found_before_a_process_starts(tmp_path: Path, settings: list[str], says: str) -> None:
    (tmp_path / "worlds.py").write_text(WORLDS)
    (tmp_path / "own.toml").write_text('name = "own"\n[environment]\nid = "CartPole-v1"\n[stop]\nseconds = 5\n')
    message = refused(tmp_path, "own.toml", *[part for one in settings for part in ("--set", one)])
    assert re.search(says, message), message


@pytest.mark.parametrize(
    "setting",
    [
        "learner.algorithm=nowhere:Own",
        "learner.algorithm=worlds:Missing",
        "policies.network=nowhere:Net",
        "learner.settings.batch_stepps=100",
    ],
)
def test_what_only_a_role_can_find(tmp_path: Path, setting: str) -> None:
    (tmp_path / "worlds.py").write_text("")
    (tmp_path / "own.toml").write_text('name = "own"\n[environment]\nid = "CartPole-v1"\n[stop]\nseconds = 5\n')
    message = refused(tmp_path, "own.toml", "--set", setting, kept=True)
    value = setting.rpartition("=")[2] if "batch" not in setting else "batch_stepps"
    assert value.partition(":")[0] in message, message


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused(tmp_path, "cartpole", "--set", f"tracker.address=tcp://127.0.0.1:{port}", kept=True)
    assert str(port) in message
    assert "in use" in message


def test_of_two_that_enter_a_directory_at_a_time_one_is_refused(tmp_path: Path) -> None:
    for attempt in range(20):
        path = tmp_path / f"run-{attempt}"
        together = threading.Barrier(2)

        def enter(path: Path = path, together: threading.Barrier = together) -> str:
            together.wait(10)
            try:
                directories.make("mine", path).close()
            except RequestError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(2) as pool:
            found = sorted(future.result() for future in [pool.submit(enter) for _ in range(2)])
        assert found[0] == ""
        assert "holds other things" in found[1]


@pytest.mark.parametrize(
    ("place", "told"),
    [("~nobody-of-this-name/x", "cannot be used"), ("x" * 300, "cannot be used"), ("file/x", "cannot be used")],
)
def test_a_place_that_cannot_be_is_a_message(tmp_path: Path, place: str, told: str) -> None:
    (tmp_path / "file").write_text("")
    assert told in refused(tmp_path, "cartpole", "--run-dir", place)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    message = refused(tmp_path, "cartpole", "--set", "learner.device=cuda:63", kept=True)
    assert "learner.device 'cuda:63': there is no such device here" in message


def test_an_asked_for_directory_is_free_again_after_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    refused(tmp_path, "cartpole", "--run-dir", "mine", "--set", "environment.id=nowhere:Nothing")
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_tcp_address_serves(tmp_path: Path, host: str) -> None:
    address = f"tcp://{host}:{free_port(host)}"
    with Running(tmp_path, "cartpole", "--set", "stop.return=", "--set", f"tracker.address={address}") as run:
        run.learning()
        seen = headrace("watch", "--once", "--json", str(run.directory), cwd=tmp_path)
        assert seen.returncode == 0, seen.stderr
        # While it goes on nobody else may have its directory.
        for more, says in (((), "going on"), (("--resume",), "going on")):
            second = headrace("run", "cartpole", "--headless", "--run-dir", str(run.directory), *more, cwd=tmp_path)
            assert second.returncode == 2, second.stdout
            assert says in second.stderr
        growing = len(run.versions())
        run.until(lambda: len(run.versions()) > growing, "it is undisturbed")


def test_a_directory_that_holds_something(cartpole: Running, tmp_path: Path) -> None:
    message = refused(tmp_path, "cartpole", "--run-dir", str(cartpole.directory))
    assert "--resume" in message
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text(textwrap.dedent("words"))
    message = refused(tmp_path, "cartpole", "--run-dir", "other")
    assert "thesis.tex" in message
    assert (tmp_path / "other" / "thesis.tex").exists()
    shutil.rmtree(tmp_path / "other")
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    (tmp_path / "other" / "checkpoints" / "agent~1.9.checkpoint").write_text("learned")
    message = refused(tmp_path, "cartpole", "--run-dir", "other", "--set", "environment.id=CartPoll-v1")
    assert "holds other things (checkpoints)" in message
    assert (tmp_path / "other" / "checkpoints" / "agent~1.9.checkpoint").exists()
    shutil.rmtree(tmp_path / "other")
    refused(tmp_path, "cartpole", "--resume", "--run-dir", "other")


def free_port(host: str) -> int:
    """A port of which the next one is free too. Skips the test where the host has no IPv6 and one is asked for."""
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    while True:
        with socket.socket(family) as one, socket.socket(family) as two:
            try:
                one.bind((host.strip("[]"), 0))
            except OSError as error:
                pytest.skip(f"{host}: {error}")
            port = int(one.getsockname()[1])
            try:
                two.bind((host.strip("[]"), port + 1))
            except OSError:
                continue
            return port
