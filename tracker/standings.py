"""The standings: the fold of everything countable in a run, over all of its lives.

Invariant: every number in it is a sum of differences that facts reported, or the newest value of a fact; it is of
bounded size but for the number of policies and roles. Order between sources is the ledger's position; a source's clock
is used only to place an episode between two `clock` facts (`solved_at`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from tracker.chronicle import TOLD, words
from tracker.facts import Fact
from tracker.tallies import FRAGMENTS, PolicyTally, Returns, RoleTally, finite

EVENTS = 50
ALARMS = 20
POSITIONS = 32
MOST = 1e300
"""A limit of a run that is greater is none (and no float, where it is an integer)."""


class Standings:
    """The fold. Its attributes are what `tracker.live`, `tracker.core` and `tracker.summary` read."""

    version = 2

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
        self.seconds = 0.0
        self.clock_time = 0
        """The tracker's wall clock (ns) at the last `clock` fact, which said `seconds`."""
        self.solved_at: float | None = None
        self.env_steps = 0
        self.agent_steps = 0
        self.returns = Returns()
        """Of the per-episode mean over agents."""
        self.episodes = 0
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
        self._take: dict[str, Callable[[Fact], None]] = {
            kind: getattr(self, f"_{kind}")
            for kind in [
                "episode",
                "progress",
                "update",
                "finished",
                "fragments",
                "outcome",
                "mint",
                "run",
                "spawned",
                "exited",
                "stop_request",
                "alarm",
                "environment_error",
                "phase",
                "epoch",
                "clock",
                "life",
                "checkpoint",
                "liveness",
                "quarantine",
                "refused",
            ]
        }
        for kind in TOLD:
            self._take[kind] = self._telling(self._take.get(kind))
        self.kinds = frozenset(self._take)

    def apply(self, fact: Fact) -> None:
        """Take one fact."""
        self._take[fact.kind](fact)

    def taker(self, kind: str) -> Callable[[Fact], None]:
        """What takes facts of this kind."""
        return self._take[kind]

    def _telling(self, take: Callable[[Fact], None] | None) -> Callable[[Fact], None]:
        def told(fact: Fact) -> None:
            if take is not None:
                take(fact)
            line = words(fact.kind, fact.body)
            if line is not None:
                self.events.append([fact.time, fact.source, line])

        return told

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

    def _moved(self, source: str) -> None:
        self.moves[source] = self.moves.get(source, 0) + 1

    # --- hot: thousands a second

    def _episode(self, fact: Fact) -> None:
        body = fact.body
        self.episodes += 1
        self.moves[fact.source] = self.moves.get(fact.source, 0) + 1
        policies, tallies = body["policies"], self.policies
        sums: dict[str, float] = {}
        shared: dict[str, int] = {}
        total = 0.0
        count = 0
        for agent, value in body["returns"].items():
            if value is None:
                self.nonfinite += 1
                continue
            total += value
            count += 1
            name = policies.get(agent, agent)
            if name in sums:
                sums[name] += value
                shared[name] = shared.get(name, 1) + 1
            else:
                sums[name] = value
        if not count:
            return
        for name, value in sums.items():
            tally = tallies.get(name) or self.policy(name)
            tally.returns.add(value / shared[name] if name in shared else value)
        self.returns.add(total / count)
        if self.solved_at is None and "return" in self.stop and self.returns.reaches(self.stop["return"]):
            self.solved_at = self.seconds_at(fact.time)

    def _progress(self, fact: Fact) -> None:
        body = fact.body
        if body["env_steps"]:
            self.env_steps += body["env_steps"]
            self._moved(fact.source)
        for name, steps in body["agent_steps"].items():
            self.agent_steps += steps
            self.policy(name).agent_steps += steps
        if "dropped" in body:
            for name, dropped in body["dropped"].items():
                self.policy(name).fragments["dropped"] += dropped

    def _update(self, fact: Fact) -> None:
        body = fact.body
        self.moves[fact.source] = self.moves.get(fact.source, 0) + 1
        tally = self.policy(body["policy"])
        tally.updates += 1
        tally.version = max(tally.version, tuple(body["version"]))
        tally.losses = body["losses"]
        self._use(tally, body)

    def _finished(self, fact: Fact) -> None:
        self.finished[fact.body["policy"]] = fact.body["reason"]

    def _fragments(self, fact: Fact) -> None:
        self._use(self.policy(fact.body["policy"]), fact.body)

    def _use(self, tally: PolicyTally, body: Any) -> None:
        tally.agent_steps_used += body["agent_steps"]
        staleness = tally.staleness
        for behind, count in body["staleness"].items():
            key = int(behind)
            staleness[key] = staleness.get(key, 0) + count
        fragments = tally.fragments
        fragments["consumed"] += body["consumed"]
        fragments["stale"] += body["stale"]
        fragments["refused"] += body["refused"]
        fragments["lost"] += body["lost"]

    def _outcome(self, fact: Fact) -> None:
        self._moved(fact.source)

    def _mint(self, fact: Fact) -> None:
        self._moved(fact.source)

    # --- of the launcher

    def _run(self, fact: Fact) -> None:
        body = fact.body
        self.run, self.seed, self.launch, self.config = body["name"], body["seed"], body["life"], finite(body["config"])
        stop = self.config.get("stop")
        known = {name: stop.get(name) for name in ("seconds", "env_steps", "return")} if isinstance(stop, dict) else {}
        numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
        new = {name: float(value) for name, value in numbers.items() if abs(value) <= MOST}
        if new.get("return") != self.stop.get("return"):
            self.solved_at = None
        self.stop = new
        self.stop_requested = None
        self.finished = {}
        for role in self.roles.values():
            role.spawns, role.running = 0, False

    def _spawned(self, fact: Fact) -> None:
        body = fact.body
        role = self.role(body["role"])
        role.kind, role.pid, role.attempt = body["kind"], body["pid"], body["attempt"]
        role.spawns += 1
        role.restarts += role.spawns > 1
        role.running, role.state, role.spawned_at = True, "", fact.time

    def _exited(self, fact: Fact) -> None:
        role = self.role(fact.body["role"])
        role.exits += 1
        role.running, role.expected = False, fact.body["expected"]

    def _stop_request(self, fact: Fact) -> None:
        if self.stop_requested is None or fact.body["failed"]:
            self.stop_requested = [fact.body["reason"], fact.body["failed"]]

    def _alarm(self, fact: Fact) -> None:
        text = " ".join(fact.body["text"].split())[:500]
        if text not in self.alarms:
            self.alarms.append(text)

    def _environment_error(self, _: Fact) -> None:
        self.environment_errors += 1

    # --- of the tracker

    def _phase(self, fact: Fact) -> None:
        body = fact.body
        self.phase, self.reason, self.failed = body["phase"], body["reason"], body["failed"]
        self.phase_launch = body.get("launch", self.launch)
        if self.phase == "starting":
            self.stop_requested = None  # one that was meant for an earlier launch
        self.phases = [*self.phases[-63:], [self.phase, self.seconds, self.reason]]

    def _epoch(self, fact: Fact) -> None:
        self.epoch = fact.body["epoch"]

    def _clock(self, fact: Fact) -> None:
        self.seconds, self.clock_time = fact.body["seconds"], fact.time
        self.duplicates += fact.body.get("duplicates", 0)

    def _life(self, fact: Fact) -> None:
        tally = self.policy(fact.body["policy"])
        tally.life, tally.incarnation = fact.body["life"], fact.body["incarnation"]
        self.finished.pop(fact.body["policy"], None)

    def _checkpoint(self, fact: Fact) -> None:
        body = fact.body
        tally = self.policy(body["policy"])
        self.checkpoints += 1
        version = tuple(body["version"])
        tally.checkpoint = version if tally.checkpoint is None else max(tally.checkpoint, version)
        tally.positions[body["file"]] = fact.position
        if body["best"]:
            tally.best_score, tally.best_file = body["score"], body["file"]
        while len(tally.positions) > POSITIONS:
            del tally.positions[next(file for file in tally.positions if file != tally.best_file)]

    def _liveness(self, fact: Fact) -> None:
        role = self.role(fact.body["role"])
        state = fact.body["state"]
        role.state, role.incarnation = "alive" if state == "returned" else state, fact.body["incarnation"]

    def _quarantine(self, fact: Fact) -> None:
        self.quarantined += fact.body["count"]

    def _refused(self, _: Fact) -> None:
        self.refused += 1

    # --- read

    def seconds_at(self, time_ns: int) -> float:
        """Seconds of running, over all lives, at a wall clock time after the last `clock` fact."""
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
        "seconds",
        "clock_time",
        "solved_at",
        "env_steps",
        "agent_steps",
        "episodes",
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
        plain["stop"], plain["moves"], plain["finished"] = dict(self.stop), dict(self.moves), dict(self.finished)
        plain["returns"] = self.returns.plain()
        plain["policies"] = {name: tally.plain() for name, tally in self.policies.items()}
        plain["roles"] = {name: tally.plain() for name, tally in self.roles.items()}
        plain["events"], plain["alarms"] = [list(event) for event in self.events], list(self.alarms)
        return plain

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        for name in self._plainly:
            setattr(self, name, plain[name])
        self.stop, self.moves, self.finished = dict(plain["stop"]), dict(plain["moves"]), dict(plain["finished"])
        self.returns = Returns.of(plain["returns"])
        self.policies = {name: PolicyTally.of(tally) for name, tally in plain["policies"].items()}
        self.roles = {name: RoleTally.of(tally) for name, tally in plain["roles"].items()}
        self.events = deque((list(event) for event in plain["events"]), maxlen=EVENTS)
        self.alarms = deque(plain["alarms"], maxlen=ALARMS)


__all__ = ["FRAGMENTS", "Standings"]
