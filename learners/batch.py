"""One on-policy batch: fragments evaluated with the parameters as they are, and laid out as flat rows.

Invariant: the rows are in the order of the fragments, row n of every tensor is the same step, and only those named by
`rows` are real steps; final observations and dummies are evaluated for their value and never learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from actors.policies.distributions import Distribution
from actors.policies.networks import Mlp, Normaliser
from actors.spaces import ActionSpec, ObservationSpec
from learners.fragments import join
from learners.moments import Moments
from learners.vtrace import vtrace

Array = np.ndarray[Any, Any]
FORWARD_BYTES = 16 * 2**20
"""Observations evaluated at once: bounds the memory that a batch of images takes."""


@dataclass(frozen=True)
class Traces:
    """The constants of V-trace (`learners.vtrace`)."""

    gamma: float
    lam: float
    rho_bar: float
    c_bar: float


@dataclass(frozen=True)
class Batch:
    """All rows of an update; `rows` are the valid ones. Arrays of the host are [n] float32."""

    rows: Tensor
    observations: dict[str, Tensor]
    actions: Tensor
    masks: Tensor | None
    valid: Array
    anchor: Array
    """Log-probabilities of the actions under the parameters as they were."""
    advantages: Array
    targets: Array
    values: Array
    """What the critic said, in units of the reward."""

    @property
    def explained_variance(self) -> float:
        """1 - Var[target - value] / Var[target], over the valid rows."""
        targets = self.targets[self.valid].astype(np.float64)
        return 1.0 - float((targets - self.values[self.valid]).var()) / max(float(targets.var()), 1e-12)


class Evaluator:
    """Turns fragments into a batch, for one network and its spaces."""

    def __init__(
        self,
        network: nn.Module,
        observation: ObservationSpec,
        action: ActionSpec,
        distribution: Distribution,
        device: torch.device,
    ) -> None:
        self.network, self.distribution, self.device = network, distribution, device
        self.keys = observation.keys
        self.plain = observation.plain
        self.masked = action.masked

    def forward(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Action parameters [n, k] and values [n] for {leaf: [n, ...]}."""
        out: tuple[Tensor, Tensor] = self.network(observations[""] if self.plain else observations)
        return out

    @torch.no_grad()
    def evaluate(self, fragments: Sequence[dict[str, Array]], traces: Traces, moments: Moments | None) -> Batch:
        """The batch of these fragments. With `moments` the critic's outputs are in their units."""
        pieces = [self._piece(arrays, traces, moments) for arrays in join(fragments)]
        if len(pieces) == 1:
            return pieces[0]
        host = ("valid", "anchor", "advantages", "targets", "values")
        valid = np.concatenate([piece.valid for piece in pieces])
        return Batch(
            rows=self._placed(np.flatnonzero(valid)),
            observations={name: torch.cat([piece.observations[name] for piece in pieces]) for name in self.keys},
            actions=torch.cat([piece.actions for piece in pieces]),
            masks=torch.cat([cast("Tensor", piece.masks) for piece in pieces]) if self.masked else None,
            **{name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in host},
        )

    def _piece(self, arrays: dict[str, Array], traces: Traces, moments: Moments | None) -> Batch:
        """Fragments of one length T, joined to [T, B, ...], as T x B rows."""
        steps, width = arrays["rewards"].shape
        count = steps * width
        valid = arrays["valid"].reshape(-1)
        rows = self._placed(np.flatnonzero(valid))
        seen = {name: self._placed(arrays[key]).flatten(0, 1) for name, key in self.keys.items()}
        observations = {name: leaf[:count] for name, leaf in seen.items()}
        actions = self._placed(arrays["actions"]).flatten(0, 1)
        masks = self._placed(arrays["masks"][:steps]).flatten(0, 1) if self.masked else None
        normaliser = getattr(self.network, "normaliser", None)
        if isinstance(normaliser, Normaliser):
            features = cast("Mlp", self.network).features(observations[""] if self.plain else observations)
            normaliser.observe(features.index_select(0, rows))
        parameters, values = self._forward_all(seen)
        anchor = self.distribution.evaluate(parameters[:count], actions, masks)[0].float().cpu().numpy()
        judged = values.float().cpu().numpy().reshape(steps + 1, width)
        if moments is not None:
            judged = moments.grow(judged)
        targets = vtrace(
            anchor.reshape(steps, width) - arrays["log_probabilities"],
            judged,
            arrays["rewards"],
            arrays["terminated"],
            arrays["truncated"],
            arrays["valid"],
            gamma=traces.gamma,
            lam=traces.lam,
            rho_bar=traces.rho_bar,
            c_bar=traces.c_bar,
        )
        return Batch(
            rows=rows,
            observations=observations,
            actions=actions,
            masks=masks,
            valid=valid,
            anchor=anchor,
            advantages=targets.advantages.reshape(-1),
            targets=targets.values.reshape(-1),
            values=judged[:steps].reshape(-1),
        )

    def _forward_all(self, observations: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`forward` over any number of rows, in chunks that bound its memory."""
        rows = len(next(iter(observations.values())))
        size = max(1, FORWARD_BYTES * rows // max(1, sum(leaf.nbytes for leaf in observations.values())))
        if rows <= size:
            return self.forward(observations)
        starts = range(0, rows, size)
        chunks = [self.forward({name: leaf[at : at + size] for name, leaf in observations.items()}) for at in starts]
        return torch.cat([parameters for parameters, _ in chunks]), torch.cat([values for _, values in chunks])

    def _placed(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self.device)
