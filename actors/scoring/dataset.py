"""Questions: a file of JSON objects, one for each task, with the fields that the template and the grader need.

A task is identified by its place in the file, from 0. A file with a mistake is a RequestError that names the file, the
line and the field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

from actors.scoring.template import placeholders
from broker.errors import RequestError
from broker.text_files import decode, read_bytes, records

Task = dict[str, Any]
MAX_LINE = 1_000_000
"""Characters: what is longer is no question."""


class UnfilledTemplate(RequestError):  # noqa: N818 - reads as what happened
    """No task has a field for a placeholder of the template: the template is wrong, not the questions."""


def digest(content: bytes) -> str:
    """What tells that a file is still the one that a run began with: 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def load(
    path: Path | str,
    fields: Collection[str] = (),
    items: int | None = None,
    sha256: str | None = None,
    template: str = "",
) -> tuple[Task, ...]:
    """Load the tasks of a file in order, or the first `items` of them.

    Each task has all `fields` and a field for every placeholder of `template`. A RequestError names file, line and
    field of the first mistake, or says that the file does not have this `sha256`: results are recorded by a task's
    place, so another file would mix them up. UnfilledTemplate if no task has a field for a placeholder.
    """
    path = Path(path)
    content = read_bytes(path)
    if sha256 is not None and digest(content) != sha256:
        raise RequestError(
            f"{path}: has changed since the run began (sha256 {digest(content)[:12]}…, not {sha256[:12]}…), and"
            " recorded results are known by a task's place; put the file back as it was, or start a new run"
        )
    example = ", ".join(f'"{name}": "..."' for name in sorted({*fields, *placeholders(template)}) or ["question"])
    tasks: dict[str, Task] = {}
    for place, task in islice(records(decode(content, path), path, MAX_LINE), items):
        if not isinstance(task, dict):
            raise RequestError(f"{place}: a {type(task).__name__}, not an object; write {{{example}}}")
        tasks[place] = task
    if not tasks:
        raise RequestError(f"{path}: holds no tasks; write one JSON object a line")
    if items is not None and len(tasks) < items:
        raise RequestError(f"{path}: holds {len(tasks)} tasks, and {items} were asked for")
    for name in sorted(placeholders(template)):
        if not any(name in task for task in tasks.values()):
            fields_there = ", ".join(sorted({field for task in tasks.values() for field in task}))
            raise UnfilledTemplate(
                f"has {{{name}}}, which no task of {path.name} fills (its fields: {fields_there}); "
                f"write {{{{{name}}}}} for the text {{{name}}}"
            )
    for place, task in tasks.items():
        for name in sorted({*fields, *placeholders(template)}):
            if name not in task:
                there = ", ".join(sorted(task)) or "none"
                raise RequestError(f"{place}: the field {name!r} is missing (it has {there})")
            if task[name] is None or task[name] == "":
                raise RequestError(f"{place}: the field {name!r} is empty")
    return tuple(tasks.values())
