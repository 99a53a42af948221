"""SIGKILL at every moment of a checkpoint, a resume and the end of a run: aimed, one moment after another.

Each case names a function and the steps in it (`tests/chaos/aim/sitecustomize.py` wraps them in the real processes).
One case runs with the other tests; all of them in `make soak`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.flow.running import Fact, Running, processes_in, until
from tracker.checkpoints import CheckpointStore, flaw, newest_valid

HERE = Path(__file__).parent
DISK = ("os:fsync", "os:rename", "os:unlink")
RUN = (
    "cartpole", "--set", "stop.return=", "--set", "stop.seconds=600", "--set", "actors.environments=8",
    "--set", "learner.checkpoint_seconds=0.1", "--set", "policies.settings.hidden=[384, 384]",
    "--set", "supervision.restarts=1000", "--set", "supervision.backoff_seconds=0",
)  # fmt: skip
"""A run whose checkpoints have several chunks."""


class Aim(NamedTuple):
    """Where to kill: the role, the function within which, and the steps in it."""

    role: str
    within: str
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.role}-{self.within.rpartition(':')[2]}"


class Gun:
    """The input of `sitecustomize`, and its reports."""

    def __init__(self, home: Path, aim: Aim, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = home / "kills"
        self.folder.mkdir()
        monkeypatch.setenv("PYTHONPATH", f"{HERE / 'aim'}")
        monkeypatch.setenv("AIM", json.dumps({**aim._asdict(), "folder": str(self.folder)}))

    def arm(self) -> None:
        (self.folder / "armed").touch()

    def kills(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name[0].isdigit())

    def done(self) -> bool:
        return (self.folder / "done").exists()


def whole(run: Running) -> None:
    """Of what is on disk nothing is half, and the ledger has a fact of it."""
    folder = run.directory / "checkpoints"
    store = CheckpointStore(folder)  # takes away what a kill at the very end left, as the next launch would
    facts = {(fact.body["file"], fact.body["sha256"]) for fact in run.facts("checkpoint")}
    manifests = store.manifests()
    assert manifests
    assert [found for found in (flaw(folder, manifest) for manifest in manifests) if found] == []
    unknown = [manifest for manifest in manifests if (manifest.file, manifest.sha256) not in facts]
    assert not unknown, "the tracker records what it finds when it comes back"
    assert newest_valid(folder, "agent")[1] == []
    assert len(list(folder.iterdir())) == 2 * len(manifests)


def goes_on(run: Running) -> None:
    versions, kept = len(run.versions()), len(run.facts("checkpoint"))
    run.until(lambda: len(run.versions()) > versions + 3, "more versions", 60)
    run.until(lambda: len(run.facts("checkpoint")) > kept + 1, "more checkpoints", 60)


CHECKPOINT = [
    Aim("tracker", "tracker.checkpoints:CheckpointStore.finish", DISK),
    Aim("tracker", "tracker.transfers:Transfers.arrived", ("tracker.checkpoints:CheckpointStore.write",)),
    Aim("tracker", "tracker.transfers:Transfers.offered", ("tracker.checkpoints:CheckpointStore.begin",)),
    Aim("tracker", "tracker.transfers:Transfers.committed"),
    Aim("learner-agent", "learners.role:Checkpoints.offer", ("learners.ppo:Ppo.snapshot",)),
    Aim("learner-agent", "broker.tracker_spoke:TrackerSpoke._flow_upload", ("broker.transfer:Upload.next_chunk",)),
]
RESTORED = [
    Aim("learner-agent", "broker.tracker_spoke:TrackerSpoke.restore", ("broker.tracker_spoke:TrackerSpoke.say",)),
    Aim("learner-agent", "learners.role:Checkpoints.take_up", ("learners.ppo:Ppo.restore",)),
    Aim("tracker", "tracker.transfers:Transfers.begin", ("tracker.checkpoints:newest_valid",)),
    Aim("tracker", "tracker.transfers:Transfers.asked", ("tracker.checkpoints:read_chunk",)),
]
TRACKER_BACK = Aim(
    "tracker",
    "tracker.role:TrackerRole.__init__",
    (
        "tracker.folds:Folds.restore", "tracker.checkpoints:CheckpointStore.__init__", "tracker.core:Core.__init__",
        "broker.hub:Hub.__init__", "tracker.reserve:Reserve.hold", "tracker.transfers:Transfers.__init__",
    ),
)  # fmt: skip
RESUME = Aim(
    "launcher",
    "launcher.run:run",
    ("launcher.directory:make", "launcher.directory:inspect", "launcher.launch:Launch._spawn", *DISK),
)
STOPPING = [
    Aim("actor-0", "broker.station:Station.close", ("broker.tracker_spoke:TrackerSpoke.flush",)),
    Aim("learner-agent", "learners.role:Checkpoints.offer", ("learners.ppo:Ppo.snapshot",)),
    Aim("learner-agent", "broker.tracker_spoke:TrackerSpoke.wait_durable"),
    Aim("learner-agent", "broker.station:Station.close", ("broker.tracker_spoke:TrackerSpoke.flush",)),
    Aim("tracker", "tracker.role:TrackerRole._say_phase", ("broker.hub:Hub.set_phase",)),
    Aim("tracker", "tracker.checkpoints:CheckpointStore.finish", DISK),
    Aim("tracker", "tracker.summary:write_summary", DISK),
    Aim("tracker", "tracker.role:TrackerRole.close", ("tracker.ledger:Ledger.close",)),
]


def during(home: Path, aim: Aim, monkeypatch: pytest.MonkeyPatch, shot: Callable[[Running], None]) -> list[str]:
    """Kill the role at every moment of `aim` in one run, which goes on each time; gives the moments."""
    gun = Gun(home, aim, monkeypatch)
    with Running(home, *RUN) as run:
        run.restarts |= {aim.role, "learner-agent"}
        run.until(lambda: len(run.facts("checkpoint")) > 6, "the rotation has begun", 60)
        gun.arm()
        shot(run)
        run.until(gun.done, f"an attempt comes through; so far {gun.kills()}", 240)
        goes_on(run)
    whole(run)
    return gun.kills()


def nothing(run: Running) -> None:
    """The run itself comes to the moments."""


def learner_falls(run: Running) -> None:
    os.kill(run.pid("learner-agent"), signal.SIGKILL)


def tracker_falls(run: Running) -> None:
    os.kill(run.pid("tracker"), signal.SIGKILL)


@pytest.mark.soak
@pytest.mark.parametrize("aim", CHECKPOINT, ids=str)
def test_at_every_moment_of_a_checkpoint(tmp_path: Path, aim: Aim, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = during(tmp_path, aim, monkeypatch, nothing)
    assert len(moments) >= 2 + 2 * len(aim.steps)


@pytest.mark.soak
@pytest.mark.parametrize("aim", RESTORED, ids=str)
def test_at_every_moment_of_a_restore(tmp_path: Path, aim: Aim, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = during(tmp_path, aim, monkeypatch, learner_falls)
    assert len(moments) >= 2 + 2 * len(aim.steps)


@pytest.mark.soak
def test_at_every_moment_of_a_trackers_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = during(tmp_path, TRACKER_BACK, monkeypatch, tracker_falls)
    assert len(moments) == 2 + 2 * len(TRACKER_BACK.steps)


def ended_at(home: Path, aim: Aim, monkeypatch: pytest.MonkeyPatch, skip: int) -> list[str]:
    """End a run in good order, and kill the role from the moment of this number on, a tracker again and again."""
    gun = Gun(home, aim, monkeypatch)
    for number in range(skip):
        (gun.folder / f"{number:03d} passed over").touch()
    with Running(home, *RUN) as run:
        run.restarts |= {aim.role}
        run.until(lambda: len(run.facts("checkpoint")) > 6, "the rotation has begun", 60)
        gun.arm()
        run.interrupt()
        status = run.wait(40)
        run.expected_status = status
        ended = run.last("phase")
        assert ended is not None
        assert ended.body["phase"] == "ended"
        moments = gun.kills()[skip:]
        if aim.role.startswith("learner") and moments:
            assert status == 1
            assert "learner-agent ended with SIGKILL" in run.errors.read_text()
        else:
            assert status == 0, moments
        state = json.loads((run.directory / "summary.json").read_text())["state"]
        left = bool(moments) and "after broker.station:Station.close" in moments[-1]  # the tracker had its farewell
        assert left or state == ("failed" if status else "ended"), moments
    whole(run)
    return moments


@pytest.mark.soak
@pytest.mark.parametrize("aim", STOPPING, ids=str)
def test_at_every_moment_of_the_end(tmp_path: Path, aim: Aim, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    while True:
        home = tmp_path / str(len(passed))
        home.mkdir()
        moments = ended_at(home, aim, monkeypatch, len(passed))
        if not moments:
            break
        passed += moments
    assert len(passed) >= 2 + len(aim.steps)


def test_as_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_at(tmp_path, STOPPING[4], monkeypatch, 1)


def resumed(home: Path, gun: Gun, before: list[Fact]) -> list[Fact]:
    """Resume the run with a launcher that is killed, or ended once it came through; gives the facts afterwards."""
    kills = len(gun.kills())
    run = Running(home, "--resume")
    until(lambda: run.launcher.poll() is not None or (run.phase() == "running" and run.versions()[-1:]), run.told(), 60)
    if len(gun.kills()) == kills and run.launcher.poll() is None:
        run.interrupt()
    run.launcher.wait(40)
    until(lambda: not processes_in(run.directory), "no process of the run is left", 10)
    assert run.facts()[: len(before)] == before
    whole(run)
    return run.facts()


@pytest.mark.soak
def test_at_every_moment_of_a_launchers_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Running(tmp_path, *RUN) as run:
        run.until(lambda: len(run.facts("checkpoint")) > 6, "checkpoints", 60)
    before = run.facts()
    gun = Gun(tmp_path, RESUME, monkeypatch)
    gun.arm()
    while not gun.done():
        before = resumed(tmp_path, gun, before)
    assert len(gun.kills()) > 20
    monkeypatch.delenv("AIM")
    with Running(tmp_path, "--resume") as last:
        last.until(lambda: last.facts("resumed")[-1:] and last.facts("resumed")[-1].position > len(before), "on", 60)
        goes_on(last)
