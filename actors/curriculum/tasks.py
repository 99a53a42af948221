"""A task as a source gives it: checked, and named by what it is.

Invariant: the id of a task follows from its label and body alone, the same in every process and every life of a run, so
that a task given again is known to be the same one, whoever gives it. A task that passed `checked` is accepted by the
pool, unless its id was used or there is no room.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

LABEL = 256
"""Most characters of a label."""
BODY = 200_000
"""Most characters of a body as JSON: the fact that mints it may have 262,144 with all that goes with it."""
READABLE = 120
"""An id that would be longer is a digest."""


class Unfit(ValueError):  # noqa: N818 - failures are named as in broker.errors
    """What a source gave is no task; the text says why."""


class GivenTask(NamedTuple):
    """One task of a source."""

    task: str
    label: str
    body: dict[str, Any]

    @property
    def plain(self) -> dict[str, Any]:
        """As a `mint` fact has it."""
        return {"task": self.task, "label": self.label, "body": self.body}


def checked(item: Any) -> GivenTask:
    """The task that this (label, body) pair is. Raises Unfit."""
    if isinstance(item, str) or not isinstance(item, (tuple, list)) or len(item) != 2:
        raise Unfit(f"a task is a pair (label, body), not {_short(item)}")
    label, body = item
    if not isinstance(label, str):
        raise Unfit(f"a label is a text, not {type(label).__name__}")
    if not 1 <= len(label) <= LABEL:
        raise Unfit(f"a label has 1 to {LABEL} characters, not {len(label)}")
    if not isinstance(body, Mapping) or not all(isinstance(key, str) for key in body):
        raise Unfit(f"a body is a mapping with texts as keys, not {_short(body)}")
    try:
        text = json.dumps(
            dict(body), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=_plain
        )
        (label + text).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unfit(f"a body is JSON, and this one is not: {error}") from None
    if len(text) > BODY:
        raise Unfit(f"a body has at most {BODY:,} characters of JSON, not {len(text):,}")
    return GivenTask(name_of(label, text), label, json.loads(text))


def _plain(value: Any) -> Any:
    """Convert NumPy's numbers and arrays, which levels of environments often hold, to plain ones."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"it has a {type(value).__name__}")


def name_of(label: str, text: str) -> str:
    """The id: label and body where they are short, else their digest behind the beginning of the label."""
    whole = f"{label} {text}"
    if len(whole) <= READABLE and whole.isprintable():
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return f"{label[:40]} sha256:{digest[:32]}"


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."
