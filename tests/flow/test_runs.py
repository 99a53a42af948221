"""Whole runs, from the command line to what they leave in their directory."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from broker.arrays import from_bytes
from broker.errors import RequestError
from tests.flow.running import Running, headrace, processes_in, quiet, until
from tracker.checkpoints import newest_valid


def summary_of(run: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.directory / "summary.json").read_text())
    return found


@pytest.fixture(params=["cartpole", "spread"])
def finished(request: pytest.FixtureRequest) -> Running:
    run: Running = request.getfixturevalue(request.param)
    return run


def test_the_summary_has_the_shape_that_scripts_rely_on(finished: Running) -> None:
    summary = summary_of(finished)
    assert summary["state"] == "ended"
    assert summary["failed"] is False
    assert "reached" in summary["reason"]
    assert summary["seconds"] > 0
    assert summary["restarts"] == dict.fromkeys(summary["restarts"], 0)
    assert {"actor-0", "actor-1", "tracker"} < set(summary["restarts"])
    agents = dict.fromkeys(summary["policies"], 1)
    assert summary["agent_steps"] > summary["env_steps"] * 0.9 * len(agents)
    for policy in summary["policies"].values():
        assert policy["version"][0] == 1
        assert policy["version"][1] > 1
        assert policy["return_first"] is not None
        assert policy["return_mean"] is not None
        assert policy["episodes"] > 0
        assert policy["staleness"]["p95"] >= policy["staleness"]["median"] >= 0
        assert policy["fragments"]["consumed"] > 0
        assert policy["fragments"]["lost"] == 0
    assert summary["facts"]["stored"] > 100
    assert summary["facts"]["refused"] == 0
    told = headrace("summary", "--json", str(finished.directory), cwd=finished.directory.parent)
    assert told.returncode == 0, told.stderr
    again = json.loads(told.stdout)
    assert again.keys() == summary.keys()
    for key in ("run", "state", "reason", "env_steps", "agent_steps", "episodes"):
        assert again[key] == summary[key]
    words = headrace("summary", str(finished.directory), cwd=finished.directory.parent)
    assert words.returncode == 0
    assert "ended" in words.stdout


def test_what_the_facts_say_agrees_with_the_summary(finished: Running) -> None:
    summary = summary_of(finished)
    assert summary["env_steps"] == sum(f.body["env_steps"] for f in finished.facts("progress"))
    for name, policy in summary["policies"].items():
        updates = [f for f in finished.facts("update") if f.body["policy"] == name]
        assert policy["version"] == updates[-1].body["version"]
        counted = [*updates, *(f for f in finished.facts("fragments") if f.body["policy"] == name)]
        assert policy["fragments"]["consumed"] == sum(f.body["consumed"] for f in counted)
        assert [f.body["version"][1] for f in updates] == list(range(1, len(updates) + 1))
        used = sum(f.body["agent_steps"] for f in counted)
        made = sum(f.body["agent_steps"][name] for f in finished.facts("progress"))
        assert 0 < used <= made
    phases = [f.body["phase"] for f in finished.facts("phase")]
    assert phases == ["starting", "running", "stopping", "ended"]
    seconds = [f.body["seconds"] for f in finished.facts("clock")]
    assert seconds == sorted(seconds)
    spawned = {f.body["role"] for f in finished.facts("spawned")}
    exits = {f.body["role"]: f.body for f in finished.facts("exited")}
    assert set(exits) == spawned - {"tracker"}, "who was spawned has left; the tracker's own end nobody can write"
    assert all(body["status"] == 0 and body["expected"] and body["last_words"] == "" for body in exits.values())


def test_a_limit_of_env_steps_is_passed_by_a_fragment(tmp_path: Path) -> None:
    limited = ("--set", "stop.env_steps=9000", "--set", "stop.return=")
    with Running(tmp_path, "cartpole", *limited) as run:
        assert run.wait(90) == 0, run.told()
    actors, fragment = 2, 32 * 32
    assert 9000 <= sum(fact.body["env_steps"] for fact in run.facts("progress")) <= 9000 + actors * fragment


def test_checkpoints_and_logs_are_there(finished: Running) -> None:
    kept = [f.body for f in finished.facts("checkpoint")]
    for name, policy in summary_of(finished)["policies"].items():
        found, skipped = newest_valid(finished.directory / "checkpoints", name)
        assert found is not None
        assert not skipped
        tree = from_bytes(found[0].read_bytes())
        assert tree["policy"] == name
        # The last checkpoint is of the last version: nothing of a run that ended well is lost.
        assert tree["version"] == policy["version"]
        assert any(body["policy"] == name and body["version"] == tree["version"] for body in kept)
    logs = {path.name for path in (finished.directory / "logs").iterdir()}
    assert {"tracker.1.log", "actor-0.1.log", "actor-1.1.log", "nursery.log"} <= logs
    noise = {name: (finished.directory / "logs" / name).read_text() for name in logs}
    assert not [text for text in noise.values() if text], noise
    assert not (finished.directory / "ipc").exists()
    assert finished.errors.read_text() == ""


def test_exports(cartpole: Running, tmp_path: Path) -> None:
    stored = cartpole.facts()
    made = headrace("export", str(cartpole.directory), "--to", "json", "--out", "facts.json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    document = json.loads((tmp_path / "facts.json").read_text())
    assert document["count"] == len(stored)
    exported = sorted(fact["position"] for facts in document["facts"].values() for fact in facts)
    assert exported == [fact.position for fact in stored]
    made = headrace("export", str(cartpole.directory), "--to", "csv", "--out", "facts", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    with (tmp_path / "facts" / "update.csv").open() as file:
        rows = list(csv.DictReader(file))
    updates = cartpole.facts("update")
    assert [int(row["sequence"]) for row in rows] == [fact.sequence for fact in updates]
    assert float(rows[0]["losses.value_loss"]) == pytest.approx(updates[0].body["losses"]["value_loss"])


def test_a_watched_run_is_interrupted(tmp_path: Path) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.return=", "--set", "stop.seconds=600") as run:
        run.learning()
        seen = headrace("watch", "--once", "--json", str(run.directory), cwd=tmp_path)
        assert seen.returncode == 0, seen.stderr
        document = json.loads(seen.stdout)
        assert document["run"] == "cartpole"
        assert document["phase"] == "running"
        roles = {role["name"]: role for role in document["roles"]}
        assert set(roles) == {"tracker", "launcher", "learner-agent", "actor-0", "actor-1"}
        for name in ("tracker", "learner-agent", "actor-0", "actor-1"):
            assert roles[name]["pid"] == run.pid(name)
            assert roles[name]["restarts"] == 0
            assert roles[name]["rss_mb"] > 1
        assert document["policies"]["agent"]["version"][0] == 1
        assert {"waits", "events", "seconds"} <= document.keys()
        began = time.monotonic()
        run.interrupt()
        assert run.wait(10) == 0
        assert time.monotonic() - began < 10
        summary = summary_of(run)
        assert (summary["state"], summary["reason"]) == ("ended", "interrupted")
        last = run.last("checkpoint")
        assert last is not None
        assert tuple(last.body["version"]) == run.versions()[-1]
        assert {f.body["status"] for f in run.facts("exited")} == {0}
    after = headrace("watch", "--once", "--json", str(run.directory), cwd=tmp_path)
    assert after.returncode == 0
    assert json.loads(after.stdout)["phase"] == "ended"


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.return=", "--set", "stop.seconds=600") as run:
        run.learning()
        run.launcher.send_signal(signal.SIGHUP)  # its terminal was closed
        run.until(lambda: run.phase() in ("stopping", "ended"), "stopping")
        run.interrupt()
        began = time.monotonic()
        status = run.wait(6)
        assert time.monotonic() - began < 6
        assert not processes_in(run.directory)
        summary = json.loads(headrace("summary", "--json", str(run.directory), cwd=tmp_path).stdout)
        # Whether it ended in order just before, or was cut short; never well if its learner had to be killed.
        assert summary["reason"].startswith("SIGHUP")
        killed = [
            f for f in run.facts("exited", "launcher") if f.body["role"].startswith("learner") and f.body["status"]
        ]
        assert status == (1 if killed or summary["failed"] else 0), run.told()
        run.restarts.update(f.body["role"] for f in killed)
        run.expected_status = status


def test_an_interrupt_before_anything_was_started(tmp_path: Path) -> None:
    run = Running(tmp_path, "cartpole")
    run.until((run.directory / "token").exists, "it was begun")
    run.interrupt()
    assert run.launcher.wait(15) in (0, 130)
    # One that was being born at that very moment sees that the launcher is gone, and follows.
    until(lambda: not processes_in(run.directory), "nobody is left behind")
    assert "Traceback" not in run.errors.read_text()
    if run.directory.exists():  # a role was asked for already
        assert list((run.directory / "logs").glob("tracker.*.log"))


def test_a_run_whose_ledger_was_deleted_is_kept(tmp_path: Path) -> None:
    run = Running(tmp_path, "cartpole", "--set", "learner.checkpoint_seconds=0.2")
    with suppress(RequestError), run:  # there is no ledger left that could be checked
        run.until(lambda: run.last("checkpoint"), "a checkpoint", 45)
        for path in run.directory.glob("ledger.sqlite*"):
            path.unlink()
        run.interrupt()
        run.expected_status = run.wait(30)
    assert list((run.directory / "checkpoints").glob("agent~*.checkpoint"))
    assert list((run.directory / "logs").iterdir())


def test_last_words_reach_the_ledger_without_logs(tmp_path: Path) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.return=") as run:
        run.learning()
        shutil.rmtree(run.directory / "logs")
        os.kill(run.pid("actor-0"), signal.SIGABRT)  # faulthandler writes where it was
        run.restarts.add("actor-0")
        fell = run.until(lambda: [f for f in run.facts("exited") if not f.body["expected"]], "it fell")
        assert "Extension modules:" in fell[0].body["last_words"]
        run.until(lambda: len([f for f in run.facts("spawned") if f.body["role"] == "actor-0"]) == 2, "it is back")
        shutil.rmtree(run.directory / "logs", ignore_errors=True)


def test_a_terminated_tracker_ends_the_run_and_says_so(tmp_path: Path) -> None:
    with Running(tmp_path, "cartpole", "--set", "stop.return=", "--set", "stop.seconds=600", status=1) as run:
        run.learning()
        os.kill(run.pid("tracker"), signal.SIGTERM)
        assert run.wait(15) == 1
        summary = summary_of(run)
        assert summary["state"] == "failed"
        assert summary["reason"] == "the tracker was told to end (SIGTERM)"


def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launcher.cli", "run", "cartpole", "--headless", "--seconds", "2"]
    with subprocess.Popen(
        [*command, "--run-dir", "run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=quiet()
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline()
        run.stdout.close()
        assert run.wait(60) == 0
        assert run.stderr.read() == b""
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "ended"
    assert not processes_in(tmp_path)
