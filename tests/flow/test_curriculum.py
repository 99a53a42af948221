"""Runs with a pool, as a user starts them: every source, every kind of work, and what is wrong with a source."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.flow.levels import CORRIDOR, OWN, PAIR, PROBLEMS
from tests.flow.running import Fact, Running, headrace, processes_in, until

LEVELS = '\nlevels = { attribute = "levels" }\n'


def written(home: Path, text: str) -> str:
    (home / "own.py").write_text(OWN)
    (home / "own.toml").write_text(text)
    return "own.toml"


def of(run: Running, kind: str, label: str) -> list[Fact]:
    """Facts about tasks of this label."""
    return [fact for fact in run.facts(kind) if fact.body.get("label") == label]


def pool(run: Running) -> dict[str, Any]:
    """As the finished run's summary has it."""
    found: dict[str, Any] = json.loads((run.directory / "summary.json").read_text())["pool"]
    return found


def every_outcome_is_accounted_for(run: Running) -> None:
    """What actors said of draws is what the pool counted, refused, or recorded as late."""
    said = len([fact for fact in run.facts("outcome") if fact.body.get("draw") is not None])
    counts = pool(run)["counts"]
    late = [fact for fact in run.facts("late_outcome") if fact.body.get("score") is not None]
    errors = {fact.position for fact in run.facts("rollout_error")}
    refused = [fact for fact in run.facts("outcome_refused") if fact.body["of"] not in errors]
    assert said == counts["outcomes"] + len(late) + len(refused), counts


def test_levels_that_an_environment_lists(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, CORRIDOR + LEVELS)) as run:
        run.learning(2)
        for label in ("length 1", "length 4", "longer"):
            run.until(lambda label=label: len(of(run, "outcome", label)) >= 3, f"outcomes of {label}")  # type: ignore[misc]
        broken = run.until(lambda: of(run, "rollout_error", "broken"), "the broken one is reported")[0]
        assert broken.body["permanent"] is True
        assert "no such corridor" in broken.body["traceback"]
        falling = run.until(lambda: of(run, "rollout_error", "falling"), "the falling one is reported")[0]
        assert falling.body["permanent"] is False
        assert "the floor gave way" in falling.body["traceback"]
        beyond = run.until(lambda: of(run, "outcome", "beyond"), "a score beyond 1 is said as it is")[0]
        assert beyond.body["score"] == 2.0
        gone = {"broken": "permanent failure", "falling": "transient failures", "beyond": "transient failures"}
        run.until(
            lambda: gone == {fact.body["label"]: fact.body["reason"] for fact in run.facts("pool_evict")},
            "what cannot be played is evicted, and nothing else",
            30,
        )
        known = len(of(run, "outcome", "length 4"))
        run.until(lambda: len(of(run, "outcome", "length 4")) > known + 10, "the actors play on")
    labels = pool(run)["labels"]
    assert labels["broken"]["outcomes"] == labels["falling"]["outcomes"] == labels["beyond"]["outcomes"] == 0
    assert labels["falling"]["transient"] >= 5
    assert not run.facts("environment_error")
    refused = run.facts("outcome_refused")
    assert all("from 0 to 1, not 2.0" in fact.body["reason"] for fact in refused if "score" in fact.body["reason"])
    every_outcome_is_accounted_for(run)
    returns = {fact.body["length"] for fact in run.facts("episode")}
    assert 1 in returns
    assert max(returns) <= 12

    played = headrace("evaluate", str(run.directory), "--episodes", "15", "--json", cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    found = json.loads(played.stdout)
    assert {label: row["episodes"] for label, row in found["tasks"]["labels"].items()} == dict.fromkeys(
        ["length 1", "length 2", "length 3", "length 4", "longer"], 3
    ), "what is in the pool, each as often as any other"
    assert (found["tasks"]["pool"], found["tasks"]["failed"], found["episodes"]) == (5, 0, 15)
    assert found["tasks"]["labels"]["length 1"]["score_mean"] > 0


def test_a_wayward_generator_and_several_agents(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, PAIR)) as run:
        run.until(lambda: len(run.facts("generation_failed")) >= 3, "every fault is a fact", 45)
        reasons = [fact.body["reason"] for fact in run.facts("generation_failed")]
        assert reasons[0] == "it raised RuntimeError: the well is dry"
        assert "not done within curriculum.generate_seconds (3)" in reasons[1]
        assert reasons[2].startswith("4 of 5 items are no tasks: item 2: a label is a text, not int; item 3: a label ")
        run.until(lambda: [f for f in run.facts("pool_accept") if f.body["declined"]], "what came twice is declined")
        (twice,) = [fact for fact in run.facts("pool_accept") if fact.body["declined"]]
        assert [why for _, _, why in twice.body["declined"]] == ["the id was used already"] * 2
        assert twice.body["until"] > twice.time  # or a generator with nothing new would be asked without end
        run.until(lambda: len(run.facts("outcome")) >= 100, "the pool is unharmed", 30)
        broken = run.until(lambda: of(run, "rollout_error", "broken"), "reset of several agents raised", 30)
        assert "no such pair" in broken[0].body["traceback"]
        run.learning(1)
    counts = pool(run)["counts"]
    assert counts["generation_failures"] >= 4
    assert counts["minted"] == pool(run)["tasks"] + counts["evicted"]
    assert {fact.body["lengths"]["a"] for fact in run.facts("episode")} <= set(range(1, 9))
    every_outcome_is_accounted_for(run)


def test_a_list_for_rollouts_of_ones_own_outlives_the_end_of_every_process(tmp_path: Path) -> None:
    problems = [{"label": f"hard {n % 4 + 1}", "body": {"hard": n % 4 + 1, "number": n}} for n in range(30)]
    problems.append({"label": "broken", "body": {"broken": 1}})
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    run = Running(tmp_path, written(tmp_path, PROBLEMS))
    try:
        run.until(lambda: len(run.facts("outcome")) >= 200, "outcomes", 45)
        (ends,) = run.facts("generation_failed")
        assert ends.body["permanent"] is True
        assert ends.body["reason"] == "all 31 tasks of the source were given"
        lived = processes_in(run.directory)
    finally:
        for pid in processes_in(run.directory):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.launcher.kill()
        run.launcher.wait()
    assert len(lived) >= 4
    until(lambda: not processes_in(run.directory), "all of them are gone")
    known, outcomes = len(run.facts()), len(run.facts("outcome"))
    with Running(tmp_path, "--resume") as again:
        again.until(lambda: len(again.facts("outcome")) >= outcomes + 100, "it goes on where it was", 45)
        accepted = [fact for fact in again.facts("pool_accept") if fact.body["accepted"]]
        assert sum(fact.body["accepted"] for fact in accepted) == 31
        assert all(fact.position <= known for fact in accepted)
    scores = {label: tally["score_mean"] for label, tally in pool(again)["labels"].items()}
    assert scores["hard 1"] == 1.0
    assert scores["hard 4"] == 0.25
    labels = pool(again)["labels"]
    assert labels["broken"]["outcomes"] == 0
    assert {label for label, tally in labels.items() if tally["transient"] or tally["permanent"]} == {"broken"}
    every_outcome_is_accounted_for(again)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("generator=own:nothing",), "the pool is empty and there is nothing more to make: the source gave no task"),
        (
            ("generator=own:raising", "failures=2"),
            "the pool is empty and making tasks failed 2 times in a row, the last time: it raised RuntimeError",
        ),
        (
            ("generator=own:raising", "backoff_seconds=100.0", "wait_seconds=1.0"),
            "got no task from the pool for curriculum.wait_seconds (1)",
        ),
    ],
)
def test_a_pool_that_nobody_fills_ends_the_run(tmp_path: Path, settings: tuple[str, ...], told: str) -> None:
    more = [part for setting in settings for part in ("--set", f"curriculum.{setting}")]
    with Running(tmp_path, written(tmp_path, CORRIDOR), *more, "--set", "actors.processes=1", status=1) as run:
        assert run.wait(60) == 1, run.told()
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["state"] == "failed"
    assert told in summary["reason"]
    assert told in run.out.read_text()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("generator=owm:make", "curriculum.generator 'owm:make': there is no module 'owm'"),
        ("generator=own:mak", "curriculum.generator 'own:mak': module 'own' has no 'mak'"),
        ('levels={ attribute = "rooms" }', "curriculum.levels.attribute: Corridor has no 'rooms'"),
    ],
)
def test_a_source_that_is_not_there_is_one_message(tmp_path: Path, setting: str, told: str) -> None:
    run_file = written(tmp_path, CORRIDOR)
    asked = headrace("run", run_file, "--headless", "--set", f"curriculum.{setting}", cwd=tmp_path)
    assert asked.returncode == 2, asked.stdout + asked.stderr
    assert told in asked.stderr
    assert "Traceback" not in asked.stderr
    if "generator" in setting:
        checked = headrace("check", run_file, "--set", f"curriculum.{setting}", cwd=tmp_path)
        assert checked.returncode == 2
        assert told in checked.stderr


@pytest.mark.parametrize(
    ("shipped", "steps", "tasks", "labels"), [("curriculum", 30_000, 200, 6), ("minigrid", 6_000, 18, 18)]
)
def test_the_shipped_runs_draw_every_level(tmp_path: Path, shipped: str, steps: int, tasks: int, labels: int) -> None:
    more = ("--set", f"stop.env_steps={steps}", "--set", "stop.seconds=")
    with Running(tmp_path, shipped, "--seed", "3", *more, "--set", "environment.settings.most_steps=20") as run:
        assert run.wait(90) == 0, run.told()
    found = pool(run)
    assert found["tasks"] == tasks
    assert len({fact.body["task"] for fact in run.facts("outcome")}) == tasks
    assert len(found["labels"]) == labels
    assert all(tally["outcomes"] for tally in found["labels"].values())
    assert not run.facts("rollout_error")
    every_outcome_is_accounted_for(run)
