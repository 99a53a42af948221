"""Questions: JSON lines, one task a line, each an object with the fields that the template and the grader need.

Invariant: a task is known by its place in the file, from 0; a file that was loaded is right, and one that is wrong is a
RequestError with the file, the line and the field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from broker.errors import RequestError

Task = dict[str, Any]
MAX_LINE = 1_000_000
"""Characters: what is longer is no question."""


def digest(content: bytes) -> str:
    """What tells that a file is still the one that a run began with: 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def load(
    path: Path | str, fields: Collection[str] = (), items: int | None = None, sha256: str | None = None
) -> tuple[Task, ...]:
    """The tasks of a file in its order, the first `items` of them where that is given.

    Empty lines are passed over. RequestError names file, line and field of the first mistake, or says that the file is
    not the one of this `sha256`: results are recorded by a task's place, and would be taken for others'.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8").split("\n")  # JSON text may hold other line breaks, as U+2028
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text (byte {error.start})") from None
    if sha256 is not None and digest(content) != sha256:
        raise RequestError(
            f"{path}: has changed since the run began (sha256 {digest(content)[:12]}…, not {sha256[:12]}…), and"
            " recorded results are known by a task's place; put the file back as it was, or start a new run"
        )
    tasks: list[Task] = []
    for number, line in enumerate(lines, start=1):
        if items is not None and len(tasks) >= items:
            break
        if line.strip():
            tasks.append(_task(f"{path}:{number}", line, fields))
    if not tasks:
        raise RequestError(f"{path}: holds no tasks; write one JSON object a line")
    if items is not None and len(tasks) < items:
        raise RequestError(f"{path}: holds {len(tasks)} tasks, and {items} were asked for")
    return tuple(tasks)


def _task(where: str, line: str, fields: Collection[str]) -> Task:
    if len(line) > MAX_LINE:
        raise RequestError(f"{where}: the line is longer than {MAX_LINE:,} characters")
    try:
        task = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from None
    if not isinstance(task, dict):
        raise RequestError(f"{where}: is {type(task).__name__}, not an object; write {{{_example(fields)}}}")
    for name in sorted(fields):
        if name not in task:
            raise RequestError(f"{where}: the field {name!r} is missing (it has {', '.join(sorted(task)) or 'none'})")
        if task[name] is None or task[name] == "":
            raise RequestError(f"{where}: the field {name!r} is empty")
    return task


def _example(fields: Collection[str]) -> str:
    return ", ".join(f'"{name}": "..."' for name in sorted(fields) or ["question", "answer"])
