"""Questions: a file of JSON objects, one a task, with the fields that the template and the grader need.

A task is known by its place in the file, from 0. A file that was loaded is right; one that is wrong is a RequestError
with the file, the line and the field.
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
    """A placeholder of the template is a field of no task: the template is wrong, and not the questions."""


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
    """The tasks of a file in its order, the first `items` of them where that is set.

    Each has all `fields` and all placeholders of `template`. RequestError names file, line and field of the first
    mistake, or says that the file is not the one of this `sha256`: results are recorded by a task's place, and would
    be taken for others'. UnfilledTemplate where a placeholder is a field of no task.
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
            raise RequestError(f"{place}: is {type(task).__name__}, not an object; write {{{example}}}")
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
