"""Environments with a `worker_id` parameter get different numbers, across all actors and tasks of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from actors.curriculum.copies import KEPT
from actors.curriculum.known import Known, KnownTasks
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.worker_ids import SLOTS, WorkerIds
from tests.actors.worlds import Relay, Steered

RUN = {"actors": {"processes": 2, "environments": 3}}


class Simulator(Steered):
    """Binds `worker_id`; AssertionError if a living one has it."""

    living: set[int] = set()  # noqa: RUF012
    seen: set[int] = set()  # noqa: RUF012

    def __init__(self, worker_id: int, level: int = 0) -> None:
        super().__init__()
        assert worker_id not in self.living
        self.living.add(worker_id)
        self.seen.add(worker_id)
        self.worker_id, self.level = worker_id, level

    def step(self, action: Any) -> Any:
        if self.level % 7 == 6:
            raise RuntimeError("the simulator fell")
        return super().step(action)

    def close(self) -> None:
        self.living.discard(self.worker_id)


class Parallel(Relay):
    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        super().__init__()


def parallel_env(worker_id: int = 5, keep: bool = False) -> ParallelEnv[str, Any, Any]:
    return Parallel(worker_id=worker_id, keep=keep)


def test_living_environments_have_numbers_of_their_own() -> None:
    settings, numbers = EnvironmentSettings(id=f"{__name__}:Simulator"), [WorkerIds.of_actor(RUN, n) for n in range(2)]
    bodies = [Known(f"t{n}", "label", {"settings": {"level": n % 23}}) for n in range(120)]
    both = [KnownTasks(bodies, 120, seed) for seed in range(2)]
    actors = [
        TaskedEnvironments(settings, 3, 1, tasks, lambda _: 0.5, workers=workers)
        for tasks, workers in zip(both, numbers, strict=True)
    ]
    assert Simulator.living == set(range(6))
    for environment, tasks in zip(actors, both, strict=True):
        environment.reset()
        while not tasks.over:
            environment.step({"agent": np.zeros((3, 2), np.float32)})
    used = {number.of(copy, slot) for number in numbers for copy in range(3) for slot in range(SLOTS)}
    assert KEPT < SLOTS
    assert Simulator.seen <= used
    others = {numbers[n].of_source(n) for n in range(2)}
    others |= {WorkerIds.of_evaluation(RUN, 32).of(copy) for copy in range(32)}
    assert len(others) == 34
    assert not others & used
    for environment in actors:
        environment.close()
    assert not Simulator.living


def test_a_number_is_given_only_to_those_who_ask() -> None:
    numbers = WorkerIds(first=6, copies=12)

    def given(name: str, **settings: Any) -> list[Any]:
        vector: Any = make(EnvironmentSettings(id=f"{__name__}:{name}", settings=settings), 2, workers=numbers)
        return [environment.settings for environment in vector._environments]

    assert given("Parallel") == [{}, {}]
    assert [each["worker_id"] for each in given("parallel_env")] == [6, 7]
    assert [each["worker_id"] for each in given("parallel_env", worker_id=3)] == [3, 3]


def test_a_registered_environment_is_asked_through_its_entry_point() -> None:
    import gymnasium

    gymnasium.register("tests/Simulator-v0", entry_point=f"{__name__}:Simulator")
    vector: Any = make(EnvironmentSettings(id="tests/Simulator-v0"), 2, workers=WorkerIds(20, 2))
    assert [environment.unwrapped.worker_id for environment in vector._environments] == [20, 21]
    vector.close()
