"""The user's module of the curriculum's tests: environments of either kind, generators good and bad, a rollout."""

OWN = '''
import asyncio
import time
from pathlib import Path

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from actors.rollout import Outcome, Piece

HERE = Path(__file__).parent
BOX = gymnasium.spaces.Box(0, 1, (2,), np.float32)


class Corridor(gymnasium.Env):
    """Walk right to the end. `options`: length; broken (reset raises), fall (the step that raises), score."""

    def __init__(self, longest=16):
        self.observation_space, self.action_space = BOX, gymnasium.spaces.Discrete(2)
        self.longest = longest

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.options = options or {}
        if self.options.get("broken"):
            raise ValueError("no such corridor")
        self.length, self.at, self.t = self.options.get("length", 4), 0, 0
        return self.seen(), {}

    def seen(self):
        return np.array([self.at / self.longest, self.length / self.longest], np.float32)

    def step(self, action):
        self.t += 1
        if self.t == self.options.get("fall"):
            raise RuntimeError("the floor gave way")
        self.at = max(0, self.at + (1 if action else -1))
        there = self.at >= self.length
        score = self.options.get("score", float(there))
        return self.seen(), float(there), there, self.t >= 3 * self.length, {"success": score}

    def levels(self):
        yield from ((f"length {n}", {"options": {"length": n}}) for n in (1, 2, 3, 4))
        yield "longer", {"settings": {"longest": 32}, "options": {"length": 2}, "seed": 7}
        yield "broken", {"options": {"broken": True}}
        yield "falling", {"options": {"fall": 2}}
        yield "beyond", {"options": {"score": 2.0}}


class Pair(ParallelEnv):
    """Two agents; each episode has as many steps as its task says."""

    metadata = {"name": "pair"}

    def __init__(self):
        self.possible_agents = ["a", "b"]

    def observation_space(self, agent):
        return BOX

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.t, self.most = list(self.possible_agents), 0, options["steps"]
        if options.get("broken"):
            raise TypeError("no such pair")
        return {agent: np.zeros(2, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        self.t += 1
        acting = self.agents
        rewards = {agent: float(actions[agent]) for agent in acting}
        over = dict.fromkeys(acting, self.t >= self.most)
        if self.t >= self.most:
            self.agents = []
        seen = {agent: np.full(2, self.t / 16, np.float32) for agent in acting}
        return seen, rewards, over, dict.fromkeys(acting, False), {agent: {"steps": self.t} for agent in acting}


def share(played):
    """A score of one's own: the share of steps in which the agents chose 1."""
    assert played.info["a"]["steps"] == played.length == played.body["options"]["steps"]
    return played.return_mean / played.length


def turn():
    """How often a generator was called in this folder."""
    with (HERE / "calls").open("a") as calls:
        calls.write(".")
    return (HERE / "calls").stat().st_size


def wayward(count, random):
    """Everything that a generator may do wrong, one after another; then it is good, as for the check before the run."""
    now = turn() - 1
    if now == 1:
        raise RuntimeError("the well is dry")
    if now == 2:
        print("noise on standard output")
        yield "steps 2", {"options": {"steps": 2}}
        time.sleep(600)
    if now == 3:
        yield "steps 3", {"options": {"steps": 3}}
        yield 7, {"options": {"steps": 3}}
        yield "l" * 257, {"options": {"steps": 3}}
        yield "no body"
        yield "no JSON", {"options": object()}
        return
    if now == 4:
        yield "steps 2", {"options": {"steps": 2}}
        yield "steps 3", {"options": {"steps": 3}}
        return
    if now == 5:
        yield "broken", {"options": {"steps": 2, "broken": True}}
    for steps in random.integers(1, 9, count):
        yield f"steps {steps}", {"options": {"steps": int(steps)}, "number": int(random.integers(2**40))}


def nothing(count, random):
    return []


def raising(count, random):
    raise RuntimeError("the well is dry")


class Solve:
    """A rollout of one's own."""

    def __init__(self, context):
        self.actor = context.actor

    async def run(self, task, parameters):
        await asyncio.sleep(0.002)
        if task.body.get("broken"):
            raise ValueError("no such problem")
        assert task.label == f"hard {task.body['hard']}" and task.draw >= 1
        score = 1.0 / task.body["hard"]
        return Outcome(score, [Piece("p", {"score": np.array([score], np.float32)})])


class Count:
    """An algorithm that counts what it is given."""

    def __init__(self, context):
        self.seen = 0

    def accept(self, fragment):
        self.seen += 1

    def ready(self):
        return self.seen >= 20

    def mint(self):
        return ()

    def update(self):
        self.seen = 0
        return {"loss": 0.0}

    def parameters(self):
        return {"at": 1.0}

    def snapshot(self):
        return {}

    def restore(self, tree):
        pass
'''
CORRIDOR = """
name = "corridor"
[stop]
seconds = 600
[environment]
id = "own:Corridor"
[actors]
processes = 2
environments = 4
[learner]
fragment_steps = 16
settings = { batch_steps = 256 }
[curriculum]
score = "success"
min_samples = 3
min_presentations = 5
backoff_seconds = 0.1
epoch_outcomes = 200
evict_share = 0.0
"""

PAIR = """
name = "pair"
[stop]
seconds = 600
[environment]
id = "own:Pair"
[policies]
agents = { "*" = "shared" }
[actors]
processes = 2
environments = 3
[learner]
fragment_steps = 16
settings = { batch_steps = 256 }
[curriculum]
generator = "own:wayward"
score = "own:share"
capacity = 40
generate = 8
generate_seconds = 3.0
min_samples = 3
min_presentations = 5
backoff_seconds = 0.05
"""

PROBLEMS = """
name = "problems"
[stop]
seconds = 600
[policies]
names = ["p"]
[actors]
processes = 2
rollout = "own:Solve"
concurrency = 8
[learner]
algorithm = "own:Count"
[curriculum]
tasks = "problems.jsonl"
min_samples = 3
min_presentations = 5
backoff_seconds = 0.1
generate_seconds = 20.0
"""
