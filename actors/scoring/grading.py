"""Grading: a grader gives an answer its reward in [0, 1], and maybe a reason.

A grader is `grade(task, answer) -> reward | (reward, reason)`, and may be a coroutine.

Invariant: the result is a reward in [0, 1], or an error of the grader (it raises, or returns NaN, 7.0 or nothing): a
fault of the program is not a measurement of the answer.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

Grader = Callable[[Mapping[str, Any], str], Any]
LONGEST_REASON = 1000
"""Characters."""


@dataclass(frozen=True)
class Grade:
    """What an answer is worth. `error` says what was wrong with the grader, which then measured nothing; or None."""

    reward: float
    reason: str | None = None
    error: str | None = None


def exact(task: Mapping[str, Any], answer: str, solution: str = "answer") -> tuple[float, str]:
    """Grade by equality, the default: 1 for exactly the task's solution (except for space around it), otherwise 0."""
    wanted = str(task[solution]).strip()
    given = answer.strip()
    if given == wanted:
        return 1.0, "right"
    if wanted in given:
        return 0.0, f"expected exactly {wanted!r}: it is there, with other words around it"
    if given.casefold() == wanted.casefold():
        return 0.0, f"expected exactly {wanted!r}: upper and lower case differ"
    return 0.0, f"expected exactly {wanted!r}"


async def grade(
    grader: Grader, task: Mapping[str, Any], answer: str, call: Callable[..., Awaitable[Any]] | None = None
) -> Grade:
    """What the grader says of this answer. `call(grader, task, answer)` calls it where it may block. Never raises."""
    try:
        given = grader(task, answer) if call is None else await call(grader, task, answer)
        if inspect.isawaitable(given):
            given = await given
        return read(given)
    except (Exception, SystemExit) as error:
        told = f"the grader raised {type(error).__name__}: {error}"[:LONGEST_REASON]
        return Grade(0.0, told, traceback.format_exc()[-4000:])


def read(given: Any) -> Grade:
    """Convert a grader's return value to a grade. Scalars of NumPy and torch count as Python's numbers and bools."""
    reward, reason = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if getattr(reward, "shape", None) == ():
        reward = reward.item()
    number: Any = reward if isinstance(reward, Real) else None
    if number is None or not 0 <= number <= 1:  # NaN is refused as well
        return _wrong(given)
    return Grade(float(number), None if reason is None else str(reason)[:LONGEST_REASON])


def _wrong(given: Any) -> Grade:
    shown = repr(given)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    told = f"the grader returned {shown}: a reward is a number from 0 to 1, or (reward, reason)"
    return Grade(0.0, told, told)
