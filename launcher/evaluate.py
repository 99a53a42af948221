"""`headrace evaluate`: plays what a run has trained and reports returns with an interval.

Invariant: the environments' seeds are not those of training, and follow from the run's seed alone. Where episodes are
drawn tasks, those of the pool are played in turns, whatever was drawn in training; a seed that a task has is its own.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from actors.curriculum.known import Known, KnownTasks
from actors.curriculum.scoring import scorer
from actors.curriculum.settings import DrawingSettings
from actors.curriculum.tasked import TaskedEnvironments
from actors.environments.calls import EnvironmentWatch
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.playing import interval, play, play_tasks, returns_of
from actors.seeds import evaluation_seed, policy_seed
from actors.worker_ids import WorkerIds
from broker.errors import RequestError
from broker.watchdog import watch_calls
from launcher.loading import load
from tracker.curriculum.pool import Curriculum
from tracker.reader import LEDGER, LedgerReader
from tracker.standard import standard_folds

AT_ONCE = 32


def evaluate(
    run_dir: Path,
    episodes: int = 100,
    deterministic: bool = False,
    policy: str | None = None,
    render: bool = False,
) -> dict[str, Any]:
    """Play `episodes` episodes with the newest checkpoints. RequestError if there is nothing to play.

    Returns {"run", "episodes", "deterministic", "return_mean", "policies": {name: {"version", "return_mean",
    "interval": [low, high] of 95%, "return_min", "return_max", "episodes"}}}; of drawn tasks also "tasks": {"pool",
    "score_mean", "interval", "failed", "trouble", "labels": {label: {"episodes", "score_mean", "failed"}}}.
    """
    import torch

    torch.set_num_threads(1)
    run = load(run_dir)
    plan = run.plan
    if plan.run.environment is None:
        raise RequestError(f"{run.directory}: its policies act on tasks, not in an environment; see `headrace summary`")
    if policy is not None and policy not in plan.policies:
        raise RequestError(f"--policy {policy}: this run has {', '.join(plan.policies)}")
    seed = evaluation_seed(plan.run.seed)
    loaded = {name: run.policy(name, seed=policy_seed(seed, place)) for place, name in enumerate(plan.policies)}
    settings = EnvironmentSettings.of(plan.run.to_plain()).model_copy(update={"vector": False})
    if render:
        settings = settings.model_copy(update={"settings": {**settings.settings, "render_mode": "human"}})
    copies = 1 if render else min(AT_ONCE, episodes)
    watch_calls(EnvironmentWatch(plan.run.environment.model_dump()))
    acting = {name: one.acting for name, one in loaded.items()}
    told: dict[str, Any] = {}
    workers = WorkerIds.of_evaluation(plan.run.to_plain(), copies)
    if plan.run.curriculum is None or plan.run.actors.rollout != "environments":
        with closing(make(settings, copies, seed, workers)) as environments:
            played = play(environments, acting, plan.agents, episodes, deterministic=deterministic)
    else:
        known = pooled(run.directory)
        tasks = KnownTasks(known, episodes, seed)
        score = scorer(DrawingSettings.read(plan.run.to_plain()["curriculum"]))
        with closing(TaskedEnvironments(settings, copies, seed, tasks, score, workers=workers)) as tasked:
            played = play_tasks(tasked, acting, plan.agents, tasks, deterministic=deterministic)
        told["tasks"] = _told(tasks, len(known))
        if not played:
            raise RequestError(f"{run.directory}: none of its tasks can be played; the last one: {tasks.trouble}")
    policies = {}
    for name in plan.policies if policy is None else [policy]:
        returns = returns_of(played, plan.agents, name)
        if not returns:
            continue
        policies[name] = {
            "version": list(loaded[name].version),
            "return_mean": sum(returns) / len(returns),
            "interval": list(interval(returns)),
            "return_min": min(returns),
            "return_max": max(returns),
            "episodes": len(returns),
        }
    means = [sum(episode.returns.values()) / len(episode.returns) for episode in played]
    return {
        "run": plan.run.name,
        "directory": str(run.directory),
        "episodes": len(played),
        "deterministic": deterministic,
        "return_mean": sum(means) / len(means),
        "interval": list(interval(means)),
        "policies": policies,
        **told,
    }


def pooled(run_dir: Path) -> list[Known]:
    """The tasks in the run's pool, as its ledger has them. RequestError if there are none."""
    folds = standard_folds()
    with LedgerReader(run_dir / LEDGER) as ledger:
        folds.restore(ledger)
    pool = folds.folds["curriculum"]
    assert isinstance(pool, Curriculum)
    if not pool.entries:
        raise RequestError(f"{run_dir}: there is no task in its pool to be played; see `headrace summary`")
    return [Known(entry.name, entry.label, json.loads(entry.body)) for entry in pool.entries.values()]


def _told(tasks: KnownTasks, pool: int) -> dict[str, Any]:
    """What came of the tasks, label by label."""
    scores = [score for own in tasks.scores.values() for score in own]
    labels = {
        label: {
            "episodes": len(tasks.scores.get(label, ())),
            "score_mean": _mean(tasks.scores.get(label, [])),
            "failed": tasks.failures.get(label, 0),
        }
        for label in sorted(tasks.scores.keys() | tasks.failures.keys())
    }
    return {
        "pool": pool,
        "score_mean": _mean(scores),
        "interval": list(interval(scores)) if scores else None,
        "failed": sum(tasks.failures.values()),
        "trouble": tasks.trouble,
        "labels": labels,
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
