"""What an actor sees of its environments: `count` copies, stepped together, as one column of arrays per agent.

Invariants, whatever stands behind the protocol:

- Next-step autoreset. After a row with `terminated | truncated` the observations are the final ones; the next step
  ignores the actions, resets, and gives a dummy row (`valid` false, reward 0, no flags, no env step) whose observations
  are the first of the new episode. With several agents an episode ends when none is left; an agent that died earlier,
  or has not appeared yet, has `valid` false until it is there.
- `valid[agent][i]`: this row is a real transition of an agent that was there and acted. The sum over valid is agent
  steps; `env_steps` counts environments that made a transition. The two are never mixed.
- Arrays are stable buffers: a step overwrites them. Whoever keeps a row copies it before the next step.
- Environment i's random stream follows from (seed, i) alone: it is seeded once and later resets draw on.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gymnasium import spaces
from numpy.typing import NDArray

from actors.conform import NotOfSpace
from actors.spaces import ActionSpec, ObservationSpec
from broker.errors import RunError

RAISED = (Exception, SystemExit)
"""Exceptions of an environment that are its faults: `sys.exit` in it does not end the actor."""
Array = NDArray[Any]
Observations = dict[str, dict[str, Array]]  # agent -> leaf -> [count, *leaf shape]
Column = dict[str, Array]  # agent -> [count]
Masks = dict[str, "Array | None"]  # agent -> [count, choices] bool, None where the environment gives no mask


@dataclass(frozen=True, slots=True)
class Episode:
    """One finished episode.

    `length` is in env steps; `returns` are undiscounted sums and `lengths` valid agent steps, of the agents that took
    part; `seconds` is wall time from its reset, the other copies' share included.
    """

    length: int
    returns: dict[str, float]
    lengths: dict[str, int]
    seconds: float
    environment: int


@dataclass(frozen=True, slots=True)
class Step:
    """One row: rewards, flags and `valid` of the step just made, and the observations (and masks) that follow it.

    Every array is a stable buffer of the environment (see the module); `env_steps` are the transitions in this row;
    `episodes` those that ended with it.
    """

    observations: Observations
    masks: Masks
    rewards: Column
    terminated: Column
    truncated: Column
    valid: Column
    env_steps: int
    episodes: list[Episode]


class VectorEnvironment(Protocol):
    """`count` copies of an environment. `observations` and `masks` are the current ones, also after `reset`."""

    kind: Literal["gymnasium", "pettingzoo"]
    agents: tuple[str, ...]
    count: int
    observation_spaces: dict[str, spaces.Space[Any]]
    observation_specs: dict[str, ObservationSpec]
    action_specs: dict[str, ActionSpec]
    observations: Observations
    masks: Masks

    def reset(self, seed: int | None = None) -> Observations:
        """Seed (by default with the seed it was made with) and reset every copy. Raises EnvironmentFailed."""
        ...

    def step(self, actions: Mapping[str, Array]) -> Step:
        """One row. `actions[agent]` is [count, *action shape], zero-based; boxes are clipped to their bounds.

        Actions of agents that are not there, and of copies about to reset, are ignored. Raises EnvironmentFailed; after
        that the whole vector has to be closed or reset.
        """
        ...

    def place(self, i: int) -> tuple[int, int]:
        """Return the seed of copy i and the number of rows since it was seeded."""
        ...

    def close(self) -> None:
        """Let every copy go; what one raises in closing is dropped, for nothing depends on it any more."""
        ...


class EnvironmentFailed(RunError):  # noqa: N818  the tree's errors say what happened
    """An environment raised in `reset` or `step`, or returned a value there that is not in its space.

    `seed` is the one that environment `environment` was seeded with, `episode` counts its resets since (from 0), `step`
    the env steps made in that episode: enough to play up to the same place. `traceback` is the environment's own, as
    text. `environment` is None where a vector form does not say which copy it was; `step` then counts rows since reset.
    """

    def __init__(
        self,
        cause: BaseException,
        seed: int,
        episode: int,
        step: int,
        environment: int | None,
        *,
        method: str = "step",
        name: str = "",
    ) -> None:
        copy = "the vector environment" if environment is None else f"environment {environment}"
        of = f" of {name}" if name else ""
        self.what = f"{method}(): {cause}"
        if not isinstance(cause, NotOfSpace):
            self.what = f"{method}() raised {type(cause).__name__}: {cause}"
        self.where = f"seed {seed}, episode {episode}, step {step}"
        super().__init__(f"{copy}{of} ({self.where}): {self.what}")
        self.cause = cause
        self.traceback = "".join(traceback.format_exception(cause))
        self.seed = seed
        self.episode = episode
        self.step = step
        self.environment = environment
        self.method = method
