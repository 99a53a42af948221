"""The examples, as a user runs them: copied to a folder of their own and started from their run file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import launcher
from tests.flow.running import headrace, processes_in
from tracker.ledger import LedgerReader

EXAMPLES = Path(__file__).parents[2] / "examples"


def ran(name: str, home: Path) -> tuple[Path, dict[str, Any]]:
    """The run directory and the summary of an example, run to its own end."""
    folder = home / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("runs-out", "__pycache__"))
    done = headrace("run", f"{name}.toml", "--headless", "--seed", "1", "--run-dir", "run", cwd=folder, seconds=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not processes_in(folder / "run")
    return folder / "run", json.loads((folder / "run" / "summary.json").read_text())


def test_an_environment_a_network_and_an_algorithm_of_ones_own_learn(tmp_path: Path) -> None:
    run, summary = ran("own", tmp_path)
    assert "a mean return of 0.85" in summary["reason"]
    (policy,) = summary["policies"].values()
    assert policy["return_mean"] > 0.8 > policy["return_first"]  # episodes that end while it stops count too
    assert policy["fragments"]["refused"] == 0
    assert not any(summary["restarts"].values())
    played = headrace("evaluate", "run", "--episodes", "32", "--deterministic", "--json", cwd=run.parent)
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["return_mean"] > 0.5


def test_a_policy_without_torch_mints_its_tasks(tmp_path: Path) -> None:
    run, summary = ran("minted", tmp_path)
    assert summary["tasks"]["done"] >= 8
    best = launcher.load(run).checkpoint("aim")["parameters"]
    assert best.keys() == {"angle", "score"}
    assert best["score"] > 0.5, best  # it began at an angle of 5 degrees, which scores 0.17


def test_an_agent_and_a_grader_of_ones_own_improve_a_prompt(tmp_path: Path) -> None:
    run, summary = ran("prompts", tmp_path)
    assert summary["simulation"]
    assert "all rounds are done" in summary["reason"]
    with LedgerReader(run / "ledger.sqlite") as ledger:
        facts = list(ledger.read_all())
    results = [json.loads(fact[6])["result"] for fact in facts if fact[5] == "outcome"]
    answers = [result for result in results if result["do"] == "answer"]
    assert {0.0, 0.5, 1.0} == {result["reward"] for result in answers}
    assert all(result["usage"][0]["calls"] >= 3 for result in answers), "it asks three times"
    (counted,) = [json.loads(fact[6]) for fact in facts if fact[5] == "endpoint_counts"]
    for name, counter in (("calls", "requests"), ("tokens_in", "tokens_in"), ("tokens_out", "tokens_out")):
        assert sum(use[name] for result in results for use in result["usage"]) == counted[counter]
    rounds = [json.loads(fact[6]) for fact in facts if fact[5] == "round"]
    assert rounds[-1]["best_mean"] > rounds[0]["best_mean"] + 0.1
