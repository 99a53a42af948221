"""The program that asks a source for tasks, in a process of its own: a source that hangs or falls harms nobody else.

`python -m actors.curriculum.making` reads a question as JSON on standard input and writes a JSON object a line:
`{"task", "label", "body"}` for each task, `{"unfit": reason}` for each item that is none, and at the end
`{"end": "complete" | "more" | "failed" | "request", "reason": text}`.

Invariants: standard output carries only these lines, whatever a source prints; the process has ended a second after its
deadline, even if its parent is gone; every process that the source started ends with it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import traceback
import zlib
from collections.abc import Iterable
from typing import Any, TextIO

import numpy as np

from actors.curriculum import sources
from actors.curriculum.settings import DrawingSettings
from actors.curriculum.tasks import Unfit, checked
from broker.descendants import guarded, leave_as
from broker.errors import RequestError

COMMAND = [sys.executable, "-P", "-m", "actors.curriculum.making"]
"""The command line of this program."""


def seeded(seed: int, generation: str) -> np.random.Generator:
    """The random generator of one piece of work: the same for the same run seed and work."""
    return np.random.default_rng([seed, zlib.crc32(generation.encode())])


def answer(question: dict[str, Any], out: TextIO) -> None:
    """Write what the source gives."""
    settings = DrawingSettings.read(question["curriculum"])
    whole = settings.generator is None
    items: Iterable[Any]
    given = 0
    try:
        if settings.generator is not None:
            items = sources.generator_items(
                settings.generator, question["most"], seeded(question["seed"], question["generation"])
            )
        elif settings.levels is not None:
            items = sources.level_items(settings, lambda: _environment(question["environment"], question["worker_id"]))
            sources.check_items(list(items), "curriculum.levels", question["curriculum"]["capacity"])
        else:
            items = sources.listed_items(settings, question["folder"])
        for item in items:
            given += 1
            try:
                _say(out, checked(item).plain)
            except Unfit as unfit:
                _say(out, {"unfit": f"item {given}: {unfit}"})
    except RequestError as error:
        _say(out, {"end": "request", "reason": str(error)})
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        _say(out, {"end": "failed", "reason": f"it raised {type(error).__name__}: {error}"[:1000]})
    else:
        _say(out, {"end": "complete" if whole or not given else "more", "reason": ""})


def read_answer(answer: bytes) -> tuple[list[dict[str, Any]], list[str], dict[str, Any]]:
    """Read the program's output: tasks, errors of unfit tasks, and the last line ({"end": "silent"} without one)."""
    tasks: list[dict[str, Any]] = []
    unfit: list[str] = []
    for text in answer.split(b"\n"):
        try:
            line = json.loads(text)
        except ValueError:
            continue  # the end of an answer that was cut off
        if "end" in line:
            return tasks, unfit, line
        if "unfit" in line:
            unfit.append(line["unfit"])
        else:
            tasks.append(line)
    return tasks, unfit, {"end": "silent"}


def _environment(plain: dict[str, Any], worker: int) -> Any:
    from actors.environments.load import builder
    from actors.environments.settings import EnvironmentSettings

    return builder(EnvironmentSettings.model_validate(plain))(worker)


def _say(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()  # what came before a deadline counts


def main() -> None:
    """The program."""
    leave_as(guarded(_work))


def _work() -> None:
    faulthandler.enable()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.loads(sys.stdin.read())
    # The kernel's own clock, for a source may hold the interpreter: whoever asked may be gone by then.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, question["seconds"] + 1.0)
    if question["folder"] and question["folder"] not in sys.path:
        sys.path.append(question["folder"])
    with out:
        answer(question, out)


if __name__ == "__main__":
    main()
