"""Gymnasium behind the vector protocol: copies stepped in a loop, or Gymnasium's own vector form.

Invariant: there is one agent, named "agent"; both forms give the same rows in the same order (next-step autoreset, the
dummy row neither valid nor counted), and differ only in how their random streams are seeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from actors.environments.columns import AgentColumns
from actors.environments.rows import Rows
from actors.environments.vector import (
    Array,
    Column,
    EnvironmentFailed,
    Episode,
    Masks,
    Observations,
    Step,
)

AGENT = "agent"


class _OneAgent:
    """What both forms share: the buffers of the one agent, and its rows."""

    kind: Literal["gymnasium", "pettingzoo"] = "gymnasium"
    agents: tuple[str, ...] = (AGENT,)

    def __init__(self, observation_space: Any, action_space: Any, count: int, seed: int) -> None:
        self.count = count
        self.columns = AgentColumns(AGENT, observation_space, action_space, count)
        self.observation_specs = {AGENT: self.columns.observation_spec}
        self.action_specs = {AGENT: self.columns.action_spec}
        self.observations: Observations = {AGENT: self.columns.arrays}
        self.masks: Masks = {AGENT: self.columns.mask}
        self._rewards = np.zeros(count, np.float32)
        self._terminated, self._truncated, self._valid = (np.zeros(count, bool) for _ in range(3))
        columns: tuple[Column, Column, Column, Column] = (
            {AGENT: self._rewards},
            {AGENT: self._terminated},
            {AGENT: self._truncated},
            {AGENT: self._valid},
        )
        self._rows = Rows(count, seed, self.observations, self.masks, columns)

    def _ended(self, i: int, reward: float) -> Episode:
        return self._rows.ended(i, {AGENT: float(reward)}, {AGENT: self._rows.length(i)})


class GymEnvironments(_OneAgent):
    """Gymnasium environments stepped one after the other in this process."""

    def __init__(self, environments: Sequence[Any], seed: int = 0) -> None:
        """`environments` are gymnasium.Env, all alike. Raises UnsupportedSpace."""
        first = environments[0]
        super().__init__(first.observation_space, first.action_space, len(environments), seed)
        self._environments = list(environments)
        self._steps = [environment.step for environment in environments]
        self._over = [False] * self.count
        self._returns = [0.0] * self.count

    def reset(self, seed: int | None = None) -> Observations:
        """See VectorEnvironment.reset."""
        self._rows.begin_all(seed)
        for i in range(self.count):
            self._reset(i, self._rows.seed_of(i))
        return self.observations

    def step(self, actions: Mapping[str, Array]) -> Step:
        """See VectorEnvironment.step."""
        rows = self.columns.rows(actions[AGENT])
        write, returns, over = self.columns.write, self._returns, self._over
        rewards, terminations, truncations, valid = self._rewards, self._terminated, self._truncated, self._valid
        terminations.fill(False)
        truncations.fill(False)
        valid.fill(True)
        env_steps = self.count
        episodes: list[Episode] = []
        i = 0
        try:
            for i, step in enumerate(self._steps):
                if over[i]:
                    self._rows.begin(i)
                    self._reset(i, None)
                    rewards[i] = 0.0
                    valid[i] = False
                    env_steps -= 1
                    continue
                observation, reward, terminated, truncated, _ = step(rows[i])
                write(i, observation)
                rewards[i] = reward
                returns[i] += float(reward)  # a sum of NumPy's small floats would stay as small
                if terminated or truncated:
                    terminations[i] = terminated
                    truncations[i] = truncated
                    over[i] = True
                    episodes.append(self._ended(i, returns[i]))
        except EnvironmentFailed:
            raise
        except Exception as error:
            raise self._rows.failed(error, i) from error
        return self._rows.close(env_steps, episodes)

    def close(self) -> None:
        """See VectorEnvironment.close."""
        for environment in self._environments:
            with suppress(Exception):
                environment.close()

    def _reset(self, i: int, seed: int | None) -> None:
        try:
            observation, _ = self._environments[i].reset(seed=seed)
            self.columns.write(i, observation)
        except Exception as error:
            raise self._rows.failed(error, i, 0) from error
        self._over[i] = False
        self._returns[i] = 0.0


class GymVectorForm(_OneAgent):
    """Gymnasium's own vector form of an environment: one call steps them all."""

    def __init__(self, environment: Any, seed: int = 0) -> None:
        """`environment` is a gymnasium.vector.VectorEnv with next-step autoreset. Raises UnsupportedSpace."""
        count = int(environment.num_envs)
        super().__init__(environment.single_observation_space, environment.single_action_space, count, seed)
        self._environment = environment
        self._over: list[int] = []
        self._returns = np.zeros(count, np.float64)

    def reset(self, seed: int | None = None) -> Observations:
        """See VectorEnvironment.reset: one stream, seeded from (seed, 0), serves all copies."""
        self._rows.begin_all(seed)
        try:
            observations, _ = self._environment.reset(seed=self._rows.seed_of(0))
            self.columns.write_all(observations)
        except Exception as error:
            raise self._failed(error) from error
        self._over = []
        self._returns.fill(0.0)
        return self.observations

    def step(self, actions: Mapping[str, Array]) -> Step:
        """See VectorEnvironment.step."""
        batch = self.columns.batch(actions[AGENT])
        rewards, terminated, truncated = self._rewards, self._terminated, self._truncated
        try:
            observations, given, terminations, truncations, _ = self._environment.step(batch)
            self.columns.write_all(observations)
            rewards[:] = given
            terminated[:] = terminations
            truncated[:] = truncations
        except Exception as error:
            raise self._failed(error) from error
        reset, valid, returns = self._over, self._valid, self._returns
        valid.fill(True)
        for i in reset:  # these copies were reset by this call, whatever numbers they gave for it
            rewards[i] = returns[i] = 0.0
            terminated[i] = truncated[i] = valid[i] = False
            self._rows.begin(i)
        returns += rewards
        self._over = over = (terminated | truncated).nonzero()[0].tolist()
        episodes = [self._ended(i, returns[i]) for i in over]
        env_steps = self.count - len(reset)
        return self._rows.close(env_steps, episodes)

    def close(self) -> None:
        """See VectorEnvironment.close."""
        with suppress(Exception):
            self._environment.close()

    def _failed(self, error: Exception) -> EnvironmentFailed:
        return EnvironmentFailed(error, self._rows.seed_of(0), 0, self._rows.row, None)
