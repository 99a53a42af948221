"""Stable-Baselines3's PPO on CartPole-v1 with the settings that rl-zoo publishes for it.

Run by an interpreter that has stable-baselines3: `python sb3_cartpole.py --seed 1 --cap 120`. It stops when the mean
return over the last 100 episodes is 475. The last line of standard output is JSON: `solved_at` is a wall clock time.

The published budget is 1e5 steps, over which learning rate and clip range fall to zero; where the threshold is not
reached by then, they stay at a twentieth, so that the run may still get there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from typing import Any

import torch
from stable_baselines3 import PPO  # type: ignore[import-not-found]
from stable_baselines3.common.callbacks import BaseCallback  # type: ignore[import-not-found]
from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]

THRESHOLD, EPISODES = 475.0, 100
PLANNED = 100_000
FLOOR = 0.05


class Watch(BaseCallback):  # type: ignore[misc]
    """Stops at the threshold or at the cap."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.returns: deque[float] = deque(maxlen=EPISODES)
        self.cap = cap
        self.began = time.time()
        self.first: tuple[float, int] | None = None
        self.solved_at: float | None = None

    def _on_step(self) -> bool:
        now = time.time()
        if self.first is None:
            self.first = (now, self.num_timesteps)
        for info in self.locals["infos"]:
            if "episode" in info:
                self.returns.append(float(info["episode"]["r"]))
        if len(self.returns) == EPISODES and sum(self.returns) / EPISODES >= THRESHOLD:
            self.solved_at = now
            return False
        return now - self.began < self.cap


def main() -> None:
    """Train once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cap", type=float, default=120.0, help="seconds")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    watch = Watch(asked.cap)

    def falling(start: float) -> Any:
        return lambda _: start * max(FLOOR, 1.0 - watch.num_timesteps / PLANNED)

    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=asked.seed),
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gae_lambda=0.8,
        gamma=0.98,
        ent_coef=0.0,
        learning_rate=falling(0.001),
        clip_range=falling(0.2),
        seed=asked.seed,
        device="cpu",
    )
    model.learn(total_timesteps=100 * PLANNED, callback=watch)
    began, before = watch.first or (time.time(), 0)
    rate = (watch.num_timesteps - before) / max(time.time() - began, 1e-9)
    result = {"solved_at": watch.solved_at, "env_steps": watch.num_timesteps, "env_steps_per_second": rate}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
