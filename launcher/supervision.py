"""When a role is started, restarted, given up and ended: decisions only, no process and no clock.

    supervisor = Supervisor({"tracker": "tracker", "actor-0": "actor"}, restarts=5, backoff_seconds=0.5)
    actions = supervisor.handle(Begin(), now)

Invariant: a role has at most one process (no Spawn before the Exited of the attempt before it); no role is spawned more
than `restarts` + 1 times within `window_seconds`, nor within any time in which it makes no progress; only the tracker
is spawned while the tracker is down, and after Stopping; from the first event that ends the run EndRun follows within
bounded time, as long as Tick comes, whatever the processes do; after EndRun there are no actions.

The end has steps of at most `step_seconds` each: actors, learners (which have `ending_seconds` more for an update),
endpoints, and the tracker. A late process gets SIGTERM, `grace` seconds later SIGKILL, and is reported as late;
endpoints get SIGTERM at once, because no process needs them any more. A process that could not be killed, or that
started after it was given up, is left to the engine's `close`. A learner that fails or is killed in the end fails the
run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from broker.exits import STATUS_FINAL, describe, signal_name
from launcher.decisions import (
    Action,
    AskStop,
    Begin,
    EndRun,
    Event,
    GiveUp,
    Interrupt,
    Kill,
    Kind,
    Progressed,
    Report,
    RoleExited,
    RoleStarted,
    Spawn,
    Stopping,
    Terminate,
)

MAX_BACKOFF_SECONDS = 15.0
START_SECONDS = 60.0
"""A process that was asked for and has not started by then will not (the nursery hangs)."""
UNKILLABLE_SECONDS = 5.0
"""After SIGKILL: a process that the kernel holds is not waited for."""
COMMIT_SECONDS = 3.0
"""What the tracker has after SIGTERM, for its last commit."""

UNBORN = "the run was ending before it began"

State = Literal["idle", "waiting", "starting", "running", "gone"]


# --- the policy ----------------------------------------------------------------------------------------------------


@dataclass
class RoleState:
    """What is known of one role."""

    name: str
    kind: Kind
    state: State = "idle"
    attempt: int = 0
    due: float = 0.0
    """When it is spawned (waiting), or given up on (starting)."""
    exits: deque[float] = field(default_factory=deque)
    """Times of unexpected exits that count against the budget."""
    has_progressed: bool = False
    """Whether this attempt has made progress in its work."""
    restarts: int = 0
    signalled: float | None = None
    """When it got SIGTERM."""
    killed: float | None = None
    unborn: bool = False
    """Whether it got its signal before it had begun."""

    @property
    def lives(self) -> bool:
        """Whether there is, or may be, a process."""
        return self.state in {"starting", "running"}


class Supervisor:
    """The restart policy of one launcher. `handle` is the only door; times are seconds of any one clock."""

    def __init__(
        self,
        roles: Mapping[str, Kind],
        *,
        restarts: int = 5,
        backoff_seconds: float = 0.5,
        window_seconds: float = 60.0,
        step_seconds: float = 5.0,
        grace: float = 1.0,
        ending_seconds: float = 0.0,
        attempts_before: int = 0,
    ) -> None:
        """`ending_seconds` is the time for an update that learners have in addition to `step_seconds`.

        `attempts_before` counts the attempts of earlier launches, so that attempts (and their logs) get new numbers.
        """
        order = sorted(roles.items(), key=lambda item: ("tracker", "endpoint", "learner", "actor").index(item[1]))
        self.roles = {name: RoleState(name, kind, attempt=attempts_before) for name, kind in order}
        self.phase: Literal["idle", "running", "stopping", "ended"] = "idle"
        self.reason = ""
        self.failed = False
        self._status = 0
        self._restarts, self._backoff, self._window = restarts, backoff_seconds, window_seconds
        self._step_seconds, self._grace, self._ending_seconds = step_seconds, grace, ending_seconds
        self._steps: list[tuple[Kind, ...]] = [("actor",), ("learner",), ("endpoint",), ("tracker",)]
        self._step_end = 0.0
        self._aborted = False
        self._attempts_before = attempts_before

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about an event at time `now`, in this order."""
        if self.phase == "ended":
            return []
        actions: list[Action] = []
        match event:
            case Begin() if self.phase == "idle":
                self.phase = "running"
                for role in self.roles.values():
                    role.state, role.due = "waiting", now
            case RoleStarted():
                role = self.roles[event.role]
                if role.attempt == event.attempt and role.state == "starting":
                    role.state = "running"
                    # Signals meant for it before it was born reached nobody.
                    role.signalled = role.killed = None
                    if self.phase == "stopping" and not self._aborted and role.kind != "tracker":
                        role.signalled = now  # nobody waits for who was not there yet
                        role.unborn = True
                        actions.append(Terminate(role.name, UNBORN))
            case Progressed():
                self.roles[event.role].has_progressed = self.roles[event.role].state == "running"
            case RoleExited():
                actions += self._exited(event, now)
            case Stopping() if self.phase != "stopping":
                self._stop(event.reason, event.failed, now)
            case Interrupt() if self.phase == "stopping":
                self._abort(now)
            case Interrupt():
                self._stop(event.reason, False, now)
                actions.append(AskStop(event.reason, False))
            case _:
                pass
        return actions + self._advance(now)

    def wake(self) -> float | None:
        """When the next Tick is needed at the latest, or None."""
        if self.phase in {"idle", "ended"}:
            return None
        down = not self._tracker_lives()
        times = []
        for role in self.roles.values():
            held = role.state == "waiting" and role.kind != "tracker" and down
            if role.state in {"waiting", "starting"} and not held:
                times.append(role.due)
            if role.lives and role.killed is not None:
                times.append(role.killed + UNKILLABLE_SECONDS)
            elif role.lives and role.signalled is not None:
                times.append(role.signalled + self._grace_of(role))
            elif self.phase == "stopping" and self._steps and role.kind in self._steps[0] and role.state != "gone":
                times.append(self._step_end)
        return min(times, default=None)

    # --- exits and restarts ---

    def _exited(self, event: RoleExited, now: float) -> list[Action]:
        role = self.roles[event.role]
        if event.attempt != role.attempt or not role.lives:
            return []
        # A learner that has to be killed has not kept its last version.
        asked = role.signalled is not None and (role.kind != "learner" or role.unborn)
        late = role.killed is not None and not self._aborted
        role.state, role.signalled, role.killed = "gone", None, None
        # A status that nobody saw (the nursery had died) is no reason to think ill of who left as it was to.
        expected = self.phase == "stopping" and (asked or event.status in {0, None})
        restart_in: float | None = None
        first: list[Action] = []
        told: list[Action] = []
        if not expected and (self.phase == "running" or role.kind == "tracker"):
            restart_in, told = self._again(role, event.status, event.last_words, now)
        elif not expected and role.kind == "learner":
            reason = f"{role.name} ended with {describe(event.status)} as the run was ending: it may have kept nothing"
            if late:
                reason += f" of an update that took longer than learner.ending_seconds ({self._ending_seconds:g})"
            # Before its exit, for which the tracker waits: the run ends as failed there too.
            first = [*self._give_up(role, reason, event.last_words, 1, now), AskStop(reason, True)]
        report = Report(
            event.role, event.attempt, event.status, signal_name(event.status), expected, event.last_words, restart_in
        )
        return [*first, report, *told]

    def _again(
        self, role: RoleState, status: int | None, last_words: str, now: float
    ) -> tuple[float | None, list[Action]]:
        """Restart it in how many seconds, or None and what follows from giving up."""
        while role.has_progressed and role.exits and role.exits[0] <= now - self._window:
            role.exits.popleft()
        role.has_progressed = False
        role.exits.append(now)
        how = describe(status)
        if status == 2:
            return None, self._give_up(role, f"{role.name} was asked for what cannot be ({how})", last_words, 2, now)
        if status == STATUS_FINAL:
            return None, self._give_up(role, f"{role.name} cannot go on", last_words, 1, now)
        if len(role.exits) > self._restarts:
            over = now - role.exits[0]
            apart = (
                f"within {self._window:g} s" if over < self._window else f"in {over:.0f} s with nothing done between"
            )
            times = f"{len(role.exits)} times {apart}" if len(role.exits) > 1 else "once"
            return None, self._give_up(role, f"{role.name} ended {times}, last with {how}", last_words, 1, now)
        wait = min(self._backoff * 2.0 ** (len(role.exits) - 1), MAX_BACKOFF_SECONDS)
        if self.phase == "stopping":
            wait = 0.0  # only the tracker comes here: everyone waits for it
            self._step_end = now + self._step_length
        role.state, role.due = "waiting", now + wait
        return wait, []

    def _give_up(self, role: RoleState, reason: str, last_words: str, status: int, now: float) -> list[Action]:
        role.state = "gone"
        actions: list[Action] = [GiveUp(role.name, reason, last_words)]
        was_stopping = self.phase == "stopping"
        if not was_stopping:
            self._stop(reason, True, now)
        if not self.failed:
            self.failed, self.reason = True, f"{reason}, while stopping: {self.reason}"
        self._status = max(self._status, status)
        if role.kind == "tracker":
            self._abort(now)  # nobody is left who could tell the others to stop
        elif not was_stopping:
            actions.append(AskStop(reason, True))
        return actions

    # --- the end ---

    def _stop(self, reason: str, failed: bool, now: float) -> None:
        self.phase, self.reason, self.failed = "stopping", reason, failed
        self._status = max(self._status, int(failed))
        self._step_end = now + self._step_seconds
        for role in self.roles.values():
            if role.state == "waiting" and role.kind == "tracker":
                role.due = now  # everyone waits for it
            elif role.state in {"idle", "waiting"}:
                role.state = "gone"

    def _abort(self, now: float) -> None:
        if self._aborted:
            return
        self._aborted = True
        self._steps = [("actor", "learner", "endpoint"), ("tracker",)]
        self._step_end = now
        for role in self.roles.values():
            if role.state == "waiting":
                role.state = "gone"

    # --- what time brings ---

    def _advance(self, now: float) -> list[Action]:
        actions = self._spawns(now)
        if self.phase in {"running", "stopping"}:
            for role in self.roles.values():
                if role.state == "starting" and now >= role.due:
                    role.due = now + START_SECONDS
                    reason = f"{role.name} was asked for and no process came within {START_SECONDS:.0f} s"
                    if role.kind == "tracker" or self.phase == "running":
                        actions += self._give_up(role, reason, "", 1, now)
        if self.phase == "stopping":
            actions += self._end(now)
        return actions

    def _spawns(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for role in self.roles.values():
            if role.state != "waiting" or now < role.due:
                continue
            if role.kind != "tracker" and not self._tracker_lives():
                continue  # a dead tracker is restarted first
            role.restarts += role.attempt > self._attempts_before
            role.attempt += 1
            role.state, role.due = "starting", now + START_SECONDS
            actions.append(Spawn(role.name, role.attempt))
        return actions

    def _end(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for role in self.roles.values():  # who was told to end before it was its turn
            if role.signalled is not None and self._steps and role.kind not in self._steps[0]:
                actions += self._hasten(role, now)
        while self._steps:
            left = [role for role in self.roles.values() if role.kind in self._steps[0] and role.state != "gone"]
            for role in left:
                actions += self._hasten(role, now)
            if any(role.state != "gone" for role in left):
                return actions
            self._steps.pop(0)
            at_once = self._aborted or self._steps[:1] == [("endpoint",)]
            self._step_end = now if at_once else now + self._step_length
        self.phase = "ended"
        return [*actions, EndRun(self.reason, self.failed, max(self._status, int(self.failed)))]

    @property
    def _step_length(self) -> float:
        """Seconds of the step that begins now: learners may finish an update."""
        return self._step_seconds + (self._ending_seconds if self._steps[:1] == [("learner",)] else 0.0)

    def _tracker_lives(self) -> bool:
        """Whether the tracker has a process; true where there is none to supervise (a joining host)."""
        return all(role.lives for role in self.roles.values() if role.kind == "tracker")

    def _grace_of(self, role: RoleState) -> float:
        return max(self._grace, COMMIT_SECONDS) if role.kind == "tracker" else self._grace

    def _hasten(self, role: RoleState, now: float) -> list[Action]:
        if role.killed is not None and now >= role.killed + UNKILLABLE_SECONDS:
            role.state = "gone"
        if role.state == "gone" or (role.signalled is None and now < self._step_end):
            return []
        seconds = self._step_seconds + (self._ending_seconds if role.kind == "learner" else 0.0)
        why = "the run is aborted" if self._aborted else f"still there {seconds:.0f} s after it was to end"
        if self._steps and role.kind not in self._steps[0]:
            why = UNBORN
        elif role.kind == "endpoint" and not self._aborted:
            why = "nobody is left who needs it"
        if role.state == "waiting":
            role.state = "gone"
            return []
        if role.signalled is None:
            role.signalled = now
            return [Terminate(role.name, why)]
        if role.killed is None and now >= role.signalled + self._grace_of(role):
            role.killed = now
            return [Kill(role.name, f"{why}, and deaf to SIGTERM")]
        return []
