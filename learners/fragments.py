"""Fragments of trajectories: what makes one usable, and how many become one batch.

A fragment is [T, B, ...] arrays, B columns being agents x environments under next-step autoreset: `observations`
[T+1, B, ...] (or `observations/<leaf>`), `actions`, `log_probabilities`, `rewards`, `terminated`, `truncated`, `valid`
[T, B], and `masks` [T+1, B, n] where actions are masked. Invariant: what `check` lets through has the spaces' shapes
and dtypes and only finite numbers, so that no later step can fail on it or be poisoned by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.spaces import ActionSpec, ObservationSpec

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

FLAGS = ("terminated", "truncated", "valid")
NUMBERS = ("rewards", "log_probabilities")
MOST_REWARD = 1e30


def check(arrays: Arrays, observation: ObservationSpec, action: ActionSpec) -> None:
    """ValueError or TypeError, naming the array, unless these are a fragment of those spaces: anything may be sent."""
    for name, array in arrays.items() if isinstance(arrays, dict) else (("a fragment", arrays),):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be an array, not {type(array).__name__}")
    rewards = arrays.get("rewards")
    if rewards is None or rewards.ndim != 2 or 0 in rewards.shape:
        raise ValueError(f"rewards must be [T, B], not {None if rewards is None else list(rewards.shape)}")
    steps, width = rewards.shape
    keys = observation.keys  # observations first: values that are not finite there make all others wrong
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        keys[leaf.name]: ((steps + 1, width, *leaf.shape), leaf.dtype) for leaf in observation.leaves
    }
    expected |= {
        "actions": ((steps, width, *action.shape), action.dtype),
        **dict.fromkeys(NUMBERS, ((steps, width), "float32")),
        **dict.fromkeys(FLAGS, ((steps, width), "bool")),
    }
    if action.masked:
        expected["masks"] = ((steps + 1, width, action.mask_size), "bool")
    if arrays.keys() != expected.keys():
        raise ValueError(f"a fragment here has {sorted(expected)}, this one {sorted(arrays)}")
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} must be {dtype}{list(shape)}, not {array.dtype}{list(array.shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():  # on dummy rows too: 0 x NaN is NaN
            raise ValueError(f"{name} are not finite")
    if np.abs(rewards).max() > MOST_REWARD:
        raise ValueError(f"rewards are beyond {MOST_REWARD:g}: sums of them would not be finite")
    if action.nvec and ((arrays["actions"] < 0).any() or (arrays["actions"] >= action.nvec).any()):
        raise ValueError(f"actions must be from 0 up to {list(action.nvec)}, without it")


def played(arrays: Arrays) -> Arrays | None:
    """The columns in which somebody played, None if nobody did: an agent that is not there has dummy rows alone.

    Kept, they would wait for ever for one that never comes.
    """
    there = arrays["valid"].any(0)
    if there.all():
        return arrays
    return {name: array[:, there] for name, array in arrays.items()} if there.any() else None


def join(fragments: Sequence[Arrays]) -> list[Arrays]:
    """Fragments side by side along B, in fresh arrays: one for each length T among them."""
    groups: dict[int, list[Arrays]] = {}
    for arrays in fragments:
        groups.setdefault(len(arrays["rewards"]), []).append(arrays)
    return [
        {name: np.concatenate([arrays[name] for arrays in group], axis=1) for name in group[0]}
        for group in groups.values()
    ]
