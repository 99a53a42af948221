"""Known tasks, played in turns by an evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from actors.curriculum.known import Known, KnownTasks
from actors.curriculum.scoring import Played
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.settings import EnvironmentSettings
from actors.playing import play_tasks
from broker.errors import RequestError
from tests.actors.test_tasked import Count, Two

BODIES: list[dict[str, Any]] = [
    {"options": {"steps": 2}}, {"options": {"steps": 4}}, {"options": {"fall": 2}}, {"options": {"door": "wrong"}},
]  # fmt: skip


class Still:
    """A policy that does nothing."""

    def act(self, seen: Any, mask: Any, *, deterministic: bool) -> tuple[Any, Any]:
        return np.zeros(len(next(iter(seen.values()))), np.int64), None


def quarter(played: Played) -> float:
    return played.return_mean / 4


def played(
    episodes: int, copies: int, form: type = Count, score: Callable[[Played], float] = quarter
) -> tuple[KnownTasks, list[int]]:
    """What came of the tasks, and how long the episodes were."""
    tasks = KnownTasks([Known(f"t{n}", f"label {n}", body) for n, body in enumerate(BODIES)], episodes, 1)
    settings = EnvironmentSettings(id=f"{form.__module__}:{form.__name__}")
    environment = TaskedEnvironments(settings, copies, 1, tasks, score)
    found = play_tasks(environment, {"p": Still()}, dict.fromkeys(environment.agents, "p"), tasks)  # type: ignore[dict-item]
    environment.close()
    return tasks, [episode.length for episode in found]


@pytest.mark.parametrize("form", [Count, Two])
def test_every_task_is_played_as_often_as_any_other(form: type) -> None:
    tasks, lengths = played(24, 5, form)
    assert tasks.scores == {"label 0": [0.5] * 6, "label 1": [1.0] * 6}
    assert tasks.failures == {"label 2": 6, "label 3": 6}
    assert tasks.trouble in {"RuntimeError: fell", "ValueError: the door"}
    assert {length: count for length, count in Counter(lengths).items() if length > 1} == {2: 6, 4: 6}


def test_more_copies_than_tasks_and_fewer_episodes_than_the_pool_has_tasks() -> None:
    tasks, _ = played(3, 8)
    given = Counter({label: len(scores) for label, scores in tasks.scores.items()}) + Counter(tasks.failures)
    assert given.total() == 3
    assert max(given.values()) == 1
    assert tasks.over
    assert tasks.take() is None


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_a_score_that_is_none_is_an_error_of_the_task(score: float) -> None:
    tasks, _ = played(8, 2, score=lambda played: score if played.label == "label 0" else quarter(played))
    assert tasks.scores == {"label 1": [1.0, 1.0]}
    assert tasks.failures == {"label 0": 2, "label 2": 2, "label 3": 2}


def test_a_score_that_raises_costs_its_task_and_one_that_cannot_be_is_a_mistake_of_the_run_file() -> None:
    def raising(played: Played) -> float:
        raise (RequestError("no such key") if played.label == "label 1" and wrong else KeyError("score"))

    wrong = False
    tasks, _ = played(4, 2, score=raising)
    assert tasks.failures == {f"label {n}": 1 for n in range(4)}
    wrong = True
    with pytest.raises(RequestError, match="no such key"):
        played(4, 2, score=raising)


def test_the_seed_decides_the_order() -> None:
    known = [Known(f"t{n}", "l", {}) for n in range(50)]

    def order(seed: int) -> list[str]:
        tasks = KnownTasks(known, 50, seed)
        return [drawn.task for drawn in iter(tasks.take, None)]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2)) == sorted(task.task for task in known)
