"""Playing whole episodes with fixed policies, to see how good they are. Nothing is learned, nothing is sent.

Invariant: every environment contributes equally many episodes, so that short ones are not counted more often than long;
where episodes are tasks, every task that was taken is played to its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from actors.curriculum.known import KnownTasks
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.vector import Episode, VectorEnvironment
from actors.policies.policy import Policy
from broker.errors import RunError

MOST_STEPS = 50_000
"""Of all copies together, without an episode's end."""


def play(
    environment: VectorEnvironment,
    policies: Mapping[str, Policy],
    agents: Mapping[str, str],
    episodes: int,
    *,
    deterministic: bool = False,
) -> list[Episode]:
    """`episodes` whole episodes. `agents` maps each agent to its policy. Raises EnvironmentFailed."""
    each = math.ceil(episodes / environment.count)
    played: list[list[Episode]] = [[] for _ in range(environment.count)]
    environment.reset()
    limit = _Limit()
    while min(map(len, played)) < each:
        limit.passed()
        for episode in _step(environment, policies, agents, deterministic=deterministic):
            limit.ended()
            if len(played[episode.environment]) < each:
                played[episode.environment].append(episode)
    return [episode for row in zip(*played, strict=True) for episode in row][:episodes]


def play_tasks(
    environment: TaskedEnvironments,
    policies: Mapping[str, Policy],
    agents: Mapping[str, str],
    tasks: KnownTasks,
    *,
    deterministic: bool = False,
) -> list[Episode]:
    """An episode of each of the tasks that `environment` takes from `tasks`; those that raised have none."""
    played: list[Episode] = []
    environment.reset()
    limit = _Limit()
    while not tasks.over:
        limit.passed()
        left = tasks.left
        played += _step(environment, policies, agents, deterministic=deterministic)
        if tasks.left < left:
            limit.ended()
    return played


class _Limit:
    """Steps since an episode ended."""

    def __init__(self) -> None:
        self._steps = 0

    def passed(self) -> None:
        """One more. RunError where no end is to be expected."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise RunError(
                f"no episode ended within {MOST_STEPS:,} steps: as these policies play, the environment has no end; "
                "give it a time limit (for Gymnasium `max_episode_steps` in environment.settings)"
            )

    def ended(self) -> None:
        """An episode did."""
        self._steps = 0


def _step(
    environment: VectorEnvironment, policies: Mapping[str, Policy], agents: Mapping[str, str], *, deterministic: bool
) -> list[Episode]:
    """One step of all copies; gives the episodes that ended with it."""
    by_policy: dict[str, list[str]] = {}
    for agent in environment.agents:
        by_policy.setdefault(agents[agent], []).append(agent)
    actions: dict[str, Any] = {}
    for name, mine in by_policy.items():
        seen = {
            leaf: np.concatenate([environment.observations[agent][leaf] for agent in mine])
            for leaf in environment.observations[mine[0]]
        }
        masks = [environment.masks.get(agent) for agent in mine]
        mask = np.concatenate([m for m in masks if m is not None]) if masks[0] is not None else None
        chosen, _ = policies[name].act(seen, mask, deterministic=deterministic)
        actions.update(zip(mine, np.split(chosen, len(mine)), strict=True))
    return environment.step(actions).episodes


def returns_of(episodes: list[Episode], agents: Mapping[str, str], policy: str) -> list[float]:
    """For each episode, the mean return of the agents that followed `policy` (episodes without one are left out)."""
    found = []
    for episode in episodes:
        mine = [value for agent, value in episode.returns.items() if agents[agent] == policy]
        if mine:
            found.append(sum(mine) / len(mine))
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """The 95% interval of the mean (normal approximation: mean ± 1.96 standard errors)."""
    array = np.asarray(values, np.float64)
    error = 1.96 * array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else 0.0
    return float(array.mean() - error), float(array.mean() + error)
