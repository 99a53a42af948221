"""SIGKILL in a run with a pool: what actors said of their draws is what the pool knows, and it is drawn from again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.flow.levels import CORRIDOR, PROBLEMS
from tests.flow.running import Fact, Running
from tests.flow.test_curriculum import LEVELS, every_outcome_is_accounted_for, of, written

# The generation work is under way for a while, so that the actor that does it can be killed in it.
SLOW = """

import time

def slow(count, random):
    for n in range(4):
        time.sleep(0.3)
        yield f"length {n + 1}", {"options": {"length": n + 1}}
"""


def outcomes(run: Running, incarnation: str | None = None) -> list[Fact]:
    return [fact for fact in run.facts("outcome") if incarnation in (None, fact.incarnation)]


def test_an_actor_and_the_tracker(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, CORRIDOR + LEVELS)) as run:
        run.learning(1)
        run.until(lambda: len(outcomes(run)) >= 50, "outcomes")
        before = run.kill("actor-0")
        run.restarted(before)
        held = {f.incarnation for f in run.facts(source="actor-0")}
        returned = run.until(
            lambda: [fact for fact in run.facts("draw_returned") if fact.body["from"] == "actor-0"],
            "the draws that it held return",
        )
        assert returned[0].body["reason"] in ("superseded", "lost")
        run.until(lambda: [f for f in run.facts("outcome", "actor-0") if f.incarnation not in held], "it draws again")
        for _ in range(2):
            run.restarted(run.kill("tracker"))
            known = len(outcomes(run))
            run.until(lambda known=known: len(outcomes(run)) > known + 50, "outcomes after the tracker came back")  # type: ignore[misc]
    every_outcome_is_accounted_for(run)
    numbers = [fact.body["draw"] for fact in outcomes(run)]
    assert len(set(numbers)) == len(numbers), "one draw had two outcomes"


def test_the_actor_that_makes_tasks(tmp_path: Path) -> None:
    run_file = written(tmp_path, CORRIDOR)
    with (tmp_path / "own.py").open("a") as own:
        own.write(SLOW)
    more = ("--set", "curriculum.generator=own:slow", "--set", "curriculum.generate_seconds=20.0")
    with Running(tmp_path, run_file, *more, "--set", "curriculum.capacity=4") as run:
        work = run.until(lambda: run.facts("generate"), "generation work", 45)[0]
        run.kill(work.body["to"])
        run.until(lambda: run.facts("generation_ended"), "it ends with its actor")
        (ended,) = run.facts("generation_ended")
        assert ended.body["failed"] is False  # the source did nothing wrong
        run.until(
            lambda: [fact for fact in run.facts("pool_accept") if fact.body["accepted"]], "another makes them", 30
        )
        for n in range(1, 5):
            run.until(lambda n=n: of(run, "outcome", f"length {n}"), f"length {n} is played")  # type: ignore[misc]
    every_outcome_is_accounted_for(run)


def test_experience_of_drawn_tasks_outlives_a_life(tmp_path: Path) -> None:
    problems = [{"label": f"hard {n % 4 + 1}", "body": {"hard": n % 4 + 1, "number": n}} for n in range(8)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    with Running(tmp_path, written(tmp_path, PROBLEMS)) as run:
        run.learning(2)
        run.restarted(run.kill("learner-p"))
        run.until(lambda: len([version for version in run.versions() if version[0] == 2]) >= 3, "life 2 learns")
    every_outcome_is_accounted_for(run)
