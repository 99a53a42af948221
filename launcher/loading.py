"""What a run has learned, for use in Python: `launcher.load(RUN_DIR).policy(name).act(observation)`.

Invariant: nothing in the run directory is changed; a policy is the newest whole checkpoint of its learner, and what was
skipped on the way to it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.conform import Form
from actors.policies.policy import Policy, build_network
from actors.spaces import ActionSpec, ObservationSpec
from broker import files
from broker.arrays import Tree, from_bytes
from broker.errors import RequestError
from launcher import environment_record
from launcher.directory import inspect
from launcher.host import append_folder
from launcher.plan import Plan, make_plan
from launcher.probing import Probe
from launcher.reading import load as load_run_file
from tracker.checkpoints import newest_valid


@dataclass(frozen=True)
class LoadedPolicy:
    """One trained policy."""

    name: str
    version: tuple[int, int]
    acting: Policy
    parameters: Tree

    def act(self, observation: Any, *, deterministic: bool = True) -> Any:
        """The action for one observation, as the environment gave it (with its mask) and as the environment takes it.

        ValueError: the observation is not one of the environment's space.
        """
        mask = None
        if self.acting.action.masked:
            if not isinstance(observation, Mapping) or "action_mask" not in observation:
                raise ValueError(f"policy {self.name!r} has masked actions: give the observation with its action_mask")
            bits = Form("action_mask", (self.acting.action.mask_size,), np.dtype(np.int8), 0, 1)
            mask = bits.fit(np.reshape(observation["action_mask"], -1))[None].astype(bool)
        seen = {leaf: array[None] for leaf, array in self.acting.observation.encode(observation).items()}
        actions, _ = self.acting.act(seen, mask, deterministic=deterministic)
        return self.acting.action.to_environment()(actions)[0]


@dataclass(frozen=True)
class LoadedRun:
    """A run directory, read-only."""

    directory: Path
    plan: Plan
    skipped: list[tuple[str, str]]
    """Damaged checkpoints that were passed over: (file, reason)."""

    def checkpoint(self, policy: str) -> Tree:
        """The newest whole checkpoint of a policy. RequestError if there is none."""
        if policy not in self.plan.policies:
            raise RequestError(f"no policy {policy!r} in this run; it has {', '.join(self.plan.policies)}")
        found, skipped = newest_valid(self.directory / "checkpoints", policy)
        self.skipped.extend(skipped)
        if found is None:
            why = f" ({len(skipped)} damaged)" if skipped else ""
            raise RequestError(
                f"{self.directory}: no whole checkpoint of {policy!r}{why}; let the run go on for longer"
            )
        return from_bytes(files.read(found[0], found[1].size))

    def policy(self, name: str, *, seed: int = 0) -> LoadedPolicy:
        """A policy at its newest checkpoint. RequestError if there is none, or it is not a network."""
        tree = self.checkpoint(name)
        described = self.plan.policies[name]
        if described.observation is None or described.action is None:
            raise RequestError(f"policy {name!r} has no environment: read its parameters with `.checkpoint({name!r})`")
        observation = ObservationSpec.from_plain(described.observation)
        action = ActionSpec.from_plain(described.action)
        settings, environment = self.plan.run.policies, self.plan.run.environment
        normalise = environment.normalise if environment is not None else ()
        acting = Policy(
            build_network(settings.network, observation, action, settings.settings, normalise),
            observation,
            action,
            seed=seed,
        )
        acting.load(tree["parameters"])
        life, number = tree["version"]
        return LoadedPolicy(name, (life, number), acting, tree["parameters"])


def load(directory: Path | str) -> LoadedRun:
    """What the run in `directory` has learned so far. RequestError if it holds no run."""
    where = inspect(Path(directory))
    resolved = load_run_file(where.run_file, stored=True)
    append_folder(resolved.folder)
    probe = Probe(resolved, play=False)
    try:
        spaces = probe.answer()
        environment_record.compare(where, spaces)
        plan = make_plan(resolved, spaces)
    finally:
        probe.close()
    return LoadedRun(where.path, plan, [])
