"""Environments whose every episode is a drawn task: reset with it, judged at its end, replaced where one raises.

A task's body may have `seed` and `options` for `reset`, and `settings` for the constructor; what else it has is the
environment's maker's business.

Invariants: a task that was taken ends in one `outcome` or one `rollout_error`. An exception in an environment is its
task's: the copy goes on with another task, and the row in which it fell is not valid. A copy without a task makes rows
that are not valid, and counts no step and no episode.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from actors.curriculum.copies import Copy, GymCopy, ZooCopy
from actors.curriculum.drawn import DrawnTask, Tasks
from actors.curriculum.scoring import Played, Score
from actors.environments.gym import GymEnvironments
from actors.environments.load import builder
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import Array, Masks, Observations, Step
from actors.environments.zoo import ZooEnvironments
from actors.spaces import ActionSpec, ObservationSpec
from actors.worker_ids import WorkerIds
from broker.errors import RequestError


class TaskedEnvironments:
    """`VectorEnvironment` over copies that take their episodes from `tasks`. `wanting` copies have none."""

    kind: Literal["gymnasium", "pettingzoo"]

    def __init__(
        self,
        settings: EnvironmentSettings,
        count: int,
        seed: int,
        tasks: Tasks,
        score: Score,
        *,
        workers: WorkerIds | None = None,
    ) -> None:
        """Make `count` copies. RequestError, UnsupportedSpace among them, as `actors.environments.load.make`."""
        numbers = WorkerIds(0, count) if workers is None else workers

        def build(copy: int, own: Mapping[str, Any], slot: int) -> Any:
            with_own = settings.model_copy(update={"settings": {**settings.settings, **own}})
            return builder(with_own)(numbers.of(copy, slot))

        builds = [partial(build, copy) for copy in range(count)]
        environments = [build({}, 0) for build in builds]
        form: Callable[..., Copy] = ZooCopy if hasattr(environments[0], "possible_agents") else GymCopy
        self._copies: list[Copy] = [form(*pair, tasks) for pair in zip(environments, builds, strict=True)]
        inner: Any = (ZooEnvironments if form is ZooCopy else GymEnvironments)(
            self._copies, seed, settings.id, rescale=settings.rescale
        )
        self._inner = inner
        self.kind, self.agents, self.count = inner.kind, inner.agents, inner.count
        self.observation_spaces = inner.observation_spaces
        self.observation_specs: dict[str, ObservationSpec] = inner.observation_specs
        self.action_specs: dict[str, ActionSpec] = inner.action_specs
        self.observations: Observations = inner.observations
        self.masks: Masks = inner.masks
        self._tasks, self._score = tasks, score

    @property
    def wanting(self) -> int:
        """Copies that have no task now."""
        return sum(copy.void for copy in self._copies)

    def tend(self) -> bool:
        """Look after the stock, between two steps. False: no copy has a task, and there is none to take."""
        wanting = self.wanting
        self._tasks.tend(wanting)
        return wanting < self.count or self._tasks.stock > 0

    def fed(self) -> bool:
        """Whether there is something to play now; to be asked again and again while there is not."""
        return not self._tasks.hungry()

    def reset(self, seed: int | None = None) -> Observations:
        """See VectorEnvironment.reset."""
        found: Observations = self._inner.reset(seed)
        return found

    def step(self, actions: Mapping[str, Array]) -> Step:
        """See VectorEnvironment.step. RequestError: `curriculum.score` cannot judge this environment at all."""
        step: Step = self._inner.step(actions)
        episodes = []
        for episode in step.episodes:
            copy = self._copies[episode.environment]
            if copy.void:
                continue
            episodes.append(episode)
            drawn = copy.playing
            if drawn is not None:
                played = Played.of(drawn.label, drawn.body, episode, copy.info)
                self._judge(drawn, played)
                copy.playing = None
        env_steps = step.env_steps
        for i, copy in enumerate(self._copies):
            if copy.fell:
                copy.fell = False
                env_steps -= 1
                for agent in self.agents:
                    step.valid[agent][i] = step.terminated[agent][i] = step.truncated[agent][i] = False
                    step.rewards[agent][i] = 0.0
        return Step(
            step.observations,
            step.masks,
            step.rewards,
            step.terminated,
            step.truncated,
            step.valid,
            env_steps,
            episodes,
        )

    def place(self, i: int) -> tuple[int, int]:
        """See VectorEnvironment.place."""
        place: tuple[int, int] = self._inner.place(i)
        return place

    def close(self) -> None:
        """See VectorEnvironment.close."""
        self._inner.close()

    def _judge(self, drawn: DrawnTask, played: Played) -> None:
        try:
            score = self._score(played)
        except RequestError:
            raise
        except Exception:
            self._tasks.failed(drawn, traceback.format_exc(), permanent=False)
            return
        self._tasks.outcome(drawn, score)
