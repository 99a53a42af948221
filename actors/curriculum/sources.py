"""Where tasks come from: a list, a generator of the user's, or the levels of an environment.

Invariant: a source gives items one after another and keeps no state between two pieces of work; a list and levels give
the same items each time (their ids say which are known), a generator follows from the random generator it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from actors.curriculum.settings import DrawingSettings
from actors.curriculum.tasks import Unfit, checked
from broker import references
from broker.errors import RequestError
from broker.text_files import read_text, records

MAX_LINE = 1_000_000
"""Most characters of a line of a task list."""


def generator_items(name: str, count: int, random: np.random.Generator) -> Iterator[Any]:
    """What `package.module:callable` gives, at most `count` items. RequestError if there is no such callable."""
    made = references.load(name, "curriculum.generator")(count, random)
    if not isinstance(made, Iterable):
        raise TypeError(f"it gave a {type(made).__name__}, not (label, body) pairs")
    return islice(made, count)


def listed_items(settings: DrawingSettings, folder: str | None) -> list[Any]:
    """The (label, body) pairs of `curriculum.tasks`. RequestError: the file cannot be read, or a line is no task."""
    tasks = settings.tasks
    if not isinstance(tasks, str):
        return [(task.label, task.body) for task in tasks or ()]
    path = Path(folder or ".") / Path(tasks).expanduser()
    try:
        return [_listed(item, place) for place, item in records(read_text(path), path, MAX_LINE)]
    except RequestError as error:
        raise RequestError(f"curriculum.tasks: {error}") from None


def _listed(item: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(item, dict) or not {"label"} <= item.keys() <= {"label", "body"}:
        raise RequestError(f'{where}: a task is an object {{"label": "...", "body": {{...}}}}')
    pair = (item["label"], item.get("body", {}))
    try:
        checked(pair)
    except Unfit as unfit:
        raise RequestError(f"{where}: {unfit}") from None
    return pair


def level_items(settings: DrawingSettings, make: Callable[[], Any]) -> list[Any]:
    """The levels as (label, body) pairs; `make` gives an environment that lists its own."""
    levels = settings.levels
    assert levels is not None
    if levels.attribute is None:
        return list(levels.grid())
    environment = make()
    try:
        found = getattr(getattr(environment, "unwrapped", environment), levels.attribute, None)
        found = found() if callable(found) else found
        if isinstance(found, Mapping):
            found = found.items()
        if found is None or isinstance(found, str) or not isinstance(found, Iterable):
            kind = type(getattr(environment, "unwrapped", environment)).__qualname__
            raise RequestError(
                f"curriculum.levels.attribute: {kind} has no {levels.attribute!r} that gives (label, body) pairs"
            )
        return list(found)
    finally:
        environment.close()


def check_listed(settings: DrawingSettings, folder: str | None, capacity: int) -> None:
    """RequestError: what can be known of a list or a grid before a run is wrong."""
    if settings.tasks is not None:
        items, path = listed_items(settings, folder), "curriculum.tasks"
    elif settings.levels is not None and settings.levels.attribute is None:
        if settings.levels.size > capacity:  # before it is made: a grid is easily large
            raise _too_many("curriculum.levels", settings.levels.size, capacity)
        try:
            items, path = list(settings.levels.grid()), "curriculum.levels"
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            text = f"curriculum.levels.label: {settings.levels.label!r} is no template of the parameters: {error!r}"
            raise RequestError(text) from None
    else:
        return
    check_items(items, path, capacity)


def check_items(items: list[Any], path: str, capacity: int) -> None:
    """RequestError: one of them is no task, is there twice, or there are more than the pool holds."""
    if not items:
        raise RequestError(f"{path}: there is no task in it; give one at least")
    if len(items) > capacity:
        raise _too_many(path, len(items), capacity)
    seen: dict[str, int] = {}
    for place, item in enumerate(items):
        try:
            task = checked(item).task
        except Unfit as unfit:
            raise RequestError(f"{path}: item {place}: {unfit}") from None
        if task in seen:
            raise RequestError(f"{path}: item {place} is the same task as item {seen[task]}; give each once")
        seen[task] = place


def named(settings: DrawingSettings) -> list[tuple[str, str]]:
    """(key of the run file, "package.module:Name") of all that is the user's own."""
    found = [("curriculum.generator", settings.generator), ("curriculum.score", settings.score)]
    return [(key, name) for key, name in found if name is not None and ":" in name]


def _too_many(path: str, count: int, capacity: int) -> RequestError:
    return RequestError(f"{path}: {count:,} tasks are more than curriculum.capacity ({capacity:,}); raise that")
