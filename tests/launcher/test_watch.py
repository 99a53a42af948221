"""Watching: a real publisher on a real socket, real locks, and run directories as they lie about."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from rich.console import Console

from broker import messages
from broker.addresses import publisher
from broker.errors import RequestError, Unreachable
from broker.names import STANDINGS, new_incarnation, new_token, topic
from broker.wire import Codec, Identity
from launcher import directory as directories
from launcher import watch
from launcher.host import process_start
from tests.launcher import documents
from tracker.lock import RunLock


class Publisher:
    """A tracker as far as a watcher can tell: it holds the run and publishes its standings."""

    def __init__(self, directory: Path) -> None:
        self.token = new_token()
        self.address = f"ipc://{directory}/hub"
        (directory / "token").write_text(self.token)
        documents.fill(directory)
        (directory / "tracker.json").write_text(
            json.dumps({"address": self.address, "run": "spread", "pid": os.getpid()})
        )
        self.documents: list[dict[str, Any]] = [documents.spread()]
        self._directory = directory
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> Publisher:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _publish(self) -> None:
        codec = Codec(Identity(self.token, "tracker", new_incarnation()), "hub")
        with RunLock(self._directory), zmq.Context() as context, context.socket(zmq.PUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(publisher(self.address))
            self._ready.set()
            turn = 0
            while not self._over.wait(0.02):
                document = self.documents[min(turn, len(self.documents) - 1)]
                payload = json.dumps(document).encode()
                header = codec.encode(messages.Standings(), STANDINGS, payload)
                socket.send_multipart([topic(STANDINGS), header, payload])
                turn += 1


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Publisher]:
    with Publisher(tmp_path) as tracker:
        yield tracker


def test_once_as_json_has_the_shape_that_scripts_rely_on(running: Publisher, tmp_path: Path) -> None:
    said: list[str] = []
    assert watch.watch(str(tmp_path), once=True, as_json=True, write=said.append) == 0
    document = json.loads(said[0])
    assert document["run"] == "spread"
    assert document["seconds"] == 83.4
    assert set(document["roles"][0]) == {"name", "kind", "pid", "state", "age", "restarts", "rss_mb", "cpu"}
    assert set(document["policies"]) == {"agent_0", "agent_1", "agent_2"}
    assert document["waits"][0]["for"] == "learner-agent_1"
    assert len(document["events"]) == len(documents.EVENTS)


def test_once_draws_one_screen(running: Publisher, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100, height=31, record=True)
    assert watch.watch(str(tmp_path), once=True, as_json=False, console=console) == 0
    assert "learner-agent_2" in console.export_text()


def test_an_address_finds_its_run_or_asks_for_the_token(
    running: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="--token FILE"):
        watch.target(running.address)
    watch.watch(running.address, once=True, as_json=True, token=tmp_path / "token", write=said.append)
    assert json.loads(said[0])["run"] == "spread"
    (tmp_path / "runs-out").mkdir()
    (tmp_path / "runs-out" / "spread-1").symlink_to(tmp_path)
    assert watch.target(running.address).directory == Path("runs-out/spread-1")


def test_a_named_token_may_be_a_link(running: Publisher, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.symlink_to("token")
    watch.target(running.address, secret).connect().close()
    (tmp_path / "token").write_text("no token")
    with pytest.raises(RequestError, match=r"secret cannot be read: it is not 32 hexadecimal digits"):
        watch.target(running.address, secret).connect()


def test_a_wrong_token_is_not_believed_and_does_not_hang(running: Publisher, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(new_token())
    run = watch.target(running.address, wrong)
    source = run.connect()
    try:
        with pytest.raises(Unreachable, match="said nothing"):
            watch.first(source, run, patience=0.6)
    finally:
        source.close()


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    with Publisher(tmp_path) as tracker:
        run = watch.target(str(tmp_path))
        source = run.connect()

        def hear(line: str) -> None:
            said.append(line)
            tracker._over.set()

        watch._follow(source, run, Console(file=io.StringIO()), hear)
        source.close()
    assert said
    assert not watch.target(str(tmp_path)).is_running()


def test_a_run_whose_tracker_is_about_to_come_back_goes_on(tmp_path: Path) -> None:
    directory = directories.make("cartpole", tmp_path / "run")
    run = watch.Target(directory.path, None, None)
    try:
        assert not run.is_running()  # a launcher that is this very process does not count
        assert directory.ipc is not None
        (directory.ipc / "owner").write_text(f"{os.getppid()} {process_start(os.getppid())}\n")
        assert run.is_running()
    finally:
        directory.close()


def test_what_lies_about_is_not_taken_for_a_run(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such directory"):
        watch.run_directory(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="holds no run"):
        watch.run_directory(tmp_path)
    (tmp_path / "tracker.json").write_text("[]")
    assert watch.read_address(tmp_path) is None
    (tmp_path / "tracker.json").write_text("{")
    assert watch.read_address(tmp_path) is None
    with pytest.raises(RequestError, match=r"has no tracker\.json"):
        watch.Target(tmp_path, None, None).connect()


def test_a_finished_run_is_drawn_from_its_ledger(tmp_path: Path) -> None:
    documents.fill(tmp_path)
    said: list[str] = []
    assert watch.watch(str(tmp_path), once=True, as_json=True, write=said.append) == 0
    document = json.loads(said[0])
    assert document["run"] == "spread"
    assert document["seconds"] == 180.0
    assert document["roles"] == []
    assert document["policies"]["agent_0"]["return_first"] == pytest.approx(-27.525)
    for once in (True, False):
        console = Console(file=io.StringIO(), width=100, height=31, record=True)
        assert watch.watch(str(tmp_path), once=once, as_json=False, console=console) == 0
        text = console.export_text()
        assert "180 seconds have run" in text
        assert "-27.53 → -20.03" in text or "-27.52 → -20.02" in text


def test_a_run_whose_tracker_is_gone_is_called_interrupted(tmp_path: Path) -> None:
    documents.fill(tmp_path, ended=False)
    console = Console(file=io.StringIO(), width=120, height=31, record=True)
    assert watch.watch(str(tmp_path), once=True, as_json=False, console=console) == 0
    text = console.export_text()
    assert "interrupted" in text
    assert "--resume" in text


def test_scripts_are_told_of_the_pool() -> None:
    assert watch.told(documents.pooled())["pool"]["labels"]["size 0"]["draws"] == 4000
    assert "pool" not in watch.told(documents.spread())
