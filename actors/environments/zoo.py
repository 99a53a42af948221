"""PettingZoo's parallel environments behind the vector protocol: agents may die early and appear late.

Invariants: an agent's row is valid exactly when it was among the environment's agents before the step and the step was
not a reset. An episode ends when no agent is left that is not terminated or truncated (so also in environments that
forget to empty `agents`). An agent that leaves without a flag is terminated: nothing can be bootstrapped from a state
that it is not in. The observation row of an agent that is not there is its last one, or zeros before its first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np

from actors.conform import NO_ANSWER, check_flag, check_mappings, check_reward, finite
from actors.environments.calls import CALLS
from actors.environments.columns import AgentColumns, Write
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
from broker.errors import UnsupportedSpace

Present = list[tuple[str, int, Write]]  # the agents that act now: name, place in the columns, where to write


class ZooEnvironments:
    """PettingZoo parallel environments stepped one after the other in this process."""

    kind: Literal["gymnasium", "pettingzoo"] = "pettingzoo"

    def __init__(self, environments: Sequence[Any], seed: int = 0, name: str = "", *, rescale: bool = False) -> None:
        """`environments` are pettingzoo.ParallelEnv, all alike. Raises UnsupportedSpace."""
        first = environments[0]
        self.agents: tuple[str, ...] = tuple(first.possible_agents)
        if odd := [agent for agent in self.agents if not isinstance(agent, str)]:
            raise UnsupportedSpace(f"agents are named by text: possible_agents has {odd[0]!r}")
        self.count = count = len(environments)
        self._environments = list(environments)
        self._steps = [environment.step for environment in environments]
        self.columns = {
            agent: AgentColumns(
                agent, first.observation_space(agent), first.action_space(agent), count, rescale=rescale
            )
            for agent in self.agents
        }
        self._writes = [column.write for column in self.columns.values()]
        self._converts = [column.rows for column in self.columns.values()]
        self._places = {agent: place for place, agent in enumerate(self.agents)}
        self.observation_spaces = {agent: first.observation_space(agent) for agent in self.agents}
        self.observation_specs = {agent: column.observation_spec for agent, column in self.columns.items()}
        self.action_specs = {agent: column.action_spec for agent, column in self.columns.items()}
        self.observations: Observations = {agent: column.arrays for agent, column in self.columns.items()}
        self.masks: Masks = {agent: column.mask for agent, column in self.columns.items()}
        # One block of [agents, count] each, so that clearing and summing is one operation for all agents.
        shape = (len(self.agents), count)
        self._rewards = np.zeros(shape, np.float32)
        self._terminated, self._truncated, self._valid = (np.zeros(shape, bool) for _ in range(3))
        self._returns = np.zeros(shape, np.float64)
        self._lengths = np.zeros(shape, np.int64)
        columns = (
            self._column(self._rewards),
            self._column(self._terminated),
            self._column(self._truncated),
            self._column(self._valid),
        )
        self._rows = Rows(count, seed, self.observations, self.masks, columns, name=name)
        self._present: list[Present] = [[] for _ in range(count)]
        self._names: list[list[str]] = [[] for _ in range(count)]

    def reset(self, seed: int | None = None) -> Observations:
        """See VectorEnvironment.reset."""
        self._rows.begin_all(seed)
        for i in range(self.count):
            self.reset_copy(i, self._rows.seed_of(i))
        return self.observations

    def step(self, actions: Mapping[str, Array]) -> Step:
        """See VectorEnvironment.step."""
        rows = [convert(actions[agent]) for agent, convert in zip(self.agents, self._converts, strict=True)]
        rewards, valid = self._rewards, self._valid
        rewards.fill(0.0)
        self._terminated.fill(False)
        self._truncated.fill(False)
        valid.fill(True)
        env_steps = self.count
        ended: list[int] = []
        everyone = len(self.agents)
        i = 0
        answer: Any = NO_ANSWER
        call = CALLS.step(self._rows)
        try:
            for i, step in enumerate(self._steps):
                call.copy = i
                present = self._present[i]
                if len(present) != everyone:
                    valid[:, i] = False
                    if not present:
                        self._rows.begin(i)
                        self.reset_copy(i, None)
                        env_steps -= 1
                        continue
                    for _, place, _ in present:
                        valid[place, i] = True
                answer = step({agent: rows[j][i] for agent, j, _ in present})
                observations, gained, terminations, truncations, infos = answer
                check_mappings(observations, gained, terminations, truncations, infos)
                changed = False
                for agent, place, write in present:
                    observation, reward = observations.get(agent), gained.get(agent)
                    if observation is None or reward is None:
                        changed = True
                    if observation is not None:
                        write(i, observation)
                    if reward is not None:
                        rewards[place, i] = reward if type(reward) is float else check_reward(reward, agent)
                    terminated, truncated = terminations.get(agent, False), truncations.get(agent, False)
                    if (terminated is not False and check_flag(terminated, "terminated", agent)) or (
                        truncated is not False and check_flag(truncated, "truncated", agent)
                    ):
                        changed = True
                if changed or self._environments[i].agents != self._names[i]:
                    self._change(i, observations, gained, terminations, truncations)
                    if not self._present[i]:
                        ended.append(i)
            if not finite(rewards.reshape(-1)):
                at, i = (int(places[0]) for places in np.nonzero(~np.isfinite(rewards)))
                check_reward(rewards[at, i], self.agents[at])
        except EnvironmentFailed:
            raise
        except RAISED as error:
            raise self._rows.failed(error, i, answer) from error
        finally:
            call.method = ""
        self._returns += rewards
        self._lengths += valid
        return self._rows.close(env_steps, [self._ended(i) for i in ended])

    def close(self) -> None:
        """See VectorEnvironment.close."""
        for i, environment in enumerate(self._environments):
            with CALLS.within("close", i, self._rows), suppress(*RAISED):
                environment.close()

    def place(self, i: int) -> tuple[int, int]:
        """See VectorEnvironment.place."""
        return self._rows.place(i)

    def reset_copy(self, i: int, seed: int | None) -> None:
        """Reset one copy. Raises EnvironmentFailed."""
        answer: Any = NO_ANSWER
        before = CALLS.reset(self._rows, i)
        try:
            answer = self._environments[i].reset(seed=seed)
            observations, infos = answer
            check_mappings(observations, infos)
            names = list(self._environments[i].agents)
            self._enter(i, names)
            for agent, column in self.columns.items():
                if agent in names or observations.get(agent) is not None:
                    column.write(i, observations.get(agent))
                else:
                    column.clear(i)
            if not names:
                raise RuntimeError("reset left no agent in `agents`; an episode needs at least one")
        except RAISED as error:
            raise self._rows.failed(error, i, answer, resetting=True) from error
        finally:
            CALLS.method = before
        self._returns[:, i] = 0.0
        self._lengths[:, i] = 0

    def _change(self, i: int, observations: Any, gained: Any, terminations: Any, truncations: Any) -> None:
        """Note who died, left or appeared in the step that environment i just made."""
        now = list(self._environments[i].agents)
        before = self._names[i]
        left = []
        for agent in dict.fromkeys([*before, *now]):
            terminated = check_flag(terminations.get(agent, False), "terminated", agent)
            truncated = check_flag(truncations.get(agent, False), "truncated", agent)
            if agent in now and not (terminated or truncated):
                left.append(agent)
            if agent in before:
                place = self._places[agent]
                self._truncated[place, i] = truncated
                self._terminated[place, i] = terminated or (agent not in now and not truncated)
        self._enter(i, left)
        for agent in left:
            if agent in before:
                check_reward(gained.get(agent), agent)
            if agent not in before or observations.get(agent) is None:
                self.columns[agent].write(i, observations.get(agent))

    def _enter(self, i: int, names: list[str]) -> None:
        strangers = [agent for agent in names if agent not in self._places]
        if strangers:
            raise RuntimeError(f"agents {strangers} are not among possible_agents {list(self.agents)}")
        self._names[i] = names
        self._present[i] = [(agent, self._places[agent], self._writes[self._places[agent]]) for agent in names]

    def _ended(self, i: int) -> Episode:
        lengths = {agent: int(n) for agent, n in zip(self.agents, self._lengths[:, i], strict=True) if n}
        returns = {agent: float(self._returns[self._places[agent], i]) for agent in lengths}
        return self._rows.ended(i, returns, lengths)

    def _column(self, block: Array) -> Column:
        return dict(zip(self.agents, block, strict=True))
