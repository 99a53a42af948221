"""Spaces, as plain descriptions that travel: what an agent sees and what it may do.

A Gymnasium space is a live object with a random generator in it; these descriptions are frozen, compare by value and
turn to JSON and back, so that a learner builds the same network as an actor from the resolved run alone.

Invariant: what a policy meets is zero-based and flat. `Discrete.start` is taken off observations and added to actions
at the environment; a Dict or Tuple is a row of leaves named by their path ("camera", "arm/0"), a plain space is one
leaf named ""; an action mask is no part of the observation. No torch here: light processes import this module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from actors.conform import Form, NotOfSpace
from broker.errors import UnsupportedSpace

LeafKind = Literal["box", "discrete", "multi_binary"]
ActionKind = Literal["discrete", "multi_discrete", "box"]
Path = tuple[str | int, ...]

OBSERVATIONS = "Box, Discrete, MultiBinary, and Dict or Tuple of these"
ACTIONS = "Discrete, MultiDiscrete (one row) and Box of floats"
MASKED = {"observation", "action_mask"}
LARGEST_BOUND = 1e30
"""A larger bound of a Box counts as infinite: many spaces write the largest float for infinity."""


@dataclass(frozen=True)
class Leaf:
    """One array of an observation, without the batch dimension.

    `name` is the path joined by "/", "" for a plain space. `shape` is () for a discrete leaf, whose `n` is its number
    of values, counted from 0; `start` is what the environment's own values are counted from. `dtype` is "float32" or
    "uint8" (images stay bytes) for a box, "int64" for discrete, "int8" for multi_binary.
    """

    name: str
    kind: LeafKind
    shape: tuple[int, ...]
    dtype: str
    n: int | None = None
    start: int = 0

    def form(self, whose: str = "observation", dtype: Any = None) -> Form:
        """Return the form of this leaf's values. `dtype` is that of a Box, if known."""
        name = f"{whose} at {self.name!r}" if self.name else whose
        if self.n is not None:
            return Form(name, (), np.dtype(self.dtype), self.start, self.start + self.n - 1)
        if self.kind == "multi_binary":
            return Form(name, self.shape, np.dtype(self.dtype), 0, 1)
        return Form(name, self.shape, np.dtype(self.dtype if dtype is None else dtype))


@dataclass(frozen=True)
class ObservationSpec:
    """The leaves of an observation, in the order of the space."""

    leaves: tuple[Leaf, ...]

    @property
    def plain(self) -> bool:
        """Whether it is one array, and not a Dict or Tuple of them."""
        return len(self.leaves) == 1 and self.leaves[0].name == ""

    @property
    def keys(self) -> dict[str, str]:
        """Leaf name → the name of its array in a fragment."""
        return {leaf.name: f"observations/{leaf.name}" if leaf.name else "observations" for leaf in self.leaves}

    def encode(self, observation: Any) -> dict[str, np.ndarray]:
        """Convert an environment's observation to {leaf: array of its shape and dtype}, without a mask.

        NotOfSpace (a ValueError) names the leaf that does not conform to the space.
        """
        if isinstance(observation, Mapping) and set(observation) == MASKED:
            observation = observation["observation"]
        arrays = {}
        for leaf in self.leaves:
            value = observation
            for key in leaf.name.split("/") if leaf.name else ():
                try:
                    value = value[int(key)] if isinstance(value, tuple | list) else value[key]
                except (LookupError, TypeError, ValueError):
                    raise NotOfSpace(f"observation has nothing at {leaf.name!r}") from None
            fitted = leaf.form().fit(value)
            arrays[leaf.name] = (fitted - leaf.start if leaf.start else fitted).astype(leaf.dtype)
        return arrays

    def to_plain(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {"leaves": [{**vars(leaf), "shape": list(leaf.shape)} for leaf in self.leaves]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ObservationSpec:
        """The inverse of `to_plain`."""
        return cls(tuple(Leaf(**{**leaf, "shape": tuple(leaf["shape"])}) for leaf in plain["leaves"]))


@dataclass(frozen=True)
class ActionSpec:
    """What an agent may do.

    `shape` is that of one action: () discrete, (k,) multi_discrete, the box's own for a box. `nvec` is the number of
    choices, of each part: (n,) discrete, k numbers multi_discrete, () for a box. `low` and `high` are a box's bounds,
    flattened, infinite where there is none. `masked`: the environment says which choices are legal, by [sum(nvec)]
    bools. `start` is the first of the environment's choices; a policy counts choices from 0. `rescaled`: dimensions of
    a box with two finite bounds are -1 to 1 for the policy.
    """

    kind: ActionKind
    nvec: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    masked: bool = False
    start: tuple[int, ...] = ()
    rescaled: bool = False

    @property
    def dtype(self) -> str:
        """Of the arrays of actions in fragments."""
        return "float32" if self.kind == "box" else "int64"

    @property
    def mask_size(self) -> int:
        """How many choices a mask speaks of (and logits a policy gives), over all parts; 0 for a box."""
        return sum(self.nvec)

    def to_environment(self, dtype: Any = None) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that converts a policy's actions [B, ...] to the environment's: offset, or rescaled and
        clipped. `dtype` is the space's, if known.
        """
        kind = np.dtype(self.dtype if dtype is None else dtype)
        if self.kind != "box":
            start = np.asarray(self.start, np.int64).reshape(self.shape)
            if not start.any() and kind == self.dtype:
                return lambda actions: actions
            return lambda actions: (actions + start).astype(kind)
        low, high = (np.asarray(side, np.float64).reshape(self.shape) for side in (self.low, self.high))
        bounded = _bounded(low, high) & self.rescaled
        scale = np.where(bounded, high / 2 - np.where(bounded, low, 0.0) / 2, 1.0).astype(kind)
        centre = np.where(bounded, high / 2 + np.where(bounded, low, 0.0) / 2, 0.0).astype(kind)
        low, high = low.astype(kind), high.astype(kind)
        if (scale == 1.0).all() and not centre.any():  # always a fresh array: an environment may keep or change it
            return lambda actions: np.clip(actions.astype(kind), low, high)
        return lambda actions: np.clip(actions.astype(kind) * scale + centre, low, high)

    def to_plain(self) -> dict[str, Any]:
        """The same as JSON values; an infinite bound is null, for JSON has no infinity."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        for side in ("low", "high"):
            plain[side] = [bound if math.isfinite(bound) else None for bound in plain[side]]
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ActionSpec:
        """The inverse of `to_plain`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list | tuple) else value for key, value in plain.items()
        }
        for side, infinite in (("low", -math.inf), ("high", math.inf)):
            values[side] = tuple(infinite if bound is None else bound for bound in values[side])
        return cls(**values)


def split_mask(space: spaces.Space[Any]) -> tuple[spaces.Space[Any], spaces.Space[Any] | None]:
    """PettingZoo's convention: a Dict of "observation" and "action_mask" is the first, masked by the second."""
    if isinstance(space, spaces.Dict) and set(space.spaces) == MASKED:
        return space.spaces["observation"], space.spaces["action_mask"]
    return space, None


def observation_spec(space: spaces.Space[Any], agent: str = "agent") -> ObservationSpec:
    """Describe an observation space. Raises UnsupportedSpace: the agent, the space and what is supported."""
    space, _ = split_mask(space)
    leaves = tuple(_leaf(path, part, agent) for path, part in leaf_spaces(space, agent))
    if not leaves:
        raise _unsupported(agent, "observation", space, "it has no parts", OBSERVATIONS)
    return ObservationSpec(leaves)


def action_spec(
    space: spaces.Space[Any],
    agent: str = "agent",
    observation: spaces.Space[Any] | None = None,
    *,
    rescale: bool = False,
) -> ActionSpec:
    """Describe an action space; `observation` may have a mask for it. Raises UnsupportedSpace.

    With `rescale` a policy's -1 to 1 stand for the finite bounds of a box.
    """
    mask = None if observation is None else split_mask(observation)[1]
    if isinstance(space, spaces.Discrete):
        spec = ActionSpec("discrete", (int(space.n),), (), masked=mask is not None, start=(int(space.start),))
    elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        nvec = tuple(int(n) for n in space.nvec)
        start = tuple(int(first) for first in space.start)
        spec = ActionSpec("multi_discrete", nvec, (len(nvec),), masked=mask is not None, start=start)
    elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(bound) for bound in side.reshape(-1)) for side in (space.low, space.high))
        rescaled = rescale and bool(_bounded(np.asarray(low), np.asarray(high)).any())
        spec = ActionSpec("box", (), tuple(space.shape), low, high, rescaled=rescaled)
    else:
        raise _unsupported(agent, "action", space, "no policy of ours can act in it", ACTIONS)
    if mask is not None and (spec.kind == "box" or math.prod(mask.shape or ()) != spec.mask_size):
        wrong = f"its action mask {mask} does not name the {spec.mask_size} choices"
        raise _unsupported(
            agent, "action", space, wrong, "a mask with one number a choice, over Discrete or MultiDiscrete"
        )
    return spec


def leaf_spaces(
    space: spaces.Space[Any], agent: str = "agent", path: Path = ()
) -> Iterator[tuple[Path, spaces.Space[Any]]]:
    """Every simple space within `space` with the keys that lead to it, in order; a plain space has the empty path."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if not isinstance(key, str) or not key or "/" in key:
                raise _unsupported(
                    agent, "observation", space, f"its key {key!r} is not a name without '/'", OBSERVATIONS
                )
            yield from leaf_spaces(part, agent, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from leaf_spaces(part, agent, (*path, index))
    else:
        yield path, space


def _leaf(path: Path, space: spaces.Space[Any], agent: str) -> Leaf:
    name = "/".join(str(key) for key in path)
    if isinstance(space, spaces.Box):
        # Bytes are images and four times as dear as floats to move; every other number is one float32.
        return Leaf(name, "box", tuple(space.shape), "uint8" if space.dtype == np.uint8 else "float32")
    if isinstance(space, spaces.Discrete):
        return Leaf(name, "discrete", (), "int64", int(space.n), int(space.start))
    if isinstance(space, spaces.MultiBinary):
        return Leaf(name, "multi_binary", tuple(space.shape), "int8")
    raise _unsupported(agent, "observation", space, f"no policy of ours can see it (at {name!r})", OBSERVATIONS)


def _bounded(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return for each dimension whether both bounds are finite."""
    return np.asarray((np.abs(low) < LARGEST_BOUND) & (np.abs(high) < LARGEST_BOUND))


def _unsupported(agent: str, role: str, space: object, wrong: str, supported: str) -> UnsupportedSpace:
    return UnsupportedSpace(
        f"agent {agent!r}: {role} space {space}: {wrong}; supported: {supported}. "
        "Wrap the environment to give one of these."
    )
