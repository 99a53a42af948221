"""Proximal policy optimisation (Schulman et al. 2017), corrected for staleness: asynchronous PPO.

Experience comes from a behaviour policy μ that lags one or two versions behind the learner's π. Each batch is first
evaluated with the parameters as they are (the *anchor*): V-trace (`learners.vtrace`) gives targets and advantages
weighted by min(ρ̄, π/μ), and the clipped surrogate is taken around the anchor and not around μ. This is the decoupled
objective of Hilton et al. 2022, "Batch size-invariance for policy optimization", section 3: clipping bounds the step of
this update, and staleness, which is another matter, is left to the importance weight. Without it this is plain PPO.

Invariant: rows that are not valid never reach a loss, and a snapshot taken between two updates leads to the same
parameters, bit for bit, as going on would have. What fragments hold is said in `learners.fragments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from actors.policies.distributions import distribution
from actors.policies.policy import build_network
from actors.policies.tensors import load_arrays, to_array, to_arrays, to_tensor
from broker.errors import RequestError, RunError
from learners.adam import FlatAdam
from learners.algorithm import AlgorithmContext, Fragment, Task, Tree
from learners.batch import Batch, Evaluator, Traces
from learners.fragments import Arrays, check, played
from learners.moments import Moments

MOST_SHIFT = 20.0
"""Of a log-probability within an update, as in V-trace: e^20 is far beyond any clip, and still a number."""


class PpoSettings(BaseModel):
    """`learner.settings` of the run file, for algorithm "ppo"."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    batch_steps: int = Field(default=2048, ge=1)
    """Agent steps that start an update."""
    epochs: int = Field(default=4, ge=1)
    minibatches: int = Field(default=4, ge=1)
    """Of one epoch."""
    learning_rate: float = Field(default=1e-3, gt=0)
    learning_rate_end: float | None = Field(default=None, ge=0)
    """Reached, in a straight line, after `anneal_steps`."""
    entropy: float = Field(default=0.01, ge=0)
    """Weight of the entropy bonus."""
    entropy_end: float | None = Field(default=None, ge=0)
    anneal_steps: int | None = Field(default=None, ge=1)
    """Agent steps of this policy over which the rates with an `_end` go to it; then they stay."""
    gamma: float = Field(default=0.99, ge=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    clip: float = Field(default=0.2, gt=0)
    value_clip: float | None = Field(default=None, gt=0)
    """In normalised units; None does not clip."""
    value_weight: float = Field(default=0.5, ge=0)
    max_gradient_norm: float | None = Field(default=0.5, gt=0)
    rho_bar: float = Field(default=1.0, gt=0)
    c_bar: float = Field(default=1.0, gt=0)
    normalise_advantages: bool = True
    normalise_values: bool = True
    """PopArt (van Hasselt et al. 2016): the critic learns targets of unit variance, its outputs kept across changes."""
    value_moments_rate: float = Field(default=0.1, gt=0, le=1)
    """How much one batch weighs in the moments of the targets."""

    @model_validator(mode="after")
    def _annealed(self) -> PpoSettings:
        if self.anneal_steps is None and not (self.learning_rate_end is self.entropy_end is None):
            raise ValueError("rates with an _end go to it over anneal_steps: give it too")
        return self


class Ppo:
    """One policy's learner. See `learners.algorithm.Algorithm` for what each part promises."""

    def __init__(self, context: AlgorithmContext) -> None:
        self.settings = checked(context.settings)
        if context.observation is None or context.action is None:
            raise RequestError("learner.algorithm 'ppo' needs an environment: this policy has no observations")
        self.observation, self.action = context.observation, context.action
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            self.network = build_network(
                context.network, self.observation, self.action, context.network_settings, context.normalise
            )
        self.device = torch.device(context.device)
        self.network.to(self.device)
        self.distribution = distribution(self.action)
        self.optimizer = FlatAdam(self.network)
        self.moments = Moments(self.settings.value_moments_rate)
        self._normalise_values = self.settings.normalise_values or "reward" in context.normalise
        self._evaluator = Evaluator(self.network, self.observation, self.action, self.distribution, self.device)
        chosen = self.settings
        self._traces = Traces(chosen.gamma, chosen.lam, chosen.rho_bar, chosen.c_bar)
        self._random = torch.Generator().manual_seed(context.seed)
        self._fragments: list[Arrays] = []
        self._waiting = 0
        self.agent_steps = 0
        self.updates = 0

    def accept(self, fragment: Fragment) -> None:
        """Keep a fragment for the next update. ValueError or TypeError for one that is not of this policy's shapes."""
        check(fragment.arrays, self.observation, self.action)
        arrays = played(fragment.arrays)
        if arrays is not None:
            self._fragments.append(arrays)
            self._waiting += int(np.count_nonzero(arrays["valid"]))

    def ready(self) -> bool:
        """Whether `batch_steps` agent steps wait."""
        return self._waiting >= self.settings.batch_steps

    def mint(self) -> Sequence[Task]:
        """Nothing: environments need no tasks from here."""
        return ()

    def parameters(self) -> Tree:
        """A copy of the network's state dict."""
        return to_arrays(self.network)

    def update(self) -> Mapping[str, float]:
        """All epochs over what waits; the losses are means over the last epoch."""
        fragments, self._fragments, self._waiting = self._fragments, [], 0
        chosen = self.settings
        batch, columns_of = self._prepared(fragments)
        progress = 0.0 if chosen.anneal_steps is None else min(1.0, self.agent_steps / chosen.anneal_steps)
        rate = between(chosen.learning_rate, chosen.learning_rate_end, progress)
        entropy_weight = between(chosen.entropy, chosen.entropy_end, progress)
        size = -(-len(batch.rows) // chosen.minibatches)
        measured: list[Tensor] = []
        for epoch in range(chosen.epochs):
            last = epoch == chosen.epochs - 1
            order = torch.randperm(len(batch.rows), generator=self._random).to(self.device)
            rows = batch.rows.index_select(0, order)
            observations = {name: leaf.index_select(0, rows) for name, leaf in batch.observations.items()}
            actions, columns = batch.actions.index_select(0, rows), columns_of.index_select(0, rows)
            masks = None if batch.masks is None else batch.masks.index_select(0, rows)
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                seen = {name: leaf[part] for name, leaf in observations.items()}
                allowed = None if masks is None else masks[part]
                outputs, slopes, losses = self._slopes(
                    seen, actions[part], allowed, columns[part], entropy_weight, last
                )
                norm = self.optimizer.step(outputs, slopes, rate, chosen.max_gradient_norm)
                if last:
                    measured.append(torch.stack([*losses, norm]))
        self.agent_steps += len(batch.rows)
        self.updates += 1
        means = torch.stack(measured).mean(0).tolist()
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "grad_norm")
        extra = {"explained_variance": batch.explained_variance, "learning_rate": rate}
        return dict(zip(names, means, strict=True)) | extra

    def snapshot(self) -> Tree:
        """A copy of everything but the fragments that wait."""
        return {
            "algorithm": "ppo",
            "network": to_arrays(self.network),
            "optimizer": self.optimizer.snapshot(),
            "moments": self.moments.snapshot(),
            "random": to_array(self._random.get_state()),
            "agent_steps": self.agent_steps,
            "updates": self.updates,
        }

    def restore(self, tree: Tree) -> None:
        """Go on from a snapshot. Raises RunError for one of another network or algorithm."""
        if not isinstance(tree, dict) or tree.get("algorithm") != "ppo":
            raise RunError("this snapshot is not one of algorithm 'ppo'")
        load_arrays(self.network, tree["network"])
        self.optimizer.restore(tree["optimizer"])
        self.moments.restore(tree["moments"])
        self._random.set_state(to_tensor(tree["random"]))
        self.agent_steps, self.updates = int(tree["agent_steps"]), int(tree["updates"])
        self._fragments, self._waiting = [], 0

    def _slopes(  # noqa: PLR0917
        self,
        observations: dict[str, Tensor],
        actions: Tensor,
        masks: Tensor | None,
        columns: Tensor,
        entropy_weight: float,
        measure: bool,
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Log-probabilities, values and entropies of a minibatch, the loss's slopes by them, and what is reported.

        The loss is equation 9 of Schulman et al. 2017. It is plain enough to be differentiated by hand down to these
        three, which saves a third of a small network's time; autograd does the rest.
        """
        chosen = self.settings
        count = len(actions)
        parameters, values = self._evaluator.forward(observations)
        logp, entropies = self.distribution.evaluate(parameters, actions, masks)
        with torch.no_grad():
            anchor, advantages, targets, before = columns.unbind(1)
            shift = (logp - anchor).clamp_(max=MOST_SHIFT)
            ratio = shift.exp()
            gain = ratio * advantages
            clipped = ratio.clamp(1.0 - chosen.clip, 1.0 + chosen.clip).mul_(advantages)
            error = values - targets
            # min(gain, clipped): only where the first is taken does the loss move, by d ratio = ratio d logp.
            by_logp = torch.where(gain <= clipped, gain, 0.0).mul_(-1.0 / count)
            by_value = error * (chosen.value_weight / count)
            if chosen.value_clip is not None:
                near = before + (values - before).clamp(-chosen.value_clip, chosen.value_clip) - targets
                # Within the clip both are the same but for roundings, which must not decide.
                inside = (values - before).abs() <= chosen.value_clip
                by_value *= inside | (error.abs() >= near.abs())
            slopes = (by_logp, by_value, torch.full_like(entropies, -entropy_weight / count))
            if not measure:
                return (logp, values, entropies), slopes, ()
            exact = torch.float64 if self.device.type != "mps" else None  # MPS has no float64
            policy_loss = -torch.minimum(gain, clipped).mean(dtype=exact)
            # The third estimator of Schulman 2020, "Approximating KL divergence".
            kl = (ratio - 1.0 - shift).mean(dtype=exact)
            clip_fraction = ((ratio - 1.0).abs() > chosen.clip).float().mean(dtype=exact)
            value_loss = 0.5 * error.square().mean(dtype=exact)
            losses = (policy_loss, value_loss, entropies.mean(dtype=exact), kl, clip_fraction)
        return (logp, values, entropies), slopes, losses

    def _prepared(self, fragments: Sequence[Arrays]) -> tuple[Batch, Tensor]:
        """The batch, and of each row: log-probability before, advantage, target and value before, [n, 4]."""
        moments = self.moments if self._normalise_values else None
        batch = self._evaluator.evaluate(fragments, self._traces, moments)
        advantages, targets, values = batch.advantages, batch.targets, batch.values
        if self.settings.normalise_advantages:
            kept = advantages[batch.valid]
            mean, deviation = kept.mean(dtype=np.float64), kept.std(dtype=np.float64)
            advantages = (advantages - np.float32(mean)) / np.float32(deviation + 1e-8)
        if moments is not None:
            moments.observe(targets[batch.valid], getattr(self.network, "value", None))
            targets, values = moments.shrink(targets), moments.shrink(values)
        return batch, torch.from_numpy(np.stack([batch.anchor, advantages, targets, values], -1)).to(self.device)


def checked(settings: Mapping[str, Any]) -> PpoSettings:
    """The settings, validated. Raises RequestError with the path of every key that is wrong."""
    try:
        return PpoSettings.model_validate(dict(settings))
    except ValidationError as error:
        wrong = []
        for fault in error.errors(include_url=False):
            path = ".".join(("learner", "settings", *map(str, fault["loc"])))
            known = f"; known are {', '.join(PpoSettings.model_fields)}" if fault["type"] == "extra_forbidden" else ""
            wrong.append(f"{path}: {fault['msg']}{known}")
        raise RequestError("\n".join(wrong)) from None


def between(start: float, end: float | None, progress: float) -> float:
    """The rate at `progress` (0 to 1) of its schedule."""
    return start if end is None else start + (end - start) * progress
