"""Networks: from observations to action parameters and a value.

The contract, which a user's own `nn.Module` fulfils too ("package.module:Network" in the run file):

    Network(observation: ObservationSpec, action: ActionSpec, **settings)
    forward(observations: Tensor | dict[str, Tensor]) -> (action parameters [..., k], value [...])

with the leading dimensions of the observations (one or two of them); a plain space comes as a Tensor, a composite one
as a dict by leaf name; k is `distribution(action).size`. Invariant: all that acting depends on, moments of
observations included, is in the state dict, so that a version is complete.

A module may have `normaliser`, a `Normaliser`, with `features(observations)`: what [n, width] of each batch it is to
observe; and `dense_actor()`, the action head as plain dense layers, which lets a policy act without torch (see
`actors.policies.policy`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from actors.policies.dense import Activation, dense
from actors.policies.distributions import distribution
from actors.spaces import ActionSpec, Leaf, ObservationSpec
from broker.errors import UnsupportedSpace

Observations = Tensor | dict[str, Tensor]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """`layer` with an orthogonal weight and a zero bias, as in CleanRL's PPO (Huang et al. 2022, detail 2)."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def flat_width(leaf: Leaf) -> int:
    """Features that `flatten` gives for a leaf: its elements, or n of them (one hot) for a discrete one."""
    return int(leaf.n or 0) if leaf.kind == "discrete" else math.prod(leaf.shape)


def flatten(leaf: Leaf, value: Tensor) -> Tensor:
    """One leaf [..., *shape] as float32 features [..., flat_width]."""
    if leaf.kind == "discrete":
        return F.one_hot(value.long(), int(leaf.n or 0)).float()
    return value.reshape(*value.shape[: value.dim() - len(leaf.shape)], flat_width(leaf)).float()


def leaf_values(leaves: Sequence[Leaf], observations: Observations) -> list[Tensor]:
    """The leaves of an observation batch, in the order of the spec."""
    if isinstance(observations, Tensor):
        return [observations]
    return [observations[leaf.name] for leaf in leaves]


class Normaliser(nn.Module):
    """Running mean and variance of features, by Chan et al.'s parallel update; inputs are clipped to ±10 deviations."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, features: Tensor) -> None:
        """Take a batch [n, width] into the moments."""
        rows = features.shape[0]
        if rows == 0:
            return
        total = self.count + rows
        share = (rows / total).to(self.mean)
        mean, variance = features.mean(0), features.var(0, correction=0)
        delta = mean - self.mean
        self.variance.mul_(1 - share).add_(share * variance).add_(share * (1 - share) * delta.square())
        self.mean.add_(share * delta)
        self.count.copy_(total)

    def forward(self, features: Tensor) -> Tensor:
        """Features of about zero mean and unit variance."""
        return ((features - self.mean) * torch.rsqrt(self.variance + 1e-8)).clamp(-10.0, 10.0)


class ActionHead(nn.Module):
    """The last layer: logits, or a mean beside a log standard deviation that no observation changes."""

    def __init__(self, width: int, action: ActionSpec) -> None:
        super().__init__()
        size = distribution(action).size
        self.log_std: nn.Parameter | None = None
        if action.kind == "box":
            size //= 2
            self.log_std = nn.Parameter(torch.zeros(size))
        self.layer = orthogonal(nn.Linear(width, size), 0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Action parameters [..., k] for features [..., width]."""
        return self.complete(self.layer(features))

    def complete(self, out: Tensor) -> Tensor:
        """Action parameters [..., k] for what the layer gave."""
        return out if self.log_std is None else torch.cat([out, self.log_std.expand_as(out)], -1)


class Mlp(nn.Module):
    """Dense layers over the flattened leaves, with separate trunks for actor and critic unless `shared`."""

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "tanh",
        shared: bool = False,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if activation not in get_args(Activation):
            raise TypeError(f"activation {activation!r} is none of {', '.join(get_args(Activation))}")
        self.leaves = observation.leaves
        self.activation = activation
        width = sum(map(flat_width, self.leaves))
        self.normaliser = Normaliser(width) if normalise else None
        self.actor = _trunk(width, hidden)
        self.critic = None if shared else _trunk(width, hidden)
        last = hidden[-1] if hidden else width
        self.head = ActionHead(last, action)
        self.value = orthogonal(nn.Linear(last, 1), 1.0)

    def features(self, observations: Observations) -> Tensor:
        """The network's input [..., width], before normalisation."""
        flat = [flatten(leaf, v) for leaf, v in zip(self.leaves, leaf_values(self.leaves, observations), strict=True)]
        return flat[0] if len(flat) == 1 else torch.cat(flat, -1)

    def forward(self, observations: Observations) -> tuple[Tensor, Tensor]:
        """See the module's contract."""
        features = self.features(observations)
        if self.normaliser is not None:
            features = self.normaliser(features)
        if self.critic is None:
            hidden = dense(features, [*self.actor], self.activation, ends_linear=False)
            return self.head(hidden), dense(hidden, [self.value], self.activation, ends_linear=True).squeeze(-1)
        acting = dense(features, [*self.actor, self.head.layer], self.activation, ends_linear=True)
        values = dense(features, [*self.critic, self.value], self.activation, ends_linear=True)
        return self.head.complete(acting), values.squeeze(-1)

    def dense_actor(self) -> tuple[list[tuple[Tensor, Tensor]], Activation] | None:
        """(weight [out, in], bias [out]) of each layer from the features to the logits; None with a Gaussian head."""
        if self.head.log_std is not None:
            return None
        layers = cast("list[nn.Linear]", [*self.actor, self.head.layer])
        return [(layer.weight, layer.bias) for layer in layers], self.activation


class NatureCnn(nn.Module):
    """The convolutions of Mnih et al. 2015 ("Nature DQN") over one image leaf; other leaves join before the heads.

    The image is uint8, scaled by 255 (float images pass as they are); [H, W, C] when its last axis is the smallest,
    else [stack, H, W] as Atari's frame stacks have it, also with a last axis of 1 ([stack, H, W, 1]).
    """

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        self.leaves = observation.leaves
        images = [i for i, leaf in enumerate(self.leaves) if leaf.kind == "box" and len(leaf.shape) in {3, 4}]
        if len(images) != 1:
            raise UnsupportedSpace(
                f"network 'cnn' needs exactly one image (a Box of 3 dimensions), found {len(images)}; use 'mlp', or a "
                'network of your own (policies.network = "package.module:Network")'
            )
        self.image = images[0]
        shape = self.leaves[self.image].shape
        size: tuple[int, ...]
        if len(shape) == 4:  # [stack, H, W, C] → channels stack x C
            self.channels_last, channels, size = False, shape[0] * shape[3], shape[1:3]
        else:
            self.channels_last = shape[2] < shape[0]
            channels, size = (shape[2], shape[0:2]) if self.channels_last else (shape[0], shape[1:3])
        if min(size) < 36:
            raise UnsupportedSpace(f"network 'cnn' needs images of at least 36 x 36 pixels, not {size[0]} x {size[1]}")
        gain = math.sqrt(2.0)
        self.trunk = nn.Sequential(
            orthogonal(nn.Conv2d(channels, 32, 8, 4), gain),
            nn.ReLU(),
            orthogonal(nn.Conv2d(32, 64, 4, 2), gain),
            nn.ReLU(),
            orthogonal(nn.Conv2d(64, 64, 3, 1), gain),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            width = int(self.trunk(torch.zeros(1, channels, *size)).shape[1])
        width += sum(flat_width(leaf) for i, leaf in enumerate(self.leaves) if i != self.image)
        self.dense = nn.Sequential(orthogonal(nn.Linear(width, hidden), gain), nn.ReLU())
        self.head = ActionHead(hidden, action)
        self.value = orthogonal(nn.Linear(hidden, 1), 1.0)

    def forward(self, observations: Observations) -> tuple[Tensor, Tensor]:
        """See the module's contract."""
        values = leaf_values(self.leaves, observations)
        pixels = values[self.image]
        leading = pixels.shape[: pixels.dim() - len(self.leaves[self.image].shape)]
        pixels = pixels.reshape(-1, *pixels.shape[len(leading) :])
        pixels = pixels.float().mul_(1 / 255) if pixels.dtype == torch.uint8 else pixels.float()
        if pixels.dim() == 5:
            pixels = pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)
        elif self.channels_last:
            pixels = pixels.permute(0, 3, 1, 2)
        features = self.trunk(pixels).reshape(*leading, -1)
        others = [flatten(leaf, values[i]) for i, leaf in enumerate(self.leaves) if i != self.image]
        hidden = self.dense(torch.cat([features, *others], -1) if others else features)
        return self.head(hidden), self.value(hidden).squeeze(-1)


def _trunk(width: int, hidden: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(orthogonal(nn.Linear(i, o), math.sqrt(2.0)) for i, o in pairwise((width, *hidden)))
