"""SIGKILL of every process of a run in turn: what the ledger says afterwards, and that the run goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.flow.running import Fact, Running, processes_in, until

LASTING = ("cartpole", "--set", "stop.return=", "--set", "stop.seconds=600", "--set", "actors.environments=8")
OFTEN = ("--set", "learner.checkpoint_seconds=0.5")


def exits(run: Running, before: Fact) -> list[Fact]:
    """The `exited` facts of the process of this `spawned` fact."""
    about = (before.body["role"], before.body["attempt"])
    return [fact for fact in run.facts("exited") if (fact.body["role"], fact.body["attempt"]) == about]


def killed(run: Running, before: Fact) -> None:
    """It was seen to be killed, and has a successor."""
    run.restarted(before)
    (exit_,) = run.until(lambda: exits(run, before), "its `exited` fact")
    assert exit_.body["signal"] == "SIGKILL"
    assert exit_.body["pid"] == before.body["pid"]
    assert exit_.body["expected"] is False


def growing(run: Running, count: Callable[[], int], more: int, what: str) -> None:
    before = count()
    run.until(lambda: count() >= before + more, f"{more} more {what}")


def test_an_actor(tmp_path: Path) -> None:
    with Running(tmp_path, *LASTING) as run:
        run.learning()
        before = run.kill("actor-0")
        killed(run, before)
        known = {fact.incarnation for fact in run.facts(source="actor-0")}
        assert len(known) == 1
        run.until(
            lambda: [f for f in run.facts("episode", "actor-0") if f.incarnation not in known],
            "episodes of the new incarnation",
        )
        growing(run, lambda: len(run.versions()), 3, "versions")
    lives = {life for life, _ in run.versions()}
    assert lives == {1}
    assert not run.facts("resumed")


def test_the_learner(tmp_path: Path) -> None:
    with Running(tmp_path, *LASTING, *OFTEN) as run:
        run.learning()
        kept = run.until(lambda: run.last("checkpoint"), "a checkpoint")
        run.until(lambda: run.versions()[-1][1] > kept.body["version"][1], "versions after it")
        steps = sum(f.body["env_steps"] for f in run.facts("progress"))
        before = run.kill("learner-agent")
        killed(run, before)
        resumed = run.until(lambda: run.last("resumed"), "it resumed")
        run.until(lambda: run.versions()[-1][0] == 2, "versions of life 2")
        growing(run, lambda: len(run.versions()), 5, "versions")
        growing(run, lambda: len(run.facts("episode")), 5, "episodes")
    lives = [fact.body["life"] for fact in run.facts("life")]
    assert lives == [1, 2]
    committed = [tuple(f.body["version"]) for f in run.facts("checkpoint") if f.position < resumed.position]
    assert tuple(resumed.body["from"]) == max(committed)
    second = [number for life, number in run.versions() if life == 2]
    first = [number for life, number in run.versions() if life == 1]
    # The next life begins at the checkpoint's number + 1; its first update makes the version after that.
    assert second[0] == resumed.body["from"][1] + 2
    assert resumed.body["updates_lost"] == first[-1] - resumed.body["from"][1]
    assert sum(f.body["env_steps"] for f in run.facts("progress")) > steps
    actors = {f.body["role"] for f in run.facts("exited") if not f.body["expected"]}
    assert actors == {"learner-agent"}, "nobody else fell"


def test_the_tracker(tmp_path: Path) -> None:
    with Running(tmp_path, *LASTING, *OFTEN) as run:
        run.learning()
        stored = run.facts()[-1].position
        others = {role: run.pid(role) for role in ("actor-0", "actor-1", "learner-agent")}
        before = run.kill("tracker")
        killed(run, before)
        growing(run, lambda: len(run.versions()), 5, "versions")
        growing(run, lambda: len(run.facts("checkpoint")), 1, "checkpoints")
        assert {role: run.pid(role) for role in others} == others
        assert run.facts()[-1].position > stored
        assert run.phase() == "running"
    assert {life for life, _ in run.versions()} == {1}
    assert [f.body["phase"] for f in run.facts("phase")] == ["starting", "running", "stopping", "ended"]
    assert len({f.incarnation for f in run.facts(source="tracker")}) == 2


def test_the_tracker_as_the_run_ends(tmp_path: Path) -> None:
    """Who has not heard that the run is ending hears it from the next tracker."""
    with Running(tmp_path, *LASTING) as run:
        run.learning()
        tracker = run.pid("tracker")
        os.kill(run.pid("learner-agent"), signal.SIGSTOP)
        run.interrupt()
        run.until(lambda: run.phase() == "stopping", "stopping")
        run.restarts.add("tracker")
        os.kill(tracker, signal.SIGKILL)
        run.until(lambda: run.pid("tracker") != tracker, "a new tracker")
        os.kill(run.pid("learner-agent"), signal.SIGCONT)
        assert run.wait(15) == 0
    back = [fact for fact in run.facts("liveness") if fact.body["role"] == "learner-agent"][-2:]
    assert [fact.body["state"] for fact in back] == ["alive", "left"]
    assert back[1].time - back[0].time < 4e9, "it was told by the tracker, not by the launcher's SIGTERM after 5 s"
    checkpoint = run.last("checkpoint")
    assert checkpoint is not None, "the last checkpoint was offered"
    assert tuple(checkpoint.body["version"]) == run.versions()[-1]
    ended = run.last("phase")
    assert ended is not None
    assert (ended.body["phase"], ended.body["reason"], ended.body["failed"]) == ("ended", "interrupted", False)


@pytest.mark.parametrize("nursery_too", [False, True])
def test_the_launcher(tmp_path: Path, nursery_too: bool) -> None:
    with Running(tmp_path, *LASTING, *OFTEN) as run:
        run.learning()
        run.until(lambda: run.last("checkpoint"), "a checkpoint")
        if nursery_too:
            os.kill(nursery(run), signal.SIGKILL)
        run.launcher.kill()
        run.launcher.wait()
        began = time.monotonic()
        until(lambda: not processes_in(run.directory), "no process of the run is left", 5.0)
        assert time.monotonic() - began < 5
        run.expected_status = -signal.SIGKILL
        run.end()
        ended = run.last("phase")
        assert ended is not None
        assert (ended.body["phase"], ended.body["reason"]) == ("ended", "the launcher is gone")
        assert ended.body["failed"] is True
    if nursery_too:
        return
    before = run.facts()
    with Running(tmp_path, "--resume") as again:
        again.until(lambda: again.versions() and again.versions()[-1][0] == 2, "versions of life 2", 45)
        assert again.facts()[: len(before)] == before
    assert [f.body["life"] for f in again.facts("run")] == [1, 2]
    attempts = [(f.body["role"], f.body["attempt"]) for f in again.facts("spawned")]
    assert len(set(attempts)) == len(attempts)
    assert again.facts("resumed")[-1].body["life"] == 2


def test_the_nursery(tmp_path: Path) -> None:
    with Running(tmp_path, *LASTING) as run:
        run.learning()
        first = nursery(run)
        os.kill(first, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE, "gone")
        growing(run, lambda: len(run.versions()), 3, "versions")
        assert not run.facts("exited")
        before = run.kill("actor-0")
        run.restarted(before)
        known = before.body["attempt"]
        run.until(
            lambda: len({f.incarnation for f in run.facts("episode", "actor-0")}) == known + 1,
            "episodes of the new incarnation",
        )
        assert nursery(run) != first
        # Nobody could see how those ended that had lost their parent: that is no fall.
        run.restarts |= set()
    assert [f.body["role"] for f in run.facts("exited") if not f.body["expected"]] == ["actor-0"]


def nursery(run: Running) -> int:
    """The fork server's pid: the launcher's child that is no role."""
    roles = {f.body["pid"] for f in run.facts("spawned")}
    children = [p.pid for p in psutil.Process(run.launcher.pid).children() if p.pid not in roles]
    (pid,) = [pid for pid in children if "launcher.nursery" in " ".join(psutil.Process(pid).cmdline())]
    return pid
