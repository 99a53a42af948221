"""A network of one's own: any `nn.Module` that gives action parameters and a value."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from actors.policies.distributions import distribution
from actors.spaces import ActionSpec, ObservationSpec


class Small(nn.Module):
    """One hidden layer over a plain observation; `width` comes from `policies.settings` of the run file."""

    def __init__(self, observation: ObservationSpec, action: ActionSpec, *, width: int = 32) -> None:
        super().__init__()
        (leaf,) = observation.leaves  # a Dict or Tuple space has several, and comes as a dict by leaf name
        self.trunk = nn.Sequential(nn.Linear(leaf.shape[0], width), nn.Tanh())
        self.head = nn.Linear(width, distribution(action).size)
        self.value = nn.Linear(width, 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Action parameters [..., k] and values [...] for observations [..., features]."""
        hidden = self.trunk(observations)
        return cast("Tensor", self.head(hidden)), cast("Tensor", self.value(hidden)).squeeze(-1)
