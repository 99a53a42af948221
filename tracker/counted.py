"""What the standings hold: every count of a run, over all of its lives, and its plain form.

Invariant: restored from its snapshot it goes on exactly as it would have; it is of bounded size but for the number of
policies and roles.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tracker.tallies import PolicyTally, Returns, RoleTally

EVENTS = 50
ALARMS = 20


class Counted:
    """The counts; `tracker.standings` moves them."""

    def __init__(self) -> None:
        self.run = ""
        self.seed: int | None = None
        self.launch = 0
        """The n-th launch of this run directory, of the last `run` fact."""
        self.config: dict[str, Any] = {}
        self.stop: dict[str, float] = {}
        self.phase = ""
        self.phase_launch = 0
        self.reason = ""
        self.failed = False
        self.phases: list[list[Any]] = []
        """[phase, seconds, reason] of the last 64 changes."""
        self.stop_requested: list[Any] | None = None
        """[reason, failed], of this launch."""
        self.finished: dict[str, str] = {}
        """By policy that has nothing left to do, of this launch and its learner's newest life, the reason."""
        self.faults: dict[str, str] = {}
        """By kind of fact, the first fault of this launch that can explain why nothing was learned."""
        self.ending_fault = ""
        """How a learner ended unexpectedly while this launch was stopping; empty if none did."""
        self.seconds = 0.0
        self.clock_time = 0
        """The run's clock (ns) at the last `clock` fact, which brought `seconds`."""
        self.solved_at: float | None = None
        self.env_steps = 0
        self.agent_steps = 0
        self.returns = Returns()
        """Of the per-episode mean over agents."""
        self.episodes = 0
        self.outcomes = 0
        self.epoch = 0
        self.policies: dict[str, PolicyTally] = {}
        self.roles: dict[str, RoleTally] = {}
        self.moves: dict[str, int] = {}
        """By source, facts that show progress: when one stands still, its role is stalled."""
        self.events: deque[list[Any]] = deque(maxlen=EVENTS)
        """[time in ns, source, text]"""
        self.alarms: deque[str] = deque(maxlen=ALARMS)
        self.checkpoints = 0
        self.duplicates = 0
        self.refused = 0
        self.quarantined = 0
        self.environment_errors = 0
        self.nonfinite = 0
        """Returns that were not finite: counted as episodes, left out of every mean."""

    def policy(self, name: str) -> PolicyTally:
        """The tally of a policy, made when it is first heard of."""
        tally = self.policies.get(name)
        if tally is None:
            tally = self.policies[name] = PolicyTally()
        return tally

    def role(self, name: str) -> RoleTally:
        """The tally of a role, made when it is first heard of."""
        tally = self.roles.get(name)
        if tally is None:
            tally = self.roles[name] = RoleTally()
        return tally

    def seconds_at(self, time_ns: int) -> float:
        """Return the seconds of running over all launches, at a time of the run's clock after the last `clock` fact."""
        if not self.clock_time or self.phase not in ("running", "stopping"):
            return self.seconds
        return self.seconds + max(0.0, (time_ns - self.clock_time) / 1e9)

    _plainly = (
        "run",
        "seed",
        "launch",
        "config",
        "stop",
        "phase",
        "phase_launch",
        "reason",
        "failed",
        "phases",
        "stop_requested",
        "finished",
        "faults",
        "ending_fault",
        "seconds",
        "clock_time",
        "solved_at",
        "env_steps",
        "agent_steps",
        "episodes",
        "outcomes",
        "epoch",
        "moves",
        "checkpoints",
        "duplicates",
        "refused",
        "quarantined",
        "environment_errors",
        "nonfinite",
    )

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain = {name: getattr(self, name) for name in self._plainly}
        plain |= {name: dict(getattr(self, name)) for name in ("stop", "moves", "finished", "faults")}
        plain["returns"] = self.returns.plain()
        plain["policies"] = {name: tally.plain() for name, tally in self.policies.items()}
        plain["roles"] = {name: tally.plain() for name, tally in self.roles.items()}
        plain["events"], plain["alarms"] = [list(event) for event in self.events], list(self.alarms)
        return plain

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        for name in self._plainly:
            setattr(self, name, plain[name])
        self.stop, self.moves = dict(plain["stop"]), dict(plain["moves"])
        self.finished, self.faults = dict(plain["finished"]), dict(plain["faults"])
        self.returns = Returns.of(plain["returns"])
        self.policies = {name: PolicyTally.of(tally) for name, tally in plain["policies"].items()}
        self.roles = {name: RoleTally.of(tally) for name, tally in plain["roles"].items()}
        self.events = deque((list(event) for event in plain["events"]), maxlen=EVENTS)
        self.alarms = deque(plain["alarms"], maxlen=ALARMS)
