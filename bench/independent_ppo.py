"""Independent PPO on `simple_spread` in one process: what a careful script without Headrace reaches.

Three policies, one per agent, plain loops in the manner of CleanRL's `ppo.py`: environments are stepped one after
another, then each policy learns on policy, with the settings of `runs/spread.toml`. It uses nothing of Headrace: so
it shows what processes and messages cost or gain.

    python -m bench.independent_ppo --seconds 180 --seed 1

prints one line of JSON: agent steps a second while training, and the return per agent and episode over evaluation
episodes, sampled and greedy, each with its standard error.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from mpe2 import simple_spread_v3
from torch import nn
from torch.distributions import Categorical

AGENTS = ("agent_0", "agent_1", "agent_2")
CYCLES = 25
ENVIRONMENTS = 32
EPISODES_A_BATCH = 4
EPOCHS = 4
MINIBATCHES = 8
LEARNING_RATE, LEARNING_RATE_END = 2e-3, 1e-4
GAMMA, LAMBDA = 0.95, 0.9
CLIP, ENTROPY, VALUE_WEIGHT, MAX_NORM = 0.2, 0.01, 0.5, 0.5

Seen = dict[str, np.ndarray[Any, Any]]


def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A dense layer with an orthogonal weight."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


class Agent:
    """One policy: actor, critic, optimizer, and the running moments that returns are scaled by."""

    def __init__(self, inputs: int, choices: int) -> None:
        root = 2**0.5
        self.actor = nn.Sequential(
            layer(inputs, 64, root), nn.Tanh(), layer(64, 64, root), nn.Tanh(), layer(64, choices, 0.01)
        )
        self.critic = nn.Sequential(
            layer(inputs, 64, root), nn.Tanh(), layer(64, 64, root), nn.Tanh(), layer(64, 1, 1.0)
        )
        self.parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE, eps=1e-5)
        self.mean, self.deviation = 0.0, 1.0
        self.rollouts: list[tuple[np.ndarray[Any, Any], ...]] = []

    @torch.inference_mode()
    def act(self, observations: np.ndarray[Any, Any], *, greedy: bool = False) -> tuple[Any, Any]:
        """Actions and their log-probabilities for [n, inputs]."""
        policy = Categorical(logits=self.actor(torch.from_numpy(observations)))
        actions = policy.probs.argmax(-1) if greedy else policy.sample()
        return actions.numpy(), policy.log_prob(actions).numpy()

    def learn(self, rate: float) -> None:
        """All epochs over the rollouts, each ([T+1, n, inputs], actions, log-probabilities, rewards [T, n])."""
        seen, actions, logp, rewards = (
            torch.from_numpy(np.concatenate(a, 1)) for a in zip(*self.rollouts, strict=True)
        )
        self.rollouts.clear()
        with torch.no_grad():
            values = self.critic(seen).squeeze(-1) * self.deviation + self.mean
            advantages, last = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
            for t in range(len(rewards) - 1, -1, -1):  # an episode is truncated, so its end is bootstrapped
                last = rewards[t] + GAMMA * values[t + 1] - values[t] + GAMMA * LAMBDA * last
                advantages[t] = last
            returns = (advantages + values[:-1]).flatten()
            self.mean = 0.9 * self.mean + 0.1 * float(returns.mean())
            self.deviation = 0.9 * self.deviation + 0.1 * float(returns.std())
            returns = (returns - self.mean) / self.deviation
            advantages = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).flatten()
        seen, actions, logp = seen[:-1].flatten(0, 1), actions.flatten(), logp.flatten()
        self.optimizer.param_groups[0]["lr"] = rate
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(actions)).chunk(MINIBATCHES):
                policy = Categorical(logits=self.actor(seen[rows]))
                ratio = (policy.log_prob(actions[rows]) - logp[rows]).exp()
                gain = advantages[rows]
                surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
                error = (self.critic(seen[rows]).squeeze(-1) - returns[rows]).square().mean()
                loss = -surrogate + VALUE_WEIGHT * 0.5 * error - ENTROPY * policy.entropy().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, MAX_NORM)
                self.optimizer.step()


def episode(environments: list[Any], agents: dict[str, Agent], random: np.random.Generator, *, greedy: bool) -> Any:
    """One episode of every environment at once: a rollout per agent, and the mean return of each environment."""
    count = len(environments)
    starts = [environment.reset(seed=int(random.integers(2**31)))[0] for environment in environments]
    seen: dict[str, list[Any]] = {name: [np.stack([start[name] for start in starts])] for name in AGENTS}
    kept: dict[str, list[tuple[Any, ...]]] = {name: [] for name in AGENTS}
    for _ in range(CYCLES):
        chosen = {name: agent.act(seen[name][-1], greedy=greedy) for name, agent in agents.items()}
        results = [
            environment.step({name: int(chosen[name][0][i]) for name in AGENTS})[:2]
            for i, environment in enumerate(environments)
        ]
        for name in AGENTS:
            rewards = np.array([result[1][name] for result in results], np.float32)
            kept[name].append((*chosen[name], rewards))
            seen[name].append(np.stack([result[0][name] for result in results]))
    rollouts = {name: (np.stack(seen[name]), *map(np.stack, zip(*kept[name], strict=True))) for name in AGENTS}
    returns = np.mean([rollouts[name][3].sum(0) for name in AGENTS], 0)
    assert returns.shape == (count,)
    return rollouts, returns


def main() -> None:
    """Train for the given time, evaluate, print the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=1000, help="evaluation episodes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(chosen.seed)
    random = np.random.default_rng(chosen.seed)
    environments = [simple_spread_v3.parallel_env(max_cycles=CYCLES) for _ in range(ENVIRONMENTS)]
    agents = {name: Agent(18, 5) for name in AGENTS}
    began, agent_steps, recent = time.monotonic(), 0, []
    while (spent := time.monotonic() - began) < chosen.seconds:
        for _ in range(EPISODES_A_BATCH):
            rollouts, returns = episode(environments, agents, random, greedy=False)
            agent_steps += len(AGENTS) * ENVIRONMENTS * CYCLES
            recent = [*recent, *returns][-1000:]
            for name, agent in agents.items():
                agent.rollouts.append(rollouts[name])
        progress = spent / chosen.seconds
        for agent in agents.values():
            agent.learn(LEARNING_RATE + (LEARNING_RATE_END - LEARNING_RATE) * progress)
    seconds = time.monotonic() - began
    result: dict[str, Any] = {
        "seed": chosen.seed,
        "seconds": round(seconds, 1),
        "agent_steps": agent_steps,
        "agent_steps_per_second": round(agent_steps / seconds),
        "return_training": round(float(np.mean(recent)), 2) if recent else None,
    }
    for key, greedy in (("return_sampled", False), ("return_greedy", True)):
        rounds = -(-chosen.episodes // ENVIRONMENTS)
        returns = np.concatenate([episode(environments, agents, random, greedy=greedy)[1] for _ in range(rounds)])
        result[key] = round(float(returns.mean()), 2)
        result[f"{key}_error"] = round(float(returns.std() / len(returns) ** 0.5), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
