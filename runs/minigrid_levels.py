"""MiniGrid's own environments as the levels of one curriculum: the same view and the same seven actions in all of them.

The levels are environments that users know, from an empty room to mazes that are out of reach within a short run, and
they differ in what they cost: an episode that fails lasts as long as its environment allows.

Invariant: what is seen is what the environment shows (7 x 7 cells before the agent: object, colour, state), each number
written as one of its kind (one-hot), so that a dense network can read it; nothing is added or taken away.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

KINDS = (11, 6, 4)
"""Objects, colours and states that MiniGrid tells apart."""
_signs = [np.eye(count, dtype=np.float32) for count in KINDS]


class OneHot(gymnasium.ObservationWrapper[Any, Any, Any]):
    """The image of a MiniGrid environment as float32 [7 * 7 * 21]; its direction and mission are left out."""

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        super().__init__(environment)
        assert isinstance(environment.observation_space, spaces.Dict)
        cells = int(np.prod(environment.observation_space["image"].shape[:2]))  # type: ignore[index]
        self.observation_space = spaces.Box(0.0, 1.0, (cells * sum(KINDS),), np.float32)

    def observation(self, observation: Any) -> NDArray[np.float32]:
        """See gymnasium.ObservationWrapper."""
        image = observation["image"]
        parts = [signs[image[..., place]] for place, signs in enumerate(_signs)]
        return np.concatenate(parts, axis=-1).reshape(-1)


def level(name: str = "Empty-5x5", most_steps: int = 0) -> gymnasium.Env[Any, Any]:
    """`MiniGrid-NAME-v0`, seen as `OneHot`. `most_steps` ends an episode sooner than the environment would (0: never).

    Raises gymnasium.error.NameNotFound if MiniGrid has none of that name.
    """
    import minigrid  # noqa: F401  (registers its environments)

    environment = gymnasium.make(f"MiniGrid-{name}-v0", disable_env_checker=True)
    if most_steps:
        environment.unwrapped.max_steps = min(environment.unwrapped.max_steps, most_steps)  # type: ignore[attr-defined]
    return OneHot(environment)
