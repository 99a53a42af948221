"""Epochs: intervals of a run, each closed by one fact of the tracker.

Invariant: what happened in an epoch is the difference of counters that only grow, taken where its closing fact stands
in the ledger; nothing is read and reset, so every reader sees the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tracker.facts import Fact

KEPT = 200


class Epochs:
    """The fold: what each epoch counted (the newest 200)."""

    version = 1
    kinds = frozenset({"progress", "episode", "epoch"})

    def __init__(self) -> None:
        self.epoch = 0
        self.env_steps = 0
        self.episodes = 0
        self.agent_steps: dict[str, int] = {}
        self._mark: dict[str, Any] = {"env_steps": 0, "episodes": 0, "agent_steps": {}}
        self.closed: deque[dict[str, Any]] = deque(maxlen=KEPT)
        """{epoch, env_steps, episodes, agent_steps: {policy: n}} of each, as differences."""

    def apply(self, fact: Fact) -> None:
        """Take one fact."""
        self.taker(fact.kind)(fact)

    def taker(self, kind: str) -> Callable[[Fact], None]:
        """What takes facts of this kind."""
        taker: Callable[[Fact], None] = getattr(self, f"_{kind}")
        return taker

    def _episode(self, _: Fact) -> None:
        self.episodes += 1

    def _progress(self, fact: Fact) -> None:
        self.env_steps += fact.body["env_steps"]
        for policy, steps in fact.body["agent_steps"].items():
            self.agent_steps[policy] = self.agent_steps.get(policy, 0) + steps

    def _epoch(self, fact: Fact) -> None:
        epoch = fact.body["epoch"]
        mark = self._mark
        before = mark["agent_steps"]
        self.closed.append(
            {
                "epoch": epoch,
                "env_steps": self.env_steps - mark["env_steps"],
                "episodes": self.episodes - mark["episodes"],
                "agent_steps": {policy: steps - before.get(policy, 0) for policy, steps in self.agent_steps.items()},
            }
        )
        self._mark = {"env_steps": self.env_steps, "episodes": self.episodes, "agent_steps": dict(self.agent_steps)}
        self.epoch = epoch

    def decide(self, epoch_steps: int | None) -> dict[str, Any] | None:
        """The body of the fact that closes the epoch, once it holds `epoch_steps` env steps; None before."""
        if not epoch_steps or self.env_steps - self._mark["env_steps"] < epoch_steps:
            return None
        return {"epoch": self.epoch + 1, "env_steps": self.env_steps}

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "epoch": self.epoch,
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "agent_steps": dict(self.agent_steps),
            "mark": {**self._mark, "agent_steps": dict(self._mark["agent_steps"])},
            "closed": [dict(epoch) for epoch in self.closed],
        }

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        self.epoch, self.env_steps, self.episodes = plain["epoch"], plain["env_steps"], plain["episodes"]
        self.agent_steps = dict(plain["agent_steps"])
        self._mark = {**plain["mark"], "agent_steps": dict(plain["mark"]["agent_steps"])}
        self.closed = deque((dict(epoch) for epoch in plain["closed"]), maxlen=KEPT)
