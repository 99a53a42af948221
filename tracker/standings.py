"""The standings: the fold of everything countable in a run, over all of its lives.

Invariant: every number in it is a sum of differences that facts reported, or the newest value of a fact; it is of
bounded size but for the number of policies and roles. Order between sources is the ledger's position; a source's clock
is used only to place an episode between two `clock` facts (`solved_at`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracker.chronicle import TOLD, words
from tracker.counted import Counted
from tracker.facts import Fact
from tracker.tallies import FRAGMENTS, PolicyTally, finite

POSITIONS = 32
CAUSES = ("environment_error", "rollout_error", "generation_failed", "pool_accept", "refusal", "exited")
"""Kinds of facts that can explain why nothing was learned, in the order in which a run depends on them."""
MOST = 1e300
"""A limit of a run that is greater is none (and no float, where it is an integer)."""


class Standings(Counted):
    """The fold. Its attributes are what `tracker.live`, `tracker.core` and `tracker.summary` read."""

    version = 4

    def __init__(self) -> None:
        super().__init__()
        self._take: dict[str, Callable[[Fact], None]] = {
            kind: getattr(self, f"_{kind}")
            for kind in [
                "episode",
                "progress",
                "update",
                "finished",
                "fragments",
                "refusal",
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
                if fact.kind in CAUSES and not fact.body.get("expected", False):
                    self.faults.setdefault(fact.kind, line)

        return told

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
        tally.fault = body.get("fault", "")
        tally.unsound = tally.unsound + 1 if tally.fault else 0
        self._use(tally, body)

    def _finished(self, fact: Fact) -> None:
        if fact.body.get("failed"):  # a policy that cannot go on ends the run, also if the others could
            self._stop_request(fact)
        else:
            self.finished[fact.body["policy"]] = fact.body["reason"]

    def _fragments(self, fact: Fact) -> None:
        self._use(self.policy(fact.body["policy"]), fact.body)

    def _refusal(self, fact: Fact) -> None:
        self.policy(fact.body["policy"]).refusal = fact.body["reason"]

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
        self.outcomes += 1
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
        if role.kind == "learner" and not role.expected and self.phase == "stopping":
            self.ending_fault = words("exited", fact.body) or ""

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
        if self.phase == "starting":  # the first fact of a launch: what is known of its end belongs to earlier ones
            self.stop_requested, self.finished, self.faults, self.ending_fault = None, {}, {}, ""
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


__all__ = ["FRAGMENTS", "Standings"]
