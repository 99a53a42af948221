"""CartPole with its physics as the level: the force, the pole, gravity and time of Gymnasium's `CartPole-v1`.

What is easy with a long pole and a strong cart is hard with a short one, and cannot be done at all with a cart too
weak to catch what falls. One policy is asked to balance all of them.

Invariant: the physics, the start and the reward are Gymnasium's own; what is seen is the four numbers of the cart and
the pole, and behind them the level itself.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

FORCE, LENGTH, GRAVITY, TAU = 10.0, 0.5, 9.8, 0.02
"""Newtons of a push; half the pole's length, m; m/s²; seconds of a step. As `CartPole-v1` has them."""


class Seen(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Float32 [8]: cart's place and speed, pole's angle and speed, then for force, length, gravity and time the natural
    logarithm of how many times the usual value it is.
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], ratios: tuple[float, ...]) -> None:
        super().__init__(environment)
        self._level = np.log(np.asarray(ratios, np.float32))
        self.observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """See gymnasium.ObservationWrapper."""
        return np.concatenate([observation, self._level])


def level(
    force: float = FORCE, length: float = LENGTH, gravity: float = GRAVITY, tau: float = TAU, most_steps: int = 500
) -> gymnasium.Env[Any, Any]:
    """`CartPole-v1` with these physics, for at most `most_steps` steps; seen as `Seen`.

    Raises ValueError for a value that is no positive number.
    """
    asked = {"force": force, "length": length, "gravity": gravity, "tau": tau}
    for name, value in asked.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: it must be a positive number")
    environment = gymnasium.make("CartPole-v1", max_episode_steps=most_steps, disable_env_checker=True)
    pole: Any = environment.unwrapped
    pole.force_mag, pole.length, pole.gravity, pole.tau = force, length, gravity, tau
    pole.polemass_length = pole.masspole * length
    return Seen(environment, (force / FORCE, length / LENGTH, gravity / GRAVITY, tau / TAU))
