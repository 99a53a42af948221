"""From single observations and actions to columns over many environments, without a decision left for the hot path.

Invariant: every choice (leaf kinds, paths, masks, offsets) is made once, here, when the environment is made; what runs
each step is an assignment into a buffer that already exists. Assignment casts: float64 becomes float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from actors.environments.vector import Array
from actors.spaces import ActionSpec, ObservationSpec, action_spec, leaf_spaces, observation_spec, split_mask

Write = Callable[[int, Any], None]


class AgentColumns:
    """One agent's buffers over `count` environments: `arrays` (leaf -> [count, ...]) and `mask` ([count, n] or None).

    `write(i, observation)` puts environment i's observation, as the environment gave it, into row i. `rows(actions)`
    turns a policy's [count, ...] actions into a sequence of `count` actions of the environment's own, `batch` into one
    array of them.
    """

    def __init__(self, agent: str, observation: spaces.Space[Any], action: spaces.Space[Any], count: int) -> None:
        self.observation_spec: ObservationSpec = observation_spec(observation, agent)
        self.action_spec: ActionSpec = action_spec(action, agent, observation)
        self.arrays: dict[str, Array] = {
            leaf.name: np.zeros((count, *leaf.shape), leaf.dtype) for leaf in self.observation_spec.leaves
        }
        self.mask: Array | None = None
        self.masked = split_mask(observation)[1] is not None
        inner, _ = split_mask(observation)
        paths = [path for path, _ in leaf_spaces(inner)]
        self._places = list(zip(self.observation_spec.leaves, paths, strict=True))
        self.write: Write = self._writer()
        if self.masked:
            self.mask = np.ones((count, self.action_spec.mask_size), bool)
            self.write = _masked_writer(self.write, self.mask)
        self.batch: Callable[[Array], Array] = _batch(self.action_spec, action)
        self.rows: Callable[[Array], Sequence[Any]] = _rows(self.action_spec, self.batch, count)

    def write_all(self, observations: Any) -> None:
        """Put a batch in: the same nesting, each leaf already [count, ...]."""
        if self.masked and self.mask is not None:
            np.not_equal(np.reshape(observations["action_mask"], self.mask.shape), 0, out=self.mask)
            self.mask[~self.mask.any(axis=1)] = True
            observations = observations["observation"]
        for leaf, path in self._places:
            value = observations
            for key in path:
                value = value[key]
            self.arrays[leaf.name][...] = value - leaf.start if leaf.start else value

    def clear(self, i: int) -> None:
        """Row i of an agent that is not there: zeros, every choice legal."""
        for array in self.arrays.values():
            array[i] = 0
        if self.mask is not None:
            self.mask[i] = True

    def _writer(self) -> Write:
        leaves = [(self.arrays[leaf.name], path, leaf.start) for leaf, path in self._places]
        if self.observation_spec.plain:
            array, _, start = leaves[0]
            if not start:
                return array.__setitem__

            def write_shifted(i: int, observation: Any) -> None:
                array[i] = observation - start

            return write_shifted

        def write(i: int, observation: Any) -> None:
            for array, path, start in leaves:
                value = observation
                for key in path:
                    value = value[key]
                array[i] = value - start if start else value

        return write


def _masked_writer(write: Write, mask: Array) -> Write:
    def write_masked(i: int, observation: Any) -> None:
        write(i, observation["observation"])
        row = mask[i]
        row[:] = np.reshape(observation["action_mask"], row.shape)
        if not row.any():  # a final observation often allows nothing; no policy can be drawn from no choices
            row[:] = True

    return write_masked


def _batch(spec: ActionSpec, space: spaces.Space[Any]) -> Callable[[Array], Array]:
    if spec.kind == "discrete":
        start = spec.start[0]
        return (lambda actions: actions + start) if start else (lambda actions: actions)
    if spec.kind == "multi_discrete":
        offset = np.asarray(spec.start, space.dtype)
        return lambda actions: actions.astype(space.dtype) + offset
    low, high = (np.asarray(side, space.dtype).reshape(spec.shape) for side in (spec.low, spec.high))
    # Always a fresh array: an environment may keep or change the action that it was given.
    return lambda actions: np.clip(actions.astype(space.dtype), low, high)


def _rows(spec: ActionSpec, batch: Callable[[Array], Array], count: int) -> Callable[[Array], Sequence[Any]]:
    shape = (count, *spec.shape)
    # Python's own integers: as good for every environment as NumPy's, and several times as quick to compute with.
    listed: Callable[[Array], Sequence[Any]] = np.ndarray.tolist if spec.kind == "discrete" else list

    def rows(actions: Array) -> Sequence[Any]:
        if actions.shape != shape:  # here, so that it is not mistaken for a failure of the environment
            raise ValueError(f"actions have shape {actions.shape}, expected {shape}")
        return listed(batch(actions))

    return rows
