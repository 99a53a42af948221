"""What an algorithm is: the protocol that a user implements, and what it is given.

A learner process owns one algorithm, made once as `Algorithm(context)`. It calls, from one thread, in this order:
`restore` if there is a checkpoint; then again and again `accept` for each fragment that arrived, until it is `ready`
for an `update`, and `mint` for tasks to lease while it is not. After each update it publishes `parameters()` as the
next version. An algorithm may also have facts of its own (`Telling`), be told of work that was given up (`GivingUp`),
and have an end (`Finishing`).

Invariant: an algorithm knows nothing of sockets, versions' numbers or disks. A fragment given to `accept` may hold
read-only views of a receive buffer; the algorithm may keep it, but never writes into it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from actors.spaces import ActionSpec, ObservationSpec
from broker.errors import RequestError
from broker.references import load

Tree = Any
"""What travels and is stored: None, bool, int, float, str, arrays, and dicts and lists of these (`broker.arrays`)."""


@dataclass(frozen=True)
class Fragment:
    """A piece of experience. In reinforcement learning `arrays` are [T, B, ...], with the keys of `learners.ppo`."""

    arrays: dict[str, np.ndarray[Any, Any]]
    version: tuple[int, int]
    """The (life, number) of the parameters that acted."""
    steps: int
    """Agent steps in it: valid rows, or whatever the rollout counts."""
    source: str = ""
    task: str | None = None
    note: dict[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """Work that an algorithm asks for: a name, unique within the run, and what the rollout needs to know (plain)."""

    task: str
    body: dict[str, Any]


@dataclass(frozen=True)
class AlgorithmContext:
    """What a constructor receives: the policy, its spaces, its settings, and how large the run is."""

    policy: str
    observation: ObservationSpec | None = None
    """None where there is no environment, as for prompt templates."""
    action: ActionSpec | None = None
    network: str = "mlp"
    network_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """`learner.settings` of the run file, unchecked: an algorithm raises RequestError for what it does not know."""
    normalise: tuple[str, ...] = ()
    """`environment.normalise`: "observation", "reward"."""
    device: str = "cpu"
    seed: int = 0
    actors: int = 1
    environments: int = 1
    """Environments in each actor."""
    agents: int = 1
    """Agents of one environment that follow this policy."""
    fragment_steps: int = 32
    """Rows T of a fragment."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """The resolved run file."""


@runtime_checkable
class Algorithm(Protocol):
    """Accept experience, turn it into better parameters. `learners.ppo` is the example to read."""

    def accept(self, fragment: Fragment) -> None:
        """Take one fragment. Raises ValueError for one that this policy cannot use: it is refused and counted."""
        ...

    def ready(self) -> bool:
        """Whether there is enough for an update."""
        ...

    def update(self) -> Mapping[str, float] | Awaitable[Mapping[str, float]]:
        """Learn from what was accepted; the losses by name. A coroutine may go on while others are accepted."""
        ...

    def mint(self) -> Sequence[Task]:
        """Tasks to hand out now; each is minted once."""
        ...

    def parameters(self) -> Tree:
        """A copy of what actors need to act."""
        ...

    def snapshot(self) -> Tree:
        """A copy of everything needed to go on: parameters, optimizer, counters, random state."""
        ...

    def restore(self, tree: Tree) -> None:
        """Go on from a snapshot. Raises RunError for one of another network or algorithm.

        What comes of tasks that were minted before is dropped from here on: mint again what is still wanted. What
        has a recorded result comes from the ledger, if it is minted under the same name.
        """
        ...


@runtime_checkable
class Telling(Protocol):
    """An algorithm that says facts of its own."""

    def facts(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """(kind, body) of facts to record now, each given once. Polled before `mint`, and before every checkpoint.

        What is said here is in the ledger before anything that is minted afterwards. A learner that falls may have
        lost what it said last: after `restore` say it again, and let whoever reads it pass over what is there already.
        """
        ...


@runtime_checkable
class GivingUp(Protocol):
    """An algorithm that is told of tasks of which nothing will come."""

    def given_up(self, task: str, reason: str) -> None:
        """Nothing will come of it: its leases ended too often, or its body or its result is too long, for instance.

        It may be said more than once, and, rarely, beside fragments of the task. What it raises is told as of `accept`.
        """
        ...


@runtime_checkable
class Finishing(Protocol):
    """An algorithm that comes to an end. When all policies of a run have, the run ends."""

    def finished(self) -> str | None:
        """Return why there is nothing left to do, or None. Polled after `facts` and `mint`.

        A RunError ends the run as failed, with its text and exit status 1; the run can be resumed.
        """
        ...


SHIPPED = {
    "ppo": "learners.ppo:Ppo",
    "textual_gradients": "learners.prompts.algorithm:TextualGradients",
    "gepa": "learners.prompts.algorithm:GepaSearch",
}


def build_algorithm(name: str, context: AlgorithmContext) -> Algorithm:
    """The algorithm called `name`: a shipped one, or a user's own as "package.module:Name".

    Raises RequestError for an unknown name, a module that cannot be imported, or settings that it does not take.
    """
    algorithm = load(SHIPPED.get(name, name), "learner.algorithm", SHIPPED)(context)
    missing = [part for part in ALGORITHM_PARTS if not hasattr(algorithm, part)]
    if missing:
        raise RequestError(f"learner.algorithm {name!r} lacks {', '.join(missing)}: see learners.algorithm.Algorithm")
    return cast("Algorithm", algorithm)


ALGORITHM_PARTS = ("accept", "ready", "update", "mint", "parameters", "snapshot", "restore")
