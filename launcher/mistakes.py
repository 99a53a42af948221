"""Turning what pydantic found wrong in a run file into one message that a person can act upon.

Invariant: every mistake is one line that begins with the key's path; an unknown key is followed by the nearest known
one, in its own section first and then in the whole run file.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from broker.errors import RequestError


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or what is known when nothing is near."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(choices)})"


def report(label: str, wrong: ValidationError | Sequence[tuple[str, str]], model: type[BaseModel]) -> RequestError:
    """One RequestError for all mistakes, given as pydantic's error or as (path, text)."""
    if isinstance(wrong, ValidationError):
        told = []
        for error in wrong.errors(include_url=False):
            path = [str(part) for part in error["loc"]]
            told.append((".".join(path), _sentence(path, error["type"], error["msg"], error["input"], model)))
    else:
        told = list(wrong)
    return RequestError("\n".join([f"{label} is wrong:", *(f"  {path}: {text}" for path, text in told)]))


def sections(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, Any]]:
    """Path of each section -> its keys and their annotations; `NAME` stands for a name that the user gives."""
    keys = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    found: dict[tuple[str, ...], dict[str, Any]] = {prefix: keys}
    for key, annotation in keys.items():
        choices = get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)
        for choice in choices:
            named = get_origin(choice) is dict
            section = get_args(choice)[1] if named else choice
            if isinstance(section, type) and issubclass(section, BaseModel):
                found |= sections(section, (*prefix, key, "NAME") if named else (*prefix, key))
    return found


def _sentence(path: list[str], kind: str, message: str, given: Any, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return "unknown key" + _nearest_key(path, model)
    if kind == "missing":
        return "is missing"
    if kind.startswith("model_"):
        return f"is a section, [{'.'.join(path)}], not a value (is {_short(given)})"
    text = message.removeprefix("Input ").removeprefix("Value error, ")
    return f"{text[:1].lower()}{text[1:]} (is {_short(given)})"


def _nearest_key(path: list[str], model: type[BaseModel]) -> str:
    known = sections(model)
    here, word = tuple(path[:-1]), path[-1]
    own = sorted(known.get(here) or known.get((*here[:-1], "NAME"), {}))
    prefix = ".".join([*here, ""]) if here else ""
    close = difflib.get_close_matches(word, own, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    anywhere = {key: ".".join([*section, key]) for section, keys in known.items() for key in keys}
    close = difflib.get_close_matches(word, list(anywhere), n=1, cutoff=0.75)
    if close:
        return f"; did you mean {anywhere[close[0]]}?"
    return f" (known here: {', '.join(prefix + key for key in own)})"


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."
