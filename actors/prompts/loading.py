"""Finding the user's agent and grader.

Invariant: what cannot be found or called is one RequestError that names the key of the run file.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from broker.errors import RequestError


def load(key: str, name: str, method: str, parameters: int) -> Callable[..., Any]:
    """The function named "package.module:name"; of a class, the method of one object of it, made without arguments."""
    path, colon, attribute = name.partition(":")
    if not colon:
        raise RequestError(f'{key} {name!r}: write "package.module:name"')
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise RequestError(f"{key} {name!r}: cannot import {path!r}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if found is None:
        raise RequestError(f"{key} {name!r}: module {path!r} has no {attribute!r}")
    if inspect.isclass(found):
        try:
            made = found()
        except Exception as error:
            raise RequestError(f"{key} {name!r}: {attribute}() raised {type(error).__name__}: {error}") from error
        found = getattr(made, method, None)
        if found is None:
            raise RequestError(f"{key} {name!r}: the class has no method {method!r}")
    if not callable(found):
        raise RequestError(f"{key} {name!r} is not a function")
    try:
        inspect.signature(found).bind(*range(parameters))
    except TypeError:
        wanted = {3: f"{method}(task, template, chat)", 2: f"{method}(task, answer)"}[parameters]
        raise RequestError(f"{key} {name!r} cannot be called as {wanted}") from None
    except ValueError:
        pass  # something built in, whose signature nobody knows
    return found  # type: ignore[no-any-return]
