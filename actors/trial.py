"""A trial of an environment before the run: it is played for a moment as an actor would play it.

Invariants: the trial steps the same `VectorEnvironment` as actors do, with their seeds, types of actions, copies and
resets, and only draws its actions at random; an exception of the environment becomes one RequestError that says how to
repair it. If episodes are drawn tasks, some tasks may fail, but not all of them.
"""

from __future__ import annotations

import math
import time
import traceback
from pathlib import Path

import numpy as np
from gymnasium import spaces

from actors.conform import NotOfSpace
from actors.curriculum.known import KnownTasks
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.gym import GymEnvironments
from actors.environments.load import KEY
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import Array, EnvironmentFailed, VectorEnvironment
from actors.environments.zoo import ZooEnvironments
from actors.spaces import LARGEST_BOUND, ActionSpec, leaf_spaces, split_mask
from broker import references
from broker.errors import RequestError

MOST_ROWS = 2000
MOST_SECONDS = 2.0
FEWEST_ROWS = 3
"""Rows that are played even if they take longer than `MOST_SECONDS`."""
LARGE = 100.0
"""Larger observations get a warning: networks learn well near 1."""
FAR = 10.0
"""Larger bounds of actions get a warning: a new policy's actions are about 1 from 0, and hardly reach them."""


def play(settings: EnvironmentSettings, environment: VectorEnvironment, seed: int) -> list[str]:
    """Play until every copy has ended an episode and begun another, or a limit is reached. Returns warnings.

    RequestError if the environment raised, or returned a value that is not in its spaces.
    """
    largest = _largest_bounds(environment) if "observation" not in settings.normalise else {}
    try:
        environment.reset()
        _play(environment, np.random.default_rng(seed), largest)
    except EnvironmentFailed as failure:
        raise _request(settings, failure) from failure
    return [*_observation_warnings(largest), *_action_warnings(environment)]


def check_tasks(settings: EnvironmentSettings, tasks: KnownTasks) -> list[str]:
    """Return warnings about the tasks that were played. RequestError if every task that ended had failed."""
    failed, scored = sum(tasks.failures.values()), sum(map(len, tasks.scores.values()))
    if failed and not scored:
        text = f"none of {failed} tasks of the curriculum could be played; the last one: {tasks.trouble}"
        raise references.wrong(settings.id, KEY, text, _repair(tasks.trouble))
    return [f"{failed} of {failed + scored} tasks could not be played; the last one: {tasks.trouble}"] if failed else []


def random_actions(spec: ActionSpec, masks: Array | None, count: int, random: np.random.Generator) -> Array:
    """Draw actions [count, ...] like those of an untrained policy: any legal choice, or normal around 0 for a box."""
    if spec.kind == "box":
        return random.standard_normal((count, *spec.shape), dtype=np.float32)
    weights = random.random((count, spec.mask_size)) + (0.0 if masks is None else masks)
    groups = np.split(weights, np.cumsum(spec.nvec)[:-1], axis=1)
    return np.stack([group.argmax(1) for group in groups], axis=1).reshape((count, *spec.shape))


def _play(environment: VectorEnvironment, random: np.random.Generator, largest: dict[str, float]) -> None:
    began, ended, rows = time.monotonic(), set[int](), 0
    drawn = isinstance(environment, TaskedEnvironments)
    while rows < MOST_ROWS and (rows < FEWEST_ROWS or time.monotonic() - began < MOST_SECONDS):
        _note(environment, largest)
        if isinstance(environment, TaskedEnvironments) and not environment.tend():
            return
        all_ended = len(ended) == environment.count and not drawn
        step = environment.step(
            {
                agent: random_actions(spec, environment.masks.get(agent), environment.count, random)
                for agent, spec in environment.action_specs.items()
            }
        )
        if all_ended:  # this row was the reset of the last copy
            return
        ended |= {episode.environment for episode in step.episodes}
        rows += 1
    if not ended and isinstance(environment, GymEnvironments | ZooEnvironments):
        environment.reset_copy(0, None)  # as the first episode's end will


def _note(environment: VectorEnvironment, largest: dict[str, float]) -> None:
    for agent, leaves in environment.observations.items():
        for name, array in leaves.items():
            key = _name(agent, name)
            if key in largest and array.size:
                largest[key] = float(np.maximum(largest[key], np.abs(array).max()))  # np.maximum keeps NaN


def _largest_bounds(environment: VectorEnvironment) -> dict[str, float]:
    """Return the largest finite bound of each float Box among the leaves, by the leaf's name in messages."""
    largest = {}
    for agent, space in environment.observation_spaces.items():
        for leaf, (_, part) in zip(
            environment.observation_specs[agent].leaves, leaf_spaces(split_mask(space)[0]), strict=True
        ):
            if isinstance(part, spaces.Box) and leaf.dtype == "float32":
                bounds = np.abs(np.concatenate([part.low.reshape(-1), part.high.reshape(-1)]).astype(np.float64))
                largest[_name(agent, leaf.name)] = float(bounds.max(initial=0.0, where=bounds < LARGEST_BOUND))
    return largest


def _name(agent: str, leaf: str) -> str:
    return f"{agent}'s observation at {leaf!r}" if leaf else f"{agent}'s observation"


def _observation_warnings(largest: dict[str, float]) -> list[str]:
    warnings = []
    for name, value in largest.items():
        if not math.isfinite(value):
            warnings.append(f"{name} has values that are not finite, and experience with them is refused: repair them")
        elif value > LARGE:
            text = 'set environment.normalise = ["observation"], or scale it in the environment'
            warnings.append(f"{name} has values or bounds up to {value:g}, and networks learn near 1: {text}")
    return warnings


def _action_warnings(environment: VectorEnvironment) -> list[str]:
    warnings = []
    for agent, spec in environment.action_specs.items():
        bounds = [abs(bound) for bound in (*spec.low, *spec.high)]
        if spec.kind == "box" and max(bounds) >= LARGEST_BOUND:
            warnings.append(f"{agent}'s action is a Box without bounds: a policy begins with actions about 1 from 0")
        elif spec.kind == "box" and not spec.rescaled and max(bounds) > FAR:
            text = f"{agent}'s action has bounds up to {max(bounds):g}, and a policy begins about 1 from 0"
            warnings.append(f'{text}: set policies.actions = "rescale"')
    return warnings


def _request(settings: EnvironmentSettings, failure: EnvironmentFailed) -> RequestError:
    cause, what = failure.cause, failure.what
    if isinstance(cause, NotOfSpace):
        return references.wrong(settings.id, KEY, f"{what} ({failure.where})", cause.repair)
    frame = traceback.extract_tb(cause.__traceback__)[-1]
    text = f"{what} ({Path(frame.filename).name}, line {frame.lineno}; {failure.where})"
    return references.wrong(settings.id, KEY, text, _repair(what))


def _repair(text: str) -> str:
    for name in ("seed", "options"):
        if f"unexpected keyword argument '{name}'" in text:
            return f"let reset() take {name}: write def reset(self, *, seed=None, options=None)"
    return "repair reset or step there: every run calls them in this way"
