"""Action distributions: sampled in numpy where policies act, evaluated in torch where they learn.

A network's action parameters [B, size] are logits (discrete; multi-discrete: one group after another) or a mean and a
log standard deviation side by side (box). Acting uses numpy because batches are small there: inverse-CDF sampling of
48 x 5 logits takes 12 µs, `torch.multinomial` and its log-probability 37 µs. Invariant: for the same parameters, action
and mask both sides give the same log-probability (to float32 rounding).

Masks are bool [B, sum of choices], True where an action is allowed; a row or group that allows nothing is treated as if
it allowed everything, so that the rows of dead agents stay finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from actors.spaces import ActionSpec
from broker.errors import UnsupportedSpace

Array = np.ndarray[Any, Any]

FORBIDDEN = -1e9
"""Logit of a masked action: finite, so that a row with nothing allowed is uniform and not NaN."""
LOG_STD_RANGE = (-10.0, 2.0)
"""Bounds of the Gaussian's log standard deviation: a runaway width shows as a plateau, not as an overflow."""
HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Distribution(Protocol):
    """What a policy and an algorithm need of an action space."""

    size: int
    """Action parameters per row that the network must give."""

    def sample(
        self, parameters: Array, random: np.random.Generator, masks: Array | None, deterministic: bool
    ) -> tuple[Array, Array]:
        """Actions [B, ...] and their log-probabilities float32 [B]; the most probable ones when `deterministic`."""
        ...

    def evaluate(self, parameters: Tensor, actions: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log-probabilities [B] of `actions` and entropies [B], in nats, differentiable by `parameters`."""
        ...


class Categorical:
    """One choice of n: actions int64 [B]."""

    def __init__(self, choices: int) -> None:
        self.size = choices

    def sample(
        self, parameters: Array, random: np.random.Generator, masks: Array | None, deterministic: bool
    ) -> tuple[Array, Array]:
        """See `Distribution.sample`."""
        return _sample_group(parameters, random, masks, deterministic)

    def evaluate(self, parameters: Tensor, actions: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Distribution.evaluate`."""
        return _evaluate_group(parameters, actions, masks)


class MultiCategorical:
    """Several independent choices: actions int64 [B, len(nvec)]."""

    def __init__(self, nvec: Sequence[int]) -> None:
        self.nvec = list(nvec)
        self.size = sum(nvec)
        self._bounds = np.cumsum(nvec)[:-1].tolist()

    def sample(
        self, parameters: Array, random: np.random.Generator, masks: Array | None, deterministic: bool
    ) -> tuple[Array, Array]:
        """See `Distribution.sample`."""
        groups = np.split(parameters, self._bounds, axis=-1)
        allowed = [None] * len(groups) if masks is None else np.split(masks, self._bounds, axis=-1)
        drawn = [_sample_group(group, random, mask, deterministic) for group, mask in zip(groups, allowed, strict=True)]
        actions = np.stack([action for action, _ in drawn], axis=-1)
        return actions, np.add.reduce([logp for _, logp in drawn])

    def evaluate(self, parameters: Tensor, actions: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Distribution.evaluate`."""
        groups = torch.split(parameters, self.nvec, dim=-1)
        allowed = [None] * len(groups) if masks is None else torch.split(masks, self.nvec, dim=-1)
        scored = [
            _evaluate_group(group, actions[..., i], mask)
            for i, (group, mask) in enumerate(zip(groups, allowed, strict=True))
        ]
        return torch.stack([logp for logp, _ in scored]).sum(0), torch.stack([entropy for _, entropy in scored]).sum(0)


class DiagonalGaussian:
    """Real actions float32 [B, *shape], unbounded: whoever steps the environment clips them to the box.

    The log-probability is that of the unclipped action, which is also what a fragment stores.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.dimensions = math.prod(shape)
        self.size = 2 * self.dimensions

    def sample(
        self,
        parameters: Array,
        random: np.random.Generator,
        masks: Array | None,
        deterministic: bool,
    ) -> tuple[Array, Array]:
        """See `Distribution.sample`."""
        mean = parameters[:, : self.dimensions]
        log_std = np.clip(parameters[:, self.dimensions :], *LOG_STD_RANGE)
        noise = np.zeros_like(mean) if deterministic else random.standard_normal(mean.shape, dtype=np.float32)
        actions = mean + np.exp(log_std) * noise
        logp = -(0.5 * noise * noise + log_std + HALF_LOG_TAU).sum(-1)
        return actions.reshape(-1, *self.shape), logp.astype(np.float32, copy=False)

    def evaluate(
        self,
        parameters: Tensor,
        actions: Tensor,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """See `Distribution.evaluate`."""
        mean, log_std = parameters.chunk(2, dim=-1)
        log_std = log_std.clamp(*LOG_STD_RANGE)
        noise = (actions.reshape(mean.shape) - mean) * torch.exp(-log_std)
        logp = -(0.5 * noise.square() + log_std + HALF_LOG_TAU).sum(-1)
        return logp, (log_std + 0.5 + HALF_LOG_TAU).sum(-1)


def distribution(action: ActionSpec) -> Distribution:
    """The distribution over an action space. Raises UnsupportedSpace for a kind that none here covers."""
    if action.kind == "discrete":
        return Categorical(action.nvec[0])
    if action.kind == "multi_discrete":
        return MultiCategorical(tuple(action.nvec))
    if action.kind == "box":
        return DiagonalGaussian(tuple(action.shape))
    raise UnsupportedSpace(f"no policy can act in an action space of kind {action.kind!r}")


def _sample_group(
    logits: Array, random: np.random.Generator, masks: Array | None, deterministic: bool
) -> tuple[Array, Array]:
    """One categorical choice per row, by inverting the cumulative distribution."""
    if masks is not None:
        logits = np.where(masks, logits, np.float32(FORBIDDEN))
    logits = logits - np.maximum.reduce(logits, -1, keepdims=True)
    cumulative = np.add.accumulate(np.exp(logits), -1)
    total = cumulative[:, -1]
    rows = len(logits)
    if deterministic:
        actions = logits.argmax(-1)
    else:
        # u lies in (0, total]: the first entry whose cumulative sum reaches it is never one of probability zero.
        threshold = (1.0 - random.random(rows, dtype=np.float32)) * total
        actions = np.add.reduce(cumulative < threshold[:, None], -1)
    return actions, logits[np.arange(rows), actions] - np.log(total)


def _evaluate_group(logits: Tensor, actions: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
    if masks is not None:
        logits = logits.masked_fill(~masks, FORBIDDEN)
    if logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.dim() == 2:
        return cast("tuple[Tensor, Tensor]", _Score.apply(logits, actions))  # type: ignore[no-untyped-call]
    logp = torch.log_softmax(logits, -1)
    chosen = logp.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    # At a masked action p is exactly 0 and logp finite, so p * logp adds nothing and its gradient is finite.
    return chosen, -(logp.exp() * logp).sum(-1)


class _Score(torch.autograd.Function):
    """Log-probability and entropy of a categorical choice as one node, in numpy with the choices as rows.

    Torch's log_softmax takes one short row at a time: 800 x 5 with entropy and gradient cost 300 µs, here 60.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        columns = np.ascontiguousarray(logits.detach().numpy().T)
        columns -= np.maximum.reduce(columns, 0)
        probabilities = np.exp(columns)
        total = np.add.reduce(probabilities, 0)
        columns -= np.log(total)
        probabilities /= total
        entropy = -np.add.reduce(probabilities * columns, 0)
        chosen = actions.numpy(), np.arange(len(total))
        ctx.kept = columns, probabilities, entropy, chosen
        return torch.from_numpy(columns[chosen]), torch.from_numpy(entropy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logp: Tensor, by_entropy: Tensor) -> tuple[Tensor, None]:
        logp, probabilities, entropy, chosen = ctx.kept
        slope = by_logp.numpy()
        # d log p[a] / d z = 1[a] - p and d H / d z = -p (log p + H)
        out = (logp + entropy) * -by_entropy.numpy()
        out -= slope
        out *= probabilities
        out[chosen] += slope
        return torch.from_numpy(np.ascontiguousarray(out.T)), None
