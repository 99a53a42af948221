"""`--resume`: the next life of a run goes on where the last whole checkpoint stands, and its budgets count over all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from broker.arrays import from_bytes
from tests.flow.running import Running, headrace
from tracker.checkpoints import newest_valid


def newest(directory: Path) -> dict[str, Any]:
    found, _ = newest_valid(directory / "checkpoints", "agent")
    assert found is not None
    tree: dict[str, Any] = from_bytes(found[0].read_bytes())
    return tree


def test_a_finished_run_goes_on(cartpole: Running, tmp_path: Path) -> None:
    shutil.copytree(cartpole.directory, tmp_path / "run")
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    first = newest(tmp_path / "run")
    assert first["version"] == before["policies"]["agent"]["version"]
    budget = before["seconds"] + 3
    more = ("--set", "stop.return=", "--set", f"stop.seconds={budget}")
    with Running(tmp_path, "--resume", *more) as run:
        assert run.wait(60) == 0, run.told()
        assert run.facts()[: len(cartpole.facts())] == cartpole.facts()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["state"] == "ended"
    assert summary["launches"] == 2
    # The budget is of all lives: three seconds were left.
    assert budget <= summary["seconds"] < budget + 2
    again = run.facts("run")[-1]
    assert again.body["resumed"] is True
    assert again.body["life"] == 2
    assert again.body["changed"].keys() == {"stop.return", "stop.seconds"}
    (resumed,) = run.facts("resumed")
    assert resumed.body["from"] == first["version"]
    assert resumed.body["life"] == 2
    assert resumed.body["updates_lost"] == 0
    second = [number for life, number in run.versions() if life == 2]
    assert second[0] == first["version"][1] + 2, "the next life's first version is the checkpoint's number + 1"
    last = newest(tmp_path / "run")
    assert last["version"] == [2, second[-1]]
    # The optimizer went on: no step of Adam was forgotten.
    steps = [tree["algorithm"]["optimizer"]["count"] for tree in (first, last)]
    each = steps[0] / first["updates"]
    assert steps[1] == steps[0] + each * len(second)
    assert last["updates"] == first["updates"] + len(second)
    assert last["agent_steps"] > first["agent_steps"]
    assert summary["env_steps"] == sum(f.body["env_steps"] for f in run.facts("progress")) > before["env_steps"]
    epochs = [f.body["epoch"] for f in run.facts("epoch")]
    assert epochs == list(range(epochs[0], epochs[0] + len(epochs))) if epochs else True
    logs = {path.name for path in (tmp_path / "run" / "logs").iterdir()}
    assert {"actor-0.1.log", "actor-0.2.log"} <= logs


def test_a_budget_that_is_spent_ends_at_once(cartpole: Running, tmp_path: Path) -> None:
    shutil.copytree(cartpole.directory, tmp_path / "run")
    with Running(tmp_path, "--resume", "--set", "stop.return=", "--set", "stop.seconds=1") as run:
        assert run.wait(40) == 0, run.told()
    assert run.facts("phase")[-1].body["reason"] == "1 seconds were reached"


def test_what_a_resumed_run_may_not_change(cartpole: Running, tmp_path: Path) -> None:
    before = sorted(path.name for path in cartpole.directory.rglob("*"))
    for setting in ("learner.algorithm=mine:Own", "environment.id=Acrobot-v1", "learner.fragment_steps=8"):
        arguments = ("run", "--headless", "--resume", "--run-dir", str(cartpole.directory), "--set", setting)
        refused = headrace(*arguments, cwd=tmp_path)
        assert refused.returncode == 2
        assert setting.partition("=")[0] in refused.stderr
    assert sorted(path.name for path in cartpole.directory.rglob("*")) == before
