"""Sample Factory's APPO on CartPole-v1, tuned for a machine of two cores.

Run by an interpreter that has sample-factory: `python sample_factory_cartpole.py --seed 1 --cap 120 --folder DIR`. It
stops when the mean return over the last 100 episodes is 475. The last line of standard output is JSON: `solved_at` is a
wall clock time. It starts from Sample Factory's own example for this environment (`sf_examples.train_gym_env`), with
batched sampling in two workers, no start delay between them, and an MLP of 64 x 64.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from typing import Any

import gymnasium
from sample_factory.algo.runners.runner import AlgoObserver  # type: ignore[import-not-found]
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args  # type: ignore[import-not-found]
from sample_factory.envs.env_utils import register_env  # type: ignore[import-not-found]
from sample_factory.train import make_runner  # type: ignore[import-not-found]

THRESHOLD, EPISODES = 475.0, 100
SETTINGS = {
    "algo": "APPO",
    "env": "CartPole-v1",
    "experiment": "cartpole",
    "device": "cpu",
    "serial_mode": False,
    "async_rl": True,
    "batched_sampling": True,
    "num_workers": 2,
    "num_envs_per_worker": 16,
    "worker_num_splits": 2,
    "decorrelate_experience_max_seconds": 0,
    "decorrelate_envs_on_one_worker": False,
    "rollout": 32,
    "batch_size": 256,
    "num_batches_per_epoch": 4,
    "num_epochs": 4,
    "use_rnn": False,
    "recurrence": 1,
    "encoder_mlp_layers": [64, 64],
    "nonlinearity": "tanh",
    "learning_rate": 0.002,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "with_vtrace": False,
    "exploration_loss_coeff": 0.0,
    "normalize_input": False,
    "normalize_returns": False,
    "value_loss_coeff": 0.5,
    "max_grad_norm": 0.5,
    "reward_scale": 0.1,
    "stats_avg": EPISODES,
    "save_every_sec": 3600,
    "experiment_summaries_interval": 30,
    "train_for_env_steps": 1_000_000_000,
    "with_wandb": False,
}


class Watch(AlgoObserver):  # type: ignore[misc]
    """Stops the runner at the threshold or at the cap."""

    def __init__(self, cap: float) -> None:
        self.cap = cap
        self.began = time.time()
        self.returns: deque[float] = deque(maxlen=EPISODES)
        self.told: list[tuple[float, int]] = []
        self.solved_at: float | None = None

    def on_episodes(self, runner: Any, message: dict[str, Any], _: int) -> None:
        """Episodes that ended: one return, or an array of them."""
        given = message["episodic"]["reward"]
        self.returns.extend(given.tolist() if getattr(given, "ndim", 0) else [float(given)])
        if self.solved_at is None and len(self.returns) == EPISODES and sum(self.returns) / EPISODES >= THRESHOLD:
            self.solved_at = time.time()
            runner._stop_training()  # noqa: SLF001 - there is no other way to end it from here

    def on_training_step(self, runner: Any, training_iteration_since_resume: int) -> None:
        """After every batch."""
        self.told.append((time.time(), sum(runner.env_steps.values())))
        if time.time() - self.began > self.cap:
            runner._stop_training()  # noqa: SLF001


def make_environment(name: str, *_: Any, **__: Any) -> Any:
    """One CartPole; settings of environments, which Sample Factory hands over as well, are not needed."""
    return gymnasium.make(name)


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cap", type=float, default=120.0, help="seconds")
    parser.add_argument("--folder", required=True, help="where Sample Factory writes")
    asked = parser.parse_args()
    register_env("CartPole-v1", make_environment)
    arguments = []
    for name, value in {**SETTINGS, "seed": asked.seed, "train_dir": asked.folder}.items():
        arguments += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
    sf_parser, _ = parse_sf_args(arguments)
    cfg = parse_full_cfg(sf_parser, arguments)
    cfg, runner = make_runner(cfg)
    watch = Watch(asked.cap)
    runner.register_observer(watch)
    runner.register_episodic_stats_handler(watch.on_episodes)
    if runner.init() == 0:
        runner.run()
    (began, before), (ended, after) = (watch.told[0], watch.told[-1]) if watch.told else ((0.0, 0), (1.0, 0))
    rate = (after - before) / max(ended - began, 1e-9)
    result = {"solved_at": watch.solved_at, "env_steps": after, "env_steps_per_second": rate}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
