"""An algorithm of one's own: REINFORCE with a learned baseline (Williams 1992; Sutton and Barto 2018, section 13.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from actors.policies.distributions import distribution
from actors.policies.policy import build_network
from actors.policies.tensors import load_arrays, to_arrays
from broker.arrays import Tree
from broker.errors import RequestError
from learners.algorithm import AlgorithmContext, Fragment, Task
from learners.fragments import check

DEFAULTS = {"batch_steps": 1024, "learning_rate": 0.01, "gamma": 0.99}


class Reinforce:
    """Implements `learners.algorithm.Algorithm` for plain observations and discrete actions without masks."""

    def __init__(self, context: AlgorithmContext) -> None:
        if context.observation is None or context.action is None:
            raise RequestError("this algorithm needs an [environment]")
        unknown = context.settings.keys() - DEFAULTS.keys()
        if unknown:
            raise RequestError(f"learner.settings: {sorted(unknown)} is not known; known are {sorted(DEFAULTS)}")
        self.settings = {**DEFAULTS, **context.settings}
        self.observation, self.action = context.observation, context.action
        torch.manual_seed(context.seed)
        self.network = build_network(context.network, self.observation, self.action, context.network_settings)
        self.distribution = distribution(self.action)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.settings["learning_rate"])
        self.fragments: list[Fragment] = []

    def accept(self, fragment: Fragment) -> None:
        """Keep it. `check` raises ValueError for one of other shapes: it is refused and counted."""
        check(fragment.arrays, self.observation, self.action)
        self.fragments.append(fragment)

    def ready(self) -> bool:
        """Whether there are `batch_steps` agent steps."""
        return bool(sum(fragment.steps for fragment in self.fragments) >= self.settings["batch_steps"])

    def update(self) -> Mapping[str, float]:
        """One step along the gradient of all fragments together; gives the losses by name."""
        fragments, self.fragments = self.fragments, []
        joined = {
            name: np.concatenate([fragment.arrays[name] for fragment in fragments], axis=1)
            for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid")
        }  # [T, B]; observations [T + 1, B, ...]: row T is what the last step led to
        parameters, values = self.network(torch.from_numpy(joined["observations"]))
        returns = torch.from_numpy(self._returns(joined, values.detach().numpy()))
        valid = torch.from_numpy(joined["valid"])  # the row after an episode's last one is a dummy
        actions = torch.from_numpy(joined["actions"])
        chosen, entropies = self.distribution.evaluate(parameters[:-1][valid], actions[valid], None)
        error = returns[valid] - values[:-1][valid]
        policy_loss, value_loss = -(chosen * error.detach()).mean(), error.square().mean()
        self.optimizer.zero_grad()
        (policy_loss + 0.5 * value_loss - 0.01 * entropies.mean()).backward()
        self.optimizer.step()
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropies.mean()}
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _returns(self, arrays: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
        """Discounted returns [T, B]: a fragment's end and a truncation are bootstrapped, a termination is not."""
        returns, following = np.zeros_like(values[:-1]), values[-1]
        for t in reversed(range(len(returns))):
            following = np.where(arrays["truncated"][t], values[t + 1], following)
            following = np.where(arrays["terminated"][t], 0.0, following)
            returns[t] = following = arrays["rewards"][t] + self.settings["gamma"] * following
        return returns

    def mint(self) -> Sequence[Task]:
        """Nothing: an environment needs no tasks."""
        return ()

    def parameters(self) -> Tree:
        """What actors act with: a copy of the state dict, as arrays."""
        return to_arrays(self.network)

    def snapshot(self) -> Tree:
        """What a checkpoint holds. Adam's moments are left out: a resumed life begins with fresh ones."""
        return to_arrays(self.network)

    def restore(self, tree: Tree) -> None:
        """Go on from a checkpoint; RunError if it is of another network."""
        load_arrays(self.network, tree)
