from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.hubstate import Said
from broker.liveness import Event
from broker.messages import CheckpointOffer, Chunk, Directory, Hello
from broker.names import ALL, new_token
from broker.station import Spec
from tests.tracker import bodies as b
from tests.tracker.test_reports import ENDED, STORY, make
from tracker import role as roles
from tracker.exchange import Now
from tracker.hubs import APART, SINGLE
from tracker.ledger import LedgerFull
from tracker.notices import AGAIN, Notices
from tracker.role import TrackerRole

RUN = {
    "name": "spread",
    "seed": 7,
    "learner": {"ending_seconds": 30.0},
    "tracker": {"epoch_steps": None, "lease_seconds": 60.0, "insecure": False},
}


class Made:
    """A tracker with sockets, whose loop the test may run or not."""

    def __init__(self, folder: Path, launch: int = 1) -> None:
        (folder / "token").write_text(new_token())
        plan = {"run": RUN, "policies": {"p": {}}, "roles": [{"name": "learner-p", "kind": "learner"}]}
        about = {"role": "tracker", "kind": "tracker", "index": 0, "tracker": "tcp://127.0.0.1:0", "plan": plan}
        spec = Spec.of({**about, "directory": str(folder), "sockets": str(folder), "launch": launch})
        self.ending = threading.Event()
        self.role = TrackerRole(spec, self.ending)
        self.directories: list[tuple[str, list[str]]] = []
        self.now = 1000.0

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def publish(recipient: str, message: Any, _: Any = None) -> None:
            if isinstance(message, Directory):
                self.directories.append((recipient, [entry.address for entry in message.entries]))

        monkeypatch.setattr(self.role._hub, "publish", publish)

    def receives(self, *deliveries: Any) -> list[tuple[str, list[str]]]:
        self.directories = []
        for delivery in deliveries:
            self.role._receive(delivery, Now(0, self.now))
        self.now += 2 * APART
        self.role._send_directory(self.now)
        return self.directories


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    tracker = Made(tmp_path)
    yield tracker
    tracker.role.close()


def test_the_directory_goes_to_all_on_change_and_to_each_at_its_hello(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.listen(monkeypatch)
    name, here = "learner-p", ["ipc:///l"]
    hello = Said(name, b.ONE, Hello(role="learner", pid=1, address="ipc:///l", policy="p"))
    assert made.receives(Event(name, b.ONE, "alive"), hello) == [(ALL, here)]
    assert made.receives(hello) == [(name, here)]
    assert made.receives(Said("actor-0", b.ONE, Hello(role="actor", pid=2))) == [("actor-0", here)]
    # Stopped for longer than silence is borne: the same incarnation comes back.
    assert made.receives(Event(name, b.ONE, "suspect")) == []
    assert made.receives(Event(name, b.ONE, "lost")) == [(ALL, [])]
    assert made.receives(Event(name, b.ONE, "returned"), hello) == [(ALL, here)]
    assert made.role._live.seen[name].state == "alive"
    # Another takes its place: what becomes of the older one changes nothing.
    there = ["ipc:///m"]
    newer = Said(name, b.TWO, Hello(role="learner", pid=3, address="ipc:///m", policy="p"))
    assert made.receives(Event(name, b.ONE, "superseded"), newer) == [(ALL, there)]
    assert made.receives(Event(name, b.ONE, "lost")) == []
    assert made.receives(Event(name, b.TWO, "left")) == [(ALL, [])]


def test_a_storm_of_hellos_costs_one_directory(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.listen(monkeypatch)
    learner = Hello(role="learner", pid=1, address="ipc:///l", policy="p")
    storm = [Said(f"learner-{n}", b.ONE, learner) for n in range(SINGLE)] + [Said("learner-p", b.ONE, learner)]
    assert made.receives(*storm) == [(ALL, ["ipc:///l"])], "a name that is not in the plan is not listed"
    for address in ("nonsense", "http://127.0.0.1:80", "tcp://127.0.0.1", "tcp://127.0.0.1:0", "ipc://" + "x" * 200):
        wrong = Said("learner-p", b.TWO, learner.model_copy(update={"address": address}))
        assert made.receives(wrong) == [("learner-p", ["ipc:///l"])], address
    made.role._send_directory(made.now)
    assert made.directories == [("learner-p", ["ipc:///l"])], "nobody asked since"


def test_a_forgotten_name_is_forgotten_everywhere(made: Made) -> None:
    made.receives(Event("actor-0", b.ONE, "alive"), Said("actor-0", b.ONE, Hello(role="actor", pid=2)))
    batch = made.role._core.gather(Now(0, made.now))
    assert "actor-0" in made.role._live.seen
    assert "actor-0" in made.role._core.members
    made.role._core.committed(range(1, 1 + len(batch.rows)))
    made.receives(Event("actor-0", b.ONE, "forgotten"))
    made.role._core.gather(Now(0, made.now))
    assert "actor-0" not in made.role._live.seen
    assert "actor-0" not in made.role._core.members


def test_checkpoints_that_cannot_be_kept_are_an_alarm(made: Made) -> None:
    folder = made.role._store.folder
    offer = CheckpointOffer(offer=1, policy="p", version=(1, 1), size=1, sha256=hashlib.sha256(b"x").hexdigest())
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")
    made.receives(Said("learner-p", b.ONE, offer))
    assert "is a link" in made.role._live.alarms["checkpoints"]
    folder.unlink()
    folder.with_name("elsewhere").rename(folder)
    made.receives(Said("learner-p", b.ONE, offer))
    (folder / "p~1.1.checkpoint.json.coming").mkdir()
    made.receives(Said("learner-p", b.ONE, Chunk(offer=1, index=0), b"x"))
    assert "is a folder" in made.role._live.alarms["checkpoints"]


def test_checkpoints_out_of_sight_are_not_gone(made: Made) -> None:
    folder, user = made.role._store.folder, os.geteuid()
    made.role._core.standings.policy("p").positions["p~1.1.checkpoint"] = 1
    folder.chmod(0)
    try:
        if user == 0:
            os.seteuid(65_534)
        made.role._transfers.look()
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
    assert made.role._core._recorded == []
    made.role._transfers.look()
    assert "is gone" in made.role._core._recorded[0][1]["text"]


def test_only_the_end_of_this_launch_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *STORY, ENDED).close()
    (tmp_path / "tracker.json.partial").mkdir()  # stands for a disk without room
    made = Made(tmp_path, launch=2)
    assert "tracker.json" in made.role._live.alarms
    (tmp_path / "tracker.json.partial").rmdir()
    monkeypatch.setattr(roles, "FULL_PAUSE", 0.01)
    calm = SimpleNamespace(collect=lambda: 0, freeze=lambda: None, set_threshold=lambda *_: None)
    monkeypatch.setattr(roles, "gc", calm)
    commits: list[bool] = []
    commit = made.role._ledger.commit

    def full() -> AbstractContextManager[None]:
        commits.append((tmp_path / "summary.json").exists())
        if len(commits) <= 20:
            raise LedgerFull("no room")
        made.ending.set()
        return commit()

    monkeypatch.setattr(made.role._ledger, "commit", full)
    began = time.monotonic()
    try:
        made.role.run()
    finally:
        made.role.close()
    assert time.monotonic() - began < 20
    assert commits[:21] == [False] * 21  # the earlier launch's end, which the folds still say, ended nothing
    standings = made.role._core.standings
    assert (standings.phase, standings.phase_launch) == ("ended", 2)
    assert json.loads((tmp_path / "summary.json").read_text())["reason"] == standings.reason
    assert (tmp_path / "tracker.json").exists()


def test_a_reason_of_any_length_travels(made: Made) -> None:
    made.role._say_phase("stopping", "x" * 200_000)
    time.sleep(0.1)
    assert made.role._reactor.failure is None


def test_a_notice_that_cannot_be_written_is_an_alarm_and_tried_again(tmp_path: Path) -> None:
    make(tmp_path, *STORY, ENDED).close()
    alarms: dict[str, str] = {}
    notices = Notices(tmp_path, alarms)
    for name in ("tracker.json.partial", "summary.json.partial"):
        (tmp_path / name).mkdir()
    assert not notices.address("ipc:///t", "spread", 1.0)
    assert not notices.summary(1.0)
    assert sorted(alarms) == ["summary.json", "tracker.json"]
    assert "free some space" in alarms["summary.json"]
    for name in ("tracker.json.partial", "summary.json.partial"):
        (tmp_path / name).rmdir()
    assert not notices.summary(1.0 + AGAIN / 2)
    assert notices.summary(1.0 + AGAIN)
    assert notices.address("ipc:///t", "spread", 1.0 + AGAIN)
    assert alarms == {}
    assert json.loads((tmp_path / "tracker.json").read_text())["address"] == "ipc:///t"
    (tmp_path / "summary.json").unlink()
    assert notices.summary(9.0)  # once
    assert not (tmp_path / "summary.json").exists()
