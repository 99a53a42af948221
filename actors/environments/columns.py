"""From single observations and actions to columns over many environments, without a decision left for the hot path.

Invariants: every choice (leaf kinds, paths, masks, offsets) is made once, when the environment is made, so that a step
only compares dtype and shape and assigns into an existing buffer; a value that is not in its space is refused
(`actors.conform`), so that an assignment may cast (float64 to float32) but never broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from actors.conform import INDEX_TYPES, Form, check_keys, flattener
from actors.environments.vector import Array
from actors.spaces import (
    MASKED,
    ActionSpec,
    Leaf,
    ObservationSpec,
    action_spec,
    leaf_spaces,
    observation_spec,
    split_mask,
)

Write = Callable[[int, Any], None]
MADE_SCALARS = 4096
"""Most choices of an action space whose NumPy scalars are made in advance."""


class AgentColumns:
    """One agent's buffers over `count` environments: `arrays` (leaf -> [count, ...]) and `mask` ([count, n] or None).

    `write(i, observation)` writes the observation that environment i returned into row i; it and `write_all` raise
    NotOfSpace. `rows(actions)` converts a policy's actions [count, ...] to a sequence of `count` actions of the
    environment's action space, `batch` to one array of them.
    """

    def __init__(
        self,
        agent: str,
        observation: spaces.Space[Any],
        action: spaces.Space[Any],
        count: int,
        *,
        rescale: bool = False,
    ) -> None:
        self.observation_spec: ObservationSpec = observation_spec(observation, agent)
        self.action_spec: ActionSpec = action_spec(action, agent, observation, rescale=rescale)
        self.arrays: dict[str, Array] = {
            leaf.name: np.zeros((count, *leaf.shape), leaf.dtype) for leaf in self.observation_spec.leaves
        }
        inner, mask = split_mask(observation)
        self._name = f"{agent}'s observation"
        self._leaves = [
            (leaf, self.arrays[leaf.name], leaf.form(self._name, space.dtype))
            for leaf, (_, space) in zip(self.observation_spec.leaves, leaf_spaces(inner), strict=True)
        ]
        self._flatten = flattener(inner, self._name)
        self.write: Write = self._writer()
        self.mask: Array | None = None
        self._mask_form: Form | None = None
        if mask is not None:
            self.mask = np.ones((count, self.action_spec.mask_size), bool)
            self._mask_form = Form(f"{agent}'s action_mask", tuple(mask.shape or ()), np.dtype(mask.dtype), 0, 1)
            self.write = _masked_writer(self.write, self.mask, self._mask_form, self._name)
        self.batch: Callable[[Array], Array] = self.action_spec.to_environment(action.dtype)
        self.rows: Callable[[Array], Sequence[Any]] = _rows(self.action_spec, action, self.batch, count)

    def write_all(self, observations: Any) -> None:
        """Put a batch in: the same nesting, each leaf already [count, ...]."""
        if self.mask is not None and self._mask_form is not None:
            check_keys(observations, MASKED, self._name)
            mask = self._mask_form.fit(observations["action_mask"], (len(self.mask),))
            np.not_equal(mask.reshape(self.mask.shape), 0, out=self.mask)
            self.mask[~self.mask.any(axis=1)] = True
            observations = observations["observation"]
        if self.observation_spec.plain:
            self._put_all(self._leaves[0], observations)
            return
        for leaf, value in zip(self._leaves, self._flatten(observations), strict=True):
            self._put_all(leaf, value)

    def clear(self, i: int) -> None:
        """Row i of an agent that is not there: zeros, every choice legal."""
        for array in self.arrays.values():
            array[i] = 0
        if self.mask is not None:
            self.mask[i] = True

    @staticmethod
    def _put_all(part: tuple[Leaf, Array, Form], value: Any) -> None:
        leaf, array, form = part
        plain = type(value) is np.ndarray and value.dtype is form.dtype and value.shape == array.shape
        if not plain or form.low is not None:
            value = form.fit(value, array.shape[:1])
        array[...] = value - leaf.start if leaf.start else value

    def _writer(self) -> Write:
        writers = [_leaf_writer(*leaf) for leaf in self._leaves]
        if self.observation_spec.plain:
            return writers[0]
        flatten = self._flatten

        def write(i: int, observation: Any) -> None:
            for put, value in zip(writers, flatten(observation), strict=True):
                put(i, value)

        return write


def _leaf_writer(leaf: Leaf, array: Array, form: Form) -> Write:
    shape, dtype, start = leaf.shape, form.dtype, leaf.start
    low, high = form.low, form.high

    def write_index(i: int, value: Any) -> None:
        if type(value) not in INDEX_TYPES or not low <= value <= high:
            value = form.fit(value)
        array[i] = value - start

    def write_array(i: int, value: Any) -> None:
        # NumPy has one object for each plain dtype, so identity suffices. `fit` checks everything else.
        try:
            same = value.dtype is dtype and value.shape == shape
        except AttributeError:  # not an array; asking for its type first would cost time in the usual case
            same = False
        array[i] = value if same else form.fit(value)

    def write_bits(i: int, value: Any) -> None:
        _or_of_bits(value, form)
        array[i] = value

    if leaf.kind == "discrete":
        return write_index
    return write_bits if leaf.kind == "multi_binary" else write_array


def _masked_writer(write: Write, mask: Array, form: Form, name: str) -> Write:
    row = len(form.shape) == 1

    def write_masked(i: int, observation: Any) -> None:
        check_keys(observation, MASKED, name)
        write(i, observation["observation"])
        allowed = observation["action_mask"]
        # A final observation often allows no action, and no policy can draw from none: then all actions are allowed.
        if not _or_of_bits(allowed, form):
            mask[i] = True
        else:
            mask[i] = allowed if row else np.reshape(allowed, -1)

    return write_masked


def _or_of_bits(value: Any, form: Form) -> Any:
    """Tell whether any bit is set. NotOfSpace unless all are 0 or 1: only then is their bitwise or 0 or 1."""
    dtype = form.dtype
    if type(value) is np.ndarray and value.dtype is dtype and value.shape == form.shape and dtype.kind in "iu":
        union = np.bitwise_or.reduce(value, None)
        if 0 <= union <= 1:
            return union
    return form.fit(value).any()


def _rows(
    spec: ActionSpec, space: spaces.Space[Any], batch: Callable[[Array], Array], count: int
) -> Callable[[Array], Sequence[Any]]:
    """Return a function that splits actions into NumPy scalars or arrays of the space's dtype, one for each copy.

    Gymnasium's own vector forms pass the same types to their copies.
    """
    shape = (count, *spec.shape)
    split = _scalars(spec, space) or (lambda actions: list(batch(actions)))

    def rows(actions: Array) -> Sequence[Any]:
        if actions.shape != shape:  # here, so that it is not mistaken for a failure of the environment
            raise ValueError(f"actions have shape {actions.shape}, expected {shape}")
        return split(actions)

    return rows


def _scalars(spec: ActionSpec, space: spaces.Space[Any]) -> Callable[[Array], Sequence[Any]] | None:
    """Return a function that looks up NumPy scalars that were made once: making them at each step costs thrice as much.

    Scalars are immutable, so copies may share them. None for spaces without choices, or with too many.
    """
    if spec.kind != "discrete" or spec.nvec[0] > MADE_SCALARS:
        return None
    make = np.dtype(space.dtype).type
    scalar = [make(spec.start[0] + choice) for choice in range(spec.nvec[0])].__getitem__
    return lambda actions: list(map(scalar, actions.tolist()))
