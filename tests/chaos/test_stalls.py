"""SIGSTOP: a process that lives and says nothing. The others go on, nothing is lost, and nobody is restarted for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.test_kills import nursery
from tests.flow.running import Running

WINDOW = 5.0
"""Seconds in which versions are counted."""
OTHERS = ("agent_1", "agent_2")


def made(run: Running, policy: str) -> int:
    return len(run.versions(policy))


def versions_in(run: Running, began: int) -> int:
    """Versions that the other two made in the `WINDOW` after a time (ns), once it has passed."""
    run.until(lambda: time.time_ns() > began + WINDOW * 1e9, "time to compare", WINDOW + 5)
    # Sources send their facts after 5 ms; wait until some of later are there.
    run.until(lambda: any(f.time > began + WINDOW * 1e9 for f in run.facts("progress")), "later facts")
    facts = [f for f in run.facts("update") if began <= f.time < began + WINDOW * 1e9]
    return sum(fact.body["policy"] in OTHERS for fact in facts)


def test_a_stopped_learner_does_not_stop_the_others(tmp_path: Path) -> None:
    small = ("--set", "actors.environments=4", "--set", "learner.settings.batch_steps=200")  # many versions a second
    with Running(tmp_path, "spread", "--set", "stop.seconds=600", *small) as run:
        run.learning(5)
        learner = run.pid("learner-agent_0")
        before = versions_in(run, time.time_ns())
        os.kill(learner, signal.SIGSTOP)
        try:
            stopped = len(run.facts())
            during = versions_in(run, time.time_ns())
            dropped = [f for f in run.facts("progress") if f.position > stopped and f.body["dropped"]]
            assert dropped, "fragments for it were dropped, and counted"
            assert all(set(fact.body["dropped"]) == {"agent_0"} for fact in dropped)
            states = [f.body["state"] for f in run.facts("liveness") if f.body["role"] == "learner-agent_0"]
            assert "suspect" in states
        finally:
            os.kill(learner, signal.SIGCONT)
        # The first second passes until it is suspect; the machine has other things to do too. `bench` has the figure.
        assert during >= 0.6 * before, f"{during} versions in {WINDOW} s, {before} before"
        back = made(run, "agent_0")
        run.until(lambda: made(run, "agent_0") >= back + 5, "it goes on")
        assert run.pid("learner-agent_0") == learner
    assert not [f for f in run.facts("exited") if not f.body["expected"]]
    assert {life for life, _ in run.versions()} == {1}


def test_a_paused_tracker_loses_nothing(tmp_path: Path) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.return=", "--set", "stop.seconds=600") as run:
        run.learning()
        tracker = run.pid("tracker")
        os.kill(tracker, signal.SIGSTOP)
        began = time.time_ns()
        try:
            stored = run.facts()[-1].position
            run.until(lambda: time.time_ns() - began >= 3e9, "three seconds")
            assert run.facts()[-1].position == stored
        finally:
            os.kill(tracker, signal.SIGCONT)
        run.until(lambda: any(f.time > began + 3e9 for f in run.facts("update")), "facts of the time after it")
        # The learner did not wait for it.
        assert len([f for f in run.facts("update") if began <= f.time < began + 3e9]) >= 3
        assert run.pid("tracker") == tracker
    assert not [f for f in run.facts("exited") if not f.body["expected"]]


def test_a_tracker_that_stopped_for_good_is_replaced(tmp_path: Path) -> None:
    settings = ("--set", "stop.return=", "--set", "stop.seconds=600", "--set", "supervision.silence_seconds=2")
    with Running(tmp_path, "cartpole", *settings) as run:
        run.learning()
        before = run.spawned("tracker")
        assert before is not None
        run.restarts.add("tracker")
        run.kill("tracker", signal.SIGSTOP)
        run.restarted(before)
        made_so_far = len(run.versions())
        run.until(lambda: len(run.versions()) > made_so_far, "it goes on")
        told = [fact.body["text"] for fact in run.facts("alarm")]
        assert told == ["the tracker said nothing for 2 s: it is started again"]


@pytest.mark.soak
@pytest.mark.parametrize("role", ["launcher", "nursery", "tracker", "learner-agent", "actor-0"])
def test_each_process_may_stop_for_a_while(tmp_path: Path, role: str) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.return=", "--set", "stop.seconds=600") as run:
        run.learning()
        pid = {"launcher": lambda: run.launcher.pid, "nursery": lambda: nursery(run)}.get(role, lambda: run.pid(role))()
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            run.until(lambda: time.monotonic() - began >= 8, "eight seconds: longer than any silence is borne")
        finally:
            os.kill(pid, signal.SIGCONT)
        made = len(run.versions())
        run.until(lambda: len(run.versions()) > made + 5, "it goes on")
        before = run.kill("actor-1")
        run.restarted(before)
    assert [f.body["role"] for f in run.facts("exited") if not f.body["expected"]] == ["actor-1"]
