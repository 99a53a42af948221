"""Gymnasium behind the vector protocol: copies stepped in a loop, or Gymnasium's own vector form.

Invariant: there is one agent, named "agent"; both forms give the same rows in the same order (next-step autoreset, the
dummy row neither valid nor counted), and differ only in how their random streams are seeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from actors.conform import (
    NO_ANSWER,
    RESET,
    STEP,
    NotOfSpace,
    brief,
    check_flag,
    check_flags,
    check_mappings,
    check_reward,
    finite,
    rewards_of,
    unpacked,
)
from actors.environments.calls import CALLS
from actors.environments.columns import AgentColumns
from actors.environments.rows import Rows
from actors.environments.vector import (
    RAISED,
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

    def __init__(self, spaces: tuple[Any, Any], count: int, seed: int, *, name: str, rescale: bool) -> None:
        self.count = count
        self.columns = AgentColumns(AGENT, *spaces, count, rescale=rescale)
        self.observation_spaces = {AGENT: spaces[0]}
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
        self._rows = Rows(count, seed, self.observations, self.masks, columns, name=name)
        self._returns = np.zeros(count, np.float64)

    def place(self, i: int) -> tuple[int, int]:
        """See VectorEnvironment.place."""
        return self._rows.place(i)

    def _ended(self, i: int) -> Episode:
        return self._rows.ended(i, {AGENT: float(self._returns[i])}, {AGENT: self._rows.length(i)})


class GymEnvironments(_OneAgent):
    """Gymnasium environments stepped one after the other in this process."""

    def __init__(self, environments: Sequence[Any], seed: int = 0, name: str = "", *, rescale: bool = False) -> None:
        """`environments` are gymnasium.Env, all alike. Raises UnsupportedSpace.

        `name` names them in messages; with `rescale` a policy's -1 to 1 stand for the finite bounds of a Box.
        """
        first = environments[0]
        spaces = first.observation_space, first.action_space
        super().__init__(spaces, len(environments), seed, name=name, rescale=rescale)
        self._environments = list(environments)
        self._steps = [environment.step for environment in environments]
        self._over = [False] * self.count

    def reset(self, seed: int | None = None) -> Observations:
        """See VectorEnvironment.reset."""
        self._rows.begin_all(seed)
        for i in range(self.count):
            self.reset_copy(i, self._rows.seed_of(i))
        return self.observations

    def step(self, actions: Mapping[str, Array]) -> Step:
        """See VectorEnvironment.step."""
        rows = self.columns.rows(actions[AGENT])
        write, over = self.columns.write, self._over
        terminations, truncations, valid = self._terminated, self._truncated, self._valid
        terminations.fill(False)
        truncations.fill(False)
        valid.fill(True)
        env_steps = self.count
        rewards: list[Any] = [0.0] * self.count
        ended: list[int] = []
        i = 0
        answer: Any = NO_ANSWER
        call = CALLS.step(self._rows)
        try:
            for i, step in enumerate(self._steps):
                call.copy = i
                if over[i]:
                    self._rows.begin(i)
                    self.reset_copy(i, None)
                    valid[i] = False
                    env_steps -= 1
                    continue
                answer = step(rows[i])
                observation, rewards[i], terminated, truncated, info = answer
                write(i, observation)
                if terminated is not False or truncated is not False:
                    terminations[i] = check_flag(terminated, "terminated")
                    truncations[i] = check_flag(truncated, "truncated")
                    if terminations[i] or truncations[i]:
                        check_mappings(info)
                        over[i] = True
                        ended.append(i)
            gained = rewards_of(rewards, self.count)
            if gained is None:
                for i, reward in enumerate(rewards):
                    rewards[i] = check_reward(reward)
                gained = np.array(rewards)
            self._rewards[:] = gained
            if not finite(self._rewards):
                for i, reward in enumerate(rewards):  # noqa: B007 - the failure names the copy
                    check_reward(reward)
        except EnvironmentFailed:
            raise
        except RAISED as error:
            raise self._rows.failed(error, i, answer) from error
        finally:
            call.method = ""
        self._returns += gained
        return self._rows.close(env_steps, [self._ended(i) for i in ended])

    def close(self) -> None:
        """See VectorEnvironment.close."""
        for i, environment in enumerate(self._environments):
            with CALLS.within("close", i, self._rows), suppress(*RAISED):
                environment.close()

    def reset_copy(self, i: int, seed: int | None) -> None:
        """Reset one copy. Raises EnvironmentFailed."""
        answer: Any = NO_ANSWER
        before = CALLS.reset(self._rows, i)
        try:
            answer = self._environments[i].reset(seed=seed)
            observation, info = answer
            self.columns.write(i, observation)
            check_mappings(info)
        except RAISED as error:
            raise self._rows.failed(error, i, answer, resetting=True) from error
        finally:
            CALLS.method = before
        self._over[i] = False
        self._returns[i] = 0.0


class GymVectorForm(_OneAgent):
    """Gymnasium's own vector form of an environment: one call steps them all."""

    def __init__(self, environment: Any, seed: int = 0, name: str = "", *, rescale: bool = False) -> None:
        """`environment` is a gymnasium.vector.VectorEnv with next-step autoreset. Raises UnsupportedSpace."""
        count = int(environment.num_envs)
        spaces = environment.single_observation_space, environment.single_action_space
        super().__init__(spaces, count, seed, name=name, rescale=rescale)
        self._environment = environment
        self._over: list[int] = []

    def reset(self, seed: int | None = None) -> Observations:
        """See VectorEnvironment.reset: one stream, seeded from (seed, 0), serves all copies."""
        self._rows.begin_all(seed)
        answer: Any = NO_ANSWER
        try:
            with CALLS.within("reset", None, self._rows):
                answer = self._environment.reset(seed=self._rows.seed_of(0))
            observations, _ = answer
            self.columns.write_all(observations)
        except RAISED as error:
            raise self._failed(error, answer, resetting=True) from error
        self._over = []
        self._returns.fill(0.0)
        return self.observations

    def step(self, actions: Mapping[str, Array]) -> Step:
        """See VectorEnvironment.step."""
        batch = self.columns.batch(actions[AGENT])
        count, reset = self.count, self._over
        rewards, terminated, truncated = self._rewards, self._terminated, self._truncated
        answer: Any = NO_ANSWER
        call = CALLS.step(self._rows, None)
        try:
            answer = self._environment.step(batch)
            observations, gained, terminations, truncations, _ = answer
            self.columns.write_all(observations)
            earned = rewards_of(gained, count)
            if earned is None:
                raise NotOfSpace(f"reward is {brief(gained)}, not {count} numbers")
            rewards[:] = earned
            terminated[:] = check_flags(terminations, count, "terminated")
            truncated[:] = check_flags(truncations, count, "truncated")
        except RAISED as error:
            raise self._failed(error, answer) from error
        finally:
            call.method = ""
        valid, returns = self._valid, self._returns
        valid.fill(True)
        returns += earned
        for i in reset:  # these copies were reset by this call, whatever numbers they gave for it
            rewards[i] = returns[i] = 0.0
            terminated[i] = truncated[i] = valid[i] = False
            self._rows.begin(i)
        if not finite(rewards):
            raise self._failed(NotOfSpace(f"reward is {brief(rewards)}, not {count} finite numbers"), answer)
        self._over = over = (terminated | truncated).nonzero()[0].tolist()
        episodes = [self._ended(i) for i in over]
        env_steps = count - len(reset)
        return self._rows.close(env_steps, episodes)

    def close(self) -> None:
        """See VectorEnvironment.close."""
        with CALLS.within("close", None, self._rows), suppress(*RAISED):
            self._environment.close()

    def place(self, i: int) -> tuple[int, int]:
        """See VectorEnvironment.place: one seed serves all copies."""
        return self._rows.place(0)

    def _failed(self, error: BaseException, answer: Any, *, resetting: bool = False) -> EnvironmentFailed:
        method, names = ("reset", RESET) if resetting else ("step", STEP)
        cause = unpacked(answer, names) or error
        rows = self._rows
        return EnvironmentFailed(cause, rows.seed_of(0), 0, rows.row, None, method=method, name=rows.name)
