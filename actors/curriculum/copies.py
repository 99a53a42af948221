"""One copy of an environment that plays drawn tasks, as the vector loops of `gym` and `zoo` step it.

Invariant: neither `reset` nor `step` raises for what a task's environment does, nor gives what the loop could not take
up (it is tried here, on columns of the copy's own); the copy is then *void*: it gives an observation of the right form,
and ends at its next step, so that the loop resets it again.
"""

from __future__ import annotations

import json
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np

from actors.conform import check_flag, check_mappings, check_reward
from actors.curriculum.drawn import DrawnTask, Tasks
from actors.environments.columns import AgentColumns
from actors.environments.vector import RAISED
from broker.errors import RequestError

Build = Callable[[Mapping[str, Any], int], Any]
KEPT = 16
"""Environments with settings of their own that a copy keeps for the next task that has the same."""
TRIES = 3
"""Tasks that one reset tries."""
UNFIT = (RequestError, ValueError, TypeError, LookupError, AssertionError, AttributeError)
"""What an environment raises in `reset` or its constructor for a task that will never be right."""


class Copy:
    """What both forms share: which task is played, in which environment."""

    def __init__(self, environment: Any, build: Build, tasks: Tasks) -> None:
        """`environment`, in slot 0, has no settings of a task; `build` makes those that have, in other slots."""
        self._build, self._tasks = build, tasks
        self._spaces = self._spaces_of(environment)
        self._environments: OrderedDict[str, Any] = OrderedDict({"{}": environment})
        self._slots = {"{}": 0}
        self._seeded: set[str] = set()
        self._random = np.random.default_rng(0)
        self._environment = environment
        self._key = "{}"
        self.playing: DrawnTask | None = None
        self.info: Mapping[str, Any] = {}
        """The last one."""
        self.void = True
        self.fell = False
        """The step just made is none: the copy was void, or its environment raised."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the next task's episode, or a void one. `seed` is where the copy's own seeds come from."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
            self._seeded.clear()
        self.playing = None
        for _ in range(TRIES):
            drawn = self._tasks.take()
            if drawn is None:
                break
            try:
                observation = self._begin(drawn.body)
            except RAISED as error:
                self._drop()
                self._tasks.failed(drawn, traceback.format_exc(), permanent=isinstance(error, UNFIT))
                continue
            self.playing, self.void = drawn, False
            return observation, {}
        self.void = True
        return self._nothing(), {}

    def close(self) -> None:
        """Close every environment; what one raises is dropped."""
        for environment in self._environments.values():
            with suppress(Exception):
                environment.close()

    def _begin(self, body: Mapping[str, Any]) -> Any:
        given: dict[str, Any] = {}
        if body.get("options") is not None:
            given["options"] = _of(body, "options", dict)
        own = _of(body, "settings", dict) if body.get("settings") is not None else {}
        self._choose(own)
        if body.get("seed") is not None:
            given["seed"] = _of(body, "seed", int)
            if given["seed"] < 0:
                raise ValueError(f"the task's seed is {given['seed']}: it must not be negative")
        elif self._key not in self._seeded:
            given["seed"] = int(self._random.integers(2**31))
        self._seeded.add(self._key)
        observation, self.info = self._environment.reset(**given)
        return observation

    def _choose(self, own: dict[str, Any]) -> None:
        """Take the environment with these settings, made if it is not there."""
        self._key = json.dumps(own, sort_keys=True)
        environment = self._environments.get(self._key)
        if environment is None:
            slot = next(slot for slot in count() if slot not in self._slots.values())
            try:
                environment = self._build(own, slot)
            except RAISED as error:
                if own:
                    raise
                raise RuntimeError(f"the environment could not be made again: {error}") from error  # no task's fault
            found = self._spaces_of(environment)
            if found != self._spaces:
                with suppress(Exception):
                    environment.close()
                raise ValueError(f"with settings {own} its spaces are {found}, not those of the run: {self._spaces}")
            self._environments[self._key] = environment
            self._slots[self._key] = slot
            if len(self._environments) > KEPT:
                key, oldest = self._environments.popitem(last=False)
                self._seeded.discard(key)
                del self._slots[key]
                with suppress(Exception):
                    oldest.close()
        self._environments.move_to_end(self._key)
        self._environment = environment

    def _fail(self) -> None:
        """The step raised: the task is over, and the environment is not trusted any more."""
        drawn, self.playing = self.playing, None
        self.void = self.fell = True
        self._drop()
        if drawn is not None:
            self._tasks.failed(drawn, traceback.format_exc(), permanent=False)

    def _drop(self) -> None:
        environment = self._environments.pop(self._key, None)
        self._slots.pop(self._key, None)
        self._seeded.discard(self._key)
        if environment is not None:
            with suppress(Exception):
                environment.close()

    def _spaces_of(self, environment: Any) -> Any:
        raise NotImplementedError

    def _nothing(self) -> Any:
        raise NotImplementedError


class GymCopy(Copy):
    """A Gymnasium environment."""

    def __init__(self, environment: Any, build: Build, tasks: Tasks) -> None:
        super().__init__(environment, build, tasks)
        self.observation_space, self.action_space = environment.observation_space, environment.action_space
        self._blank = self.observation_space.sample()
        self._try = AgentColumns("agent", self.observation_space, self.action_space, 1).write

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; of a void copy the end."""
        if not self.void:
            try:
                observation, reward, terminated, truncated, self.info = self._environment.step(action)
                check_mappings(self.info)
                self._try(0, observation)
                flags = check_flag(terminated, "terminated"), check_flag(truncated, "truncated")
                return observation, check_reward(reward), *flags, {}
            except RAISED:
                self._fail()
        self.fell = True
        return self._blank, 0.0, False, True, {}

    def _begin(self, body: Mapping[str, Any]) -> Any:
        observation = super()._begin(body)
        check_mappings(self.info)
        self._try(0, observation)
        return observation

    def _spaces_of(self, environment: Any) -> Any:
        return environment.observation_space, environment.action_space

    def _nothing(self) -> Any:
        return self._blank


class ZooCopy(Copy):
    """A PettingZoo parallel environment."""

    def __init__(self, environment: Any, build: Build, tasks: Tasks) -> None:
        super().__init__(environment, build, tasks)
        self.possible_agents = list(environment.possible_agents)
        self._observation_spaces = {agent: environment.observation_space(agent) for agent in self.possible_agents}
        self._action_spaces = {agent: environment.action_space(agent) for agent in self.possible_agents}
        self._blank = {agent: space.sample() for agent, space in self._observation_spaces.items()}
        self._tries = {
            agent: AgentColumns(agent, self._observation_spaces[agent], self._action_spaces[agent], 1).write
            for agent in self.possible_agents
        }
        self.agents = list(self.possible_agents)

    def observation_space(self, agent: str) -> Any:
        """See ParallelEnv."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        """See ParallelEnv."""
        return self._action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See Copy.reset."""
        found = super().reset(seed, options)
        self.agents = list(self.possible_agents if self.void else self._environment.agents)
        return found

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """One step; of a void copy the end."""
        if not self.void:
            try:
                observations, rewards, terminated, truncated, self.info = self._environment.step(actions)
                check_mappings(observations, rewards, terminated, truncated, self.info)
                agents = self._agents(observations)
                gained = {agent: check_reward(reward, agent) for agent, reward in rewards.items()}
                ends = [
                    {agent: check_flag(over, name, agent) for agent, over in flags.items()}
                    for name, flags in (("terminated", terminated), ("truncated", truncated))
                ]
                staying = [agent for agent in agents if not any(flags.get(agent) for flags in ends)]
                for agent in staying:
                    if agent in self.agents:
                        check_reward(gained.get(agent), agent)
                    self._tries[agent](0, observations.get(agent))
                self.agents = agents
                return observations, gained, *ends, {}
            except RAISED:
                self._fail()
        self.fell = True
        acting, self.agents = self.agents, []
        return {}, {}, {}, dict.fromkeys(acting, True), {}

    def _begin(self, body: Mapping[str, Any]) -> Any:
        observations = super()._begin(body)
        check_mappings(observations, self.info)
        agents = self._agents(observations)
        if not agents:
            raise RuntimeError("reset left no agent in `agents`; an episode needs at least one")
        for agent in agents:
            self._tries[agent](0, observations.get(agent))
        return observations

    def _agents(self, observations: Mapping[str, Any]) -> list[str]:
        """Who acts now; what they see has the form that it should have."""
        agents = list(self._environment.agents)
        strangers = [agent for agent in agents if agent not in self._tries]
        if strangers:
            raise RuntimeError(f"agents {strangers} are not among possible_agents {self.possible_agents}")
        for agent, observation in observations.items():
            if observation is not None and agent in self._tries:
                self._tries[agent](0, observation)
        return agents

    def _spaces_of(self, environment: Any) -> Any:
        return {
            agent: (environment.observation_space(agent), environment.action_space(agent))
            for agent in environment.possible_agents
        }

    def _nothing(self) -> Any:
        return self._blank


def _of(body: Mapping[str, Any], key: str, kind: type) -> Any:
    value = body[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"the task's {key} must be {kind.__name__}, not {type(value).__name__}")
    return value
