"""One policy's rows of experience, filled step by step and sent as a fragment.

Invariant: row t of every array belongs to the same transition; the columns are the policy's agents, one after another,
each with all environments; row T of the observations is the bootstrap and becomes row 0 of the next fragment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.environments.vector import Observations, Step, VectorEnvironment
from actors.spaces import ActionSpec, ObservationSpec
from broker.arrays import Draft, draft

Array = np.ndarray[Any, Any]


class Columns:
    """Buffers [T(+1), B, ...] of the agents that follow one policy."""

    def __init__(
        self, agents: tuple[str, ...], observation: ObservationSpec, action: ActionSpec, count: int, steps: int
    ) -> None:
        self.agents = agents
        self.steps = steps
        self.t = 0
        self._width = width = len(agents) * count
        self._slices = {agent: slice(i * count, (i + 1) * count) for i, agent in enumerate(agents)}
        self._keys = keys = observation.keys
        self._forms: dict[str, tuple[tuple[int, ...], str]] = {
            **{keys[leaf.name]: ((steps + 1, width, *leaf.shape), leaf.dtype) for leaf in observation.leaves},
            "actions": ((steps, width, *action.shape), action.dtype),
            "log_probabilities": ((steps, width), "float32"),
            "rewards": ((steps, width), "float32"),
            "terminated": ((steps, width), "bool"),
            "truncated": ((steps, width), "bool"),
            "valid": ((steps, width), "bool"),
        }
        if action.masked:
            self._forms["masks"] = ((steps + 1, width, action.mask_size), "bool")
        self._begin()

    def observe(self, environment: VectorEnvironment) -> None:
        """Row 0 from the environment's current observations."""
        self._observe(environment.observations, environment.masks, 0)

    def seen(self) -> tuple[dict[str, Array], Array | None]:
        """The observations {leaf: [B, ...]} and masks of the current row (views)."""
        t = self.t
        masks = None if self._masks is None else self._masks[t]
        return {leaf: array[t] for leaf, array in self._observations.items()}, masks

    def act(self, actions: Array, log_probabilities: Array) -> None:
        """What the policy chose in this row."""
        self._rows["actions"][self.t] = actions
        self._rows["log_probabilities"][self.t] = log_probabilities

    def split(self, actions: Array, into: dict[str, Array]) -> None:
        """The actions [B, ...] as one [count, ...] for each agent."""
        for agent, where in self._slices.items():
            into[agent] = actions[where]

    def step(self, step: Step) -> bool:
        """What came of it, and the next observations. True if the fragment is full."""
        t, rows = self.t, self._rows
        for agent, where in self._slices.items():
            rows["rewards"][t, where] = step.rewards[agent]
            rows["terminated"][t, where] = step.terminated[agent]
            rows["truncated"][t, where] = step.truncated[agent]
            rows["valid"][t, where] = step.valid[agent]
        self.t = t + 1
        self._observe(step.observations, step.masks, self.t)
        return self.t == self.steps

    def flaw(self) -> tuple[int, int, str] | None:
        """Return row, column and leaf of the full fragment's first observation that is not finite; None if all are.

        An environment's other values are checked in each step.
        """
        for leaf, array in self._observations.items():
            if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
                row, column = (int(place) for place in np.argwhere(~finite)[0, :2])
                return row, column, leaf
        return None

    def whose(self, column: int) -> tuple[str, int]:
        """Return the agent and the copy of the environment to which a column belongs."""
        place, copy = divmod(column, self._width // len(self.agents))
        return self.agents[place], copy

    def fragment(self) -> tuple[Draft, int]:
        """The full fragment and its agent steps; it is the receiver's now, and the next one begins where it ended."""
        full, observations, masks = self._draft, self._observations, self._masks
        steps = int(np.count_nonzero(self._rows["valid"]))
        self._begin()
        for leaf, array in observations.items():
            self._observations[leaf][0] = array[self.t]
        if masks is not None and self._masks is not None:
            self._masks[0] = masks[self.t]
        self.t = 0
        return full, steps

    def _begin(self) -> None:
        """A fresh draft: every row of it will be written before it leaves."""
        self._draft = draft(self._forms)
        self._rows = self._draft.arrays
        self._observations = {leaf: self._rows[key] for leaf, key in self._keys.items()}
        self._masks = self._rows.get("masks")
        if self._masks is not None:
            self._masks[...] = True

    def _observe(self, observations: Observations, masks: Mapping[str, Array | None], t: int) -> None:
        for agent, where in self._slices.items():
            for leaf, array in observations[agent].items():
                self._observations[leaf][t, where] = array
            mask = masks.get(agent)
            if self._masks is not None and mask is not None:
                self._masks[t, where] = mask
