"""Checks that an environment's values conform to its spaces: shape, dtype and range.

A value passes if it can be stored without loss: it has the space's shape, a dtype that casts within its kind (float64
to float32, integers to a type that holds them), and indices and bits in their range. A float is not accepted as an
index, and nothing is broadcast or cut off. The bounds of a Box are not checked, because many environments exceed
theirs. Rewards are finite numbers, flags are true or false.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from gymnasium import spaces

Array = np.ndarray[Any, Any]

RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")
NO_ANSWER = object()
"""Stands for the answer of a call that has not returned."""
LARGEST_REWARD = float(np.finfo(np.float32).max)
BOOL = np.dtype(bool)
INDEX_TYPES = frozenset({int, *(np.dtype(code).type for code in "bhilqBHILQ")})


class NotOfSpace(ValueError):  # noqa: N818 - failures are named as in broker.errors
    """An environment returned a value that is not in its space. The text says what came and what was expected."""

    def __init__(self, text: str, repair: str = "correct the space, or return what it describes") -> None:
        super().__init__(text)
        self.repair = repair


@dataclass(frozen=True)
class Form:
    """What a space requires of one array. `low` and `high` bound indices and bits; they are None for a Box."""

    name: str
    """The value's name in messages."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: int | None = None
    high: int | None = None

    def fit(self, value: Any, count: tuple[int, ...] = ()) -> Array:
        """Return the value as an array that can be stored without loss. Its shape is `count` and then the space's.

        Raises NotOfSpace.
        """
        try:
            array: Array = np.asarray(value)
        except ValueError:  # nested sequences of unequal lengths
            raise self.refuse(value, count) from None
        low, high = self.low, self.high
        casts = _casts(array.dtype, self.dtype) or self._holds_bits(array)
        if array.shape != (*count, *self.shape) or not casts:
            raise self.refuse(value, count)
        if low is None and self.dtype.kind in "iu" and array.dtype != self.dtype:
            limits = np.iinfo(self.dtype)
            low, high = int(limits.min), int(limits.max)
        if low is not None and high is not None:
            outside = (array < low) | (array > high)
            if outside.any():
                raise self.refuse(array[outside][0], count)
        return array

    def _holds_bits(self, array: Array) -> bool:
        """Whether they are bits as a MultiBinary has them: 0 and 1 are in it as floats too."""
        return bool(self.shape) and (self.low, self.high) == (0, 1) and array.dtype.kind == "f" and _bits(array)

    def refuse(self, value: Any, count: tuple[int, ...] = ()) -> NotOfSpace:
        """Return the error for a value that does not conform."""
        shape = [*count, *self.shape]
        expected = f"{self.dtype}{shape or ''}"
        if self.low is not None:
            expected = f"{'a whole number' if not shape else expected} from {self.low} to {self.high}"
        return NotOfSpace(f"{self.name} is {brief(value)}, and its space says {expected}")


def brief(value: Any) -> str:
    """Describe a value briefly: an array by dtype and shape, and by its numbers if it has at most four."""
    if isinstance(value, np.ndarray):
        few = 0 < value.size <= 4 and value.dtype.kind in "biuf"
        numbers = f" ({', '.join(f'{number:g}' for number in value.reshape(-1).tolist())})" if few else ""
        return f"{value.dtype}{list(value.shape)}{numbers}"
    if isinstance(value, np.generic):
        return f"{value.item()!r:.60} ({value.dtype})"
    return f"{value!r:.60} ({type(value).__name__})"


def flattener(space: spaces.Space[Any], name: str) -> Callable[[Any], list[Any]]:
    """Return a function that lists the leaves of a (nested) observation in the space's order, or raises NotOfSpace."""
    if isinstance(space, spaces.Dict):
        keys = set(space.spaces)
        inner = [(key, flattener(part, f"{name}[{key!r}]")) for key, part in space.spaces.items()]

        def of_mapping(value: Any) -> list[Any]:
            check_keys(value, keys, name)
            return [leaf for key, leaves in inner for leaf in leaves(value[key])]

        return of_mapping
    if isinstance(space, spaces.Tuple):
        parts = [flattener(part, f"{name}[{place}]") for place, part in enumerate(space.spaces)]

        def of_tuple(value: Any) -> list[Any]:
            if not isinstance(value, tuple | list) or len(value) != len(parts):
                came = f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else brief(value)
                raise NotOfSpace(f"{name} is {came}, and its space says a tuple of {len(parts)}")
            return [leaf for leaves, part in zip(parts, value, strict=True) for leaf in leaves(part)]

        return of_tuple
    return lambda value: [value]


def check_keys(value: Any, keys: Collection[str], name: str) -> None:
    """Raise NotOfSpace unless the value is a mapping with exactly these keys."""
    if not isinstance(value, dict | Mapping):
        raise NotOfSpace(f"{name} is {brief(value)}, and its space says a mapping with {_listed(keys)}")
    if value.keys() != keys:
        raise NotOfSpace(f"{name} has the keys {_listed(value)}, and its space says {_listed(keys)}")


def check_mappings(*values: Any) -> None:
    """Raise NotOfSpace unless each of these parts of an answer is a mapping."""
    for value in values:
        if not isinstance(value, dict | Mapping):
            raise NotOfSpace(f"a part of the answer is {brief(value)}, not a mapping", "return a dict")


def rewards_of(values: Any, count: int) -> Array | None:
    """Return the rewards of `count` copies as one array; None if one is not a number (`check_reward` says which)."""
    try:
        array: Array = np.asarray(values)
    except ValueError:  # nested sequences of unequal lengths
        return None
    return array if array.shape == (count,) and array.dtype.kind in "fiub" else None


def finite(rewards: Array) -> bool:
    """Tell whether all rewards (a row of float32) are finite. A sum of squares costs a third of `isfinite`."""
    return math.isfinite(rewards.dot(rewards)) or bool(np.isfinite(rewards).all())


def check_reward(value: Any, agent: str = "") -> float:
    """Return the reward as a float. NotOfSpace unless it is one number that is finite as a float32."""
    number: Array = np.asarray(value) if not isinstance(value, list | tuple) else np.empty(0)
    if number.shape != () or number.dtype.kind not in "fiub" or not abs(float(number)) <= LARGEST_REWARD:
        raise NotOfSpace(f"{_whose(agent)}reward is {brief(value)}, not a finite number", "return one finite number")
    return float(number)


def check_flag(value: Any, name: str, agent: str = "") -> bool:
    """Return the flag `name` as a bool. NotOfSpace unless it is true or false, or 0 or 1."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    number: Array = np.asarray(value) if not isinstance(value, list | tuple) else np.empty(0)
    if number.shape != () or number.dtype.kind not in "biuf" or float(number) not in {0.0, 1.0}:
        raise NotOfSpace(f"{_whose(agent)}{name} is {brief(value)}, not True or False", "return a bool")
    return bool(number)


def check_flags(values: Any, count: int, name: str) -> Array:
    """Return the flags `name` of `count` copies as an array that holds bools. NotOfSpace for any other value."""
    array: Array = np.asarray(values)
    if array.shape != (count,) or (array.dtype is not BOOL and not (array.dtype.kind in "biuf" and _bits(array))):
        raise NotOfSpace(f"{name} is {brief(values)}, not bool[{count}]", "return one bool for each copy")
    return array


def unpacked(answer: Any, names: tuple[str, ...]) -> NotOfSpace | None:
    """Return the error for an answer of `reset` or `step` that is not a sequence of `names`; None if it is one."""
    if answer is NO_ANSWER or (isinstance(answer, tuple | list) and len(answer) == len(names)):
        return None
    came = f"{len(answer)} values" if isinstance(answer, tuple | list) else type(answer).__name__
    form = f"({', '.join(names)})"
    return NotOfSpace(f"the answer is {came}, not {form}", f"return {form}")


@lru_cache(256)
def _casts(actual: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    integers = actual.kind in "biu" and expected.kind in "biu"  # the caller checks their range
    return integers or (actual.kind in "biuf" and np.can_cast(actual, expected, "same_kind"))


def _bits(array: Array) -> bool:
    return bool(((array == 0) | (array == 1)).all())


def _listed(keys: Collection[Any]) -> str:
    return ", ".join(sorted(map(repr, keys))) or "nothing"


def _whose(agent: str) -> str:
    return f"{agent}'s " if agent else ""
