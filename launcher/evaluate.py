"""`headrace evaluate`: plays what a run has trained and reports returns with an interval.

Invariant: the environments' seeds are not those of training, and follow from the run's seed alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.playing import interval, play, returns_of
from broker.errors import RequestError
from launcher.loading import load

APART = 2_000_003
"""Added to the run's seed: an actor's seeds are 1,000,003 times it, plus its index."""
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
    "interval": [low, high] of 95%, "return_min", "return_max", "episodes"}}}.
    """
    import torch

    torch.set_num_threads(1)
    run = load(run_dir)
    plan = run.plan
    if plan.run.environment is None:
        raise RequestError(f"{run.directory}: its policies act on tasks, not in an environment; see `headrace summary`")
    if policy is not None and policy not in plan.policies:
        raise RequestError(f"--policy {policy}: this run has {', '.join(plan.policies)}")
    seed = plan.run.seed + APART
    loaded = {name: run.policy(name, seed=seed) for name in plan.policies}
    environment = plan.run.environment
    shown = {"render_mode": "human"} if render else {}
    settings = EnvironmentSettings(id=environment.id, settings={**environment.settings, **shown})
    played_by = make(settings, 1 if render else min(AT_ONCE, episodes), seed)
    try:
        played = play(
            played_by,
            {name: one.acting for name, one in loaded.items()},
            plan.agents,
            episodes,
            deterministic=deterministic,
        )
    finally:
        played_by.close()
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
    }
