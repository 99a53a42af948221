"""Ask an environment for its agents and spaces, and play it for a moment, before a run is planned.

As a program (`python -m actors.probe`) it reads a `Question` as JSON on standard input and writes the answer as JSON
on standard output, or {"error": message} and exit status 2: the launcher never imports a user's environment.

Invariant: standard output carries only that one JSON line, whatever the environment prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from actors import trial
from actors.curriculum.known import Known, KnownTasks
from actors.curriculum.making import COMMAND, read_answer
from actors.curriculum.scoring import scorer
from actors.curriculum.settings import DrawingSettings
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import VectorEnvironment
from actors.seeds import actor_seed
from broker.errors import RequestError

TRIED_TASKS = 8
TASK_SECONDS = 5.0
"""Deadline of the curriculum's source. Tasks that it wrote until then are played."""


@dataclass(frozen=True)
class Question:
    """The input of a probe."""

    environment: EnvironmentSettings
    play: bool = True
    """Play the environment for a moment, because an actor will. Otherwise only its spaces are read."""
    copies: int = 1
    seed: int = 0
    """The run's seed."""
    curriculum: dict[str, Any] | None = None
    """The resolved `[curriculum]`, if episodes are drawn tasks."""
    folder: str | None = None
    """The folder of the curriculum's files."""

    @classmethod
    def read(cls, text: str) -> Question:
        """Read a question from JSON. Raises pydantic's ValidationError."""
        plain = json.loads(text)
        return cls(**{**plain, "environment": EnvironmentSettings.model_validate(plain["environment"])})


def probe(question: Question) -> dict[str, Any]:
    """{"kind": "gymnasium" | "pettingzoo", "agents": {agent: {"observation": plain, "action": plain}}, "warnings": []}.

    Raises RequestError with one clear message.
    """
    settings, seed = question.environment, actor_seed(question.seed, 0, 1)
    if not question.play:
        with closing(make(settings, 1, seed)) as environment:
            return _described(environment, [])
    if question.curriculum is None:
        with closing(make(settings, question.copies, seed)) as environment:
            return _described(environment, trial.play(settings, environment, seed))
    known, warnings = _tasks(question)
    tasks = KnownTasks(known, TRIED_TASKS if known else 0, seed)
    score = scorer(DrawingSettings.read(question.curriculum))
    with closing(TaskedEnvironments(settings, question.copies, seed, tasks, score)) as tasked:
        if known:
            warnings += trial.play(settings, tasked, seed)
            warnings += trial.check_tasks(settings, tasks)
        return _described(tasked, warnings)


def _described(environment: VectorEnvironment, warnings: list[str]) -> dict[str, Any]:
    return {
        "kind": environment.kind,
        "agents": {
            agent: {
                "observation": environment.observation_specs[agent].to_plain(),
                "action": environment.action_specs[agent].to_plain(),
            }
            for agent in environment.agents
        },
        "warnings": warnings,
    }


def _tasks(question: Question) -> tuple[list[Known], list[str]]:
    """Return a few tasks from all of what the curriculum's source gives, and warnings about the source.

    The source may hang or crash, so it runs in a process of its own, as for actors. RequestError if it is wrong.
    """
    asked = {
        "curriculum": question.curriculum,
        "environment": question.environment.model_dump(mode="json"),
        "worker_id": 0,
        "folder": question.folder,
        "seed": question.seed,
        "generation": "check",
        "most": TRIED_TASKS,
        "seconds": TASK_SECONDS,
    }
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # ends itself at its deadline
    answer, _ = process.communicate(json.dumps(asked).encode())
    tasks, unfit, end = read_answer(answer)
    if end["end"] == "request":
        raise RequestError(end["reason"])
    warnings = [f"the curriculum's source gave a value that is not a task: {unfit[0]}"] if unfit else []
    if end["end"] in {"failed", "silent"}:
        reason = end.get("reason", f"it was not done within {TASK_SECONDS:g} s")
        warnings.append(f"the curriculum's source gave {len(tasks)} tasks, then: {reason}")
    every = max(1, len(tasks) // TRIED_TASKS)
    return [Known(task["task"], task["label"], task["body"]) for task in tasks[::every][:TRIED_TASKS]], warnings


def main() -> int:
    """The program; its exit status."""
    # Environments print (a library's greeting, a warning in C): their output goes to standard error.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answer:
        try:
            reply, status = probe(Question.read(sys.stdin.read())), 0
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            reply, status = {"error": f"environment: {faults}"}, 2
        except RequestError as error:
            reply, status = {"error": str(error)}, 2
        answer.write(json.dumps(reply, allow_nan=False) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
