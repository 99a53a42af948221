"""What is true only just now: who is alive, what they do, how fast it goes. None of it is in the ledger.

Invariant: losing all of it loses nothing; counts come from the standings fold, and rates are differences of those
counts over the last seconds. Times are monotonic seconds given by the caller.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker.messages import Hello, Status
from tracker.standings import Standings

RATE_SECONDS = 5.0
STALLED_AFTER = 15.0
"""Least time without progress before a living role counts as stalled; a role that is used to longer pauses gets four
times the longest that it came back from."""


@dataclass(slots=True)
class Seen:
    """One role, as it was last heard."""

    kind: str
    incarnation: str
    joined: float
    heard: float
    pid: int = 0
    host: str = ""
    state: str = "alive"
    doing: str = ""
    waits: tuple[tuple[str, str, float], ...] = ()
    rates: dict[str, Any] = field(default_factory=dict)
    moves: int = 0
    moved: float = 0.0
    longest: float = 0.0


class _Sample(NamedTuple):
    at: float
    env_steps: int
    agent_steps: int
    facts: int
    policies: dict[str, tuple[int, int]]


class Live:
    """The ephemeral side of the standings."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.alarms: dict[str, str] = {}
        """By a short key, e.g. `disk`: shown while they are there."""
        self._samples: deque[_Sample] = deque()

    def hello(self, name: str, incarnation: str, message: Hello, now: float) -> bool:
        """A Hello. True if this incarnation is new: then tell `Core` that it joined."""
        seen = self.seen.get(name)
        if seen is not None and seen.incarnation > incarnation:
            return False
        new = seen is None or seen.incarnation != incarnation
        if seen is None or new:
            seen = self.seen[name] = Seen(message.role, incarnation, now, now, moved=now)
        seen.pid, seen.host, seen.heard = message.pid, message.host, now
        return new

    def heard(self, name: str, incarnation: str, now: float) -> None:
        """Any frame of a role."""
        seen = self.seen.get(name)
        if seen is not None and seen.incarnation == incarnation:
            seen.heard = now

    def status(self, name: str, incarnation: str, message: Status, now: float) -> None:
        """A Status."""
        seen = self.seen.get(name)
        if seen is not None and seen.incarnation == incarnation:
            seen.heard = now
            seen.doing, seen.waits, seen.rates = message.doing, message.waits, dict(message.rates)

    def liveness(self, name: str, incarnation: str, change: str) -> None:
        """A change that `broker.liveness` saw."""
        if change == "forgotten":
            self.seen.pop(name, None)
            return
        seen = self.seen.get(name)
        if seen is not None and seen.incarnation == incarnation and change != "superseded":
            seen.state = "alive" if change == "returned" else change

    def observe(self, fold: Standings, facts: int, now: float) -> None:
        """Look at the counters: a few times a second. `facts` is the ledger's last position."""
        for name, seen in self.seen.items():
            moves = fold.moves.get(name, 0)
            if moves != seen.moves:
                if seen.moves:
                    seen.longest = max(seen.longest, now - seen.moved)
                seen.moves, seen.moved = moves, now
        policies = {name: (tally.updates, tally.agent_steps) for name, tally in fold.policies.items()}
        self._samples.append(_Sample(now, fold.env_steps, fold.agent_steps, facts, policies))
        while len(self._samples) > 2 and now - self._samples[1].at >= RATE_SECONDS:
            self._samples.popleft()

    def stalled(self, name: str, phase: str, now: float) -> bool:
        """Tell whether a role is alive but stuck, or has made no progress for longer than is usual for it."""
        seen = self.seen[name]
        if seen.state == "alive" and seen.rates.get("stuck"):
            return True  # its own watchdog reports it
        if phase != "running" or seen.state != "alive" or seen.kind not in ("actor", "learner"):
            return False
        return now - seen.moved > max(STALLED_AFTER, 4 * seen.longest)

    def credit(self, policy: str) -> int | None:
        """Fragments that the actors may still make for a policy, all in all; None if no actor says."""
        key = f"credit.{policy}"
        told = [seen.rates.get(key) for seen in self.seen.values() if seen.state == "alive"]
        left = [credit for credit in told if credit is not None]
        return sum(left) if left else None

    def samples(self) -> list[dict[str, Any]]:
        """Bodies of `status_sample` facts, one a living role: for the shell to record, sparsely."""
        return [
            {"role": name, "doing": seen.doing, "waits": [list(wait) for wait in seen.waits], "rates": dict(seen.rates)}
            for name, seen in self.seen.items()
            if seen.state in ("alive", "suspect") and (seen.doing or seen.rates)
        ]

    def rates(self) -> _Rates:
        """Per second, over the last seconds: 0 before there are two looks."""
        if len(self._samples) < 2 or self._samples[-1].at <= self._samples[0].at:
            return _Rates(0.0, 0.0, 0.0, {})
        old, new = self._samples[0], self._samples[-1]
        span = new.at - old.at
        policies = {}
        for name, (updates, steps) in new.policies.items():
            before = old.policies.get(name, (0, 0))
            policies[name] = ((updates - before[0]) / span, (steps - before[1]) / span)
        return _Rates(
            (new.env_steps - old.env_steps) / span,
            (new.agent_steps - old.agent_steps) / span,
            (new.facts - old.facts) / span,
            policies,
        )


class _Rates(NamedTuple):
    env_steps: float
    agent_steps: float
    facts: float
    policies: dict[str, tuple[float, float]]
