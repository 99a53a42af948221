"""The phases of a run: starting, running, stopping, ended; and its clock.

Invariants: a phase follows from committed facts and from who is there; time counts only while the run is running or
stopping, over all its lives. Nothing changes here but by `clock` and `phase` facts that are committed, and the marks of
this incarnation of the tracker.
"""

from __future__ import annotations

import math
from typing import Any

from tracker.exchange import Now, Settings
from tracker.standings import Standings
from tracker.verdict import shortfall

CLOCK_SECONDS = 5.0
ENDINGS = ("stopping", "ended")

OwnFacts = list[tuple[str, dict[str, Any]]]


class Phases:
    """What is decided about phases. `members` is the core's: by name, (role, incarnation, liveness state)."""

    def __init__(self, settings: Settings, standings: Standings, members: dict[str, tuple[str, str, str]]) -> None:
        self.settings, self.standings, self.members = settings, standings, members
        self.duplicates = 0
        """Facts that came again and that the shell's hub dropped, all in all: `clock` facts record the differences."""
        self._restarted = standings.phase_launch == settings.launch
        self._anchor: tuple[float, float] | None = None
        self._clock_at = -math.inf
        self._stopping_at: float | None = None
        self._reported_duplicates = 0

    def seconds(self, now: Now) -> float:
        """Seconds of running over all lives. Time in which the tracker was down while the run went on is counted."""
        standings = self.standings
        if standings.phase not in ("running", "stopping") or standings.phase_launch != self.settings.launch:
            self._anchor = None
            return standings.seconds
        if self._anchor is None:
            self._anchor = (now.steady, standings.seconds_at(now.clock))
        return self._anchor[1] + now.steady - self._anchor[0]

    def clock(self, now: Now) -> tuple[str, dict[str, Any]]:
        """The fact that says how long the run has been running."""
        self._clock_at = now.steady
        duplicates, self._reported_duplicates = self.duplicates - self._reported_duplicates, self.duplicates
        return "clock", {"seconds": round(self.seconds(now), 3), "duplicates": duplicates}

    def decide(self, now: Now, dry: str) -> OwnFacts:
        """The change of phase that is due now, or a `clock` fact, if one is. `dry`: why nothing is left to draw."""
        standings, settings = self.standings, self.settings
        seconds = self.seconds(now)
        to: tuple[str, str, bool] | None = None
        if standings.phase_launch != settings.launch or not standings.phase:
            to = ("starting", "", False)
        elif standings.phase in ("starting", "running") and standings.stop_requested is not None:
            to = ("stopping", *standings.stop_requested)
        elif standings.phase == "starting" and self._assembled():
            to = ("running", "", False)
        elif standings.phase == "running":
            reason = self._reached(seconds) or self._finished()
            to = ("stopping", reason or dry, not reason) if reason or dry else None
        elif standings.phase == "stopping":
            if self._stopping_at is None:
                self._stopping_at = now.steady
            waiting = self._awaited()
            if not waiting:
                to = ("ended", *self._judged(standings.reason))
            elif now.steady - self._stopping_at >= settings.ending_seconds:
                silent = f"no farewell from {', '.join(waiting)} within {settings.ending_seconds:g} s"
                to = ("ended", *self._judged(f"{standings.reason} ({silent})"))
        if to is not None:
            phase, reason, failed = to
            body = {"phase": phase, "reason": reason, "failed": failed, "launch": settings.launch}
            return [self.clock(now), ("phase", body)]
        if standings.phase in ("running", "stopping") and now.steady - self._clock_at >= CLOCK_SECONDS:
            return [self.clock(now)]
        return []

    def cut_short(self, reason: str, now: Now) -> OwnFacts:
        """The facts by which a run ends here and now, without Farewells.

        A run that was ending for a reason of its own keeps that reason; one that has ended stays as it ended.
        """
        standings, failed = self.standings, True
        if standings.phase == "ended" and standings.phase_launch == self.settings.launch:
            return []
        if standings.stop_requested is not None:
            reason, failed = f"{standings.stop_requested[0]} (cut short)", standings.stop_requested[1]
        elif standings.phase == "stopping":
            reason, failed = f"{standings.reason} (cut short)", standings.failed
        body = {"phase": "ended", "reason": reason, "failed": failed, "launch": self.settings.launch}
        return [self.clock(now), ("phase", body)]

    @property
    def env_steps_left(self) -> int | None:
        """Number of env steps that the run may still make; None without a limit."""
        limit = self.settings.stop_env_steps
        return None if limit is None else max(0, limit - self.standings.env_steps)

    def _assembled(self) -> bool:
        there = {name for name, (_, _, state) in self.members.items() if state in ("alive", "suspect")}
        acting = any(role == "actor" and name in there for name, (role, _, _) in self.members.items())
        return acting and self.settings.learners <= there

    def _awaited(self) -> list[str]:
        names = {
            name
            for name, (role, _, state) in self.members.items()
            if role in ("actor", "learner", "endpoint") and state in ("alive", "suspect")
        }
        if self._restarted:  # learners that have not spoken to this incarnation yet may hold a last checkpoint
            names |= self.settings.learners - self.members.keys()
        roles = self.standings.roles
        if self._restarted:  # nor is anybody forgotten who has not spoken to this incarnation yet
            waited = ("actor", "endpoint")
            names |= {
                name
                for name, role in roles.items()
                if role.kind in waited and role.running and name not in self.members
            }
        return sorted(name for name in names if name not in roles or not roles[name].spawned_at or roles[name].running)

    def _reached(self, seconds: float) -> str:
        settings, standings = self.settings, self.standings
        if settings.stop_seconds is not None and seconds >= settings.stop_seconds:
            return f"{settings.stop_seconds:g} seconds were reached"
        if settings.stop_env_steps is not None and standings.env_steps >= settings.stop_env_steps:
            return f"{settings.stop_env_steps:,} env steps were reached"
        if settings.stop_return is not None and standings.returns.reaches(settings.stop_return):
            return f"a mean return of {settings.stop_return:g} over 100 episodes was reached"
        return ""

    def _judged(self, reason: str) -> tuple[str, bool]:
        """Return why the run ended, and whether it failed: a run that reached its end may have learned nothing."""
        if self.standings.failed:
            return reason, True
        requested = self.standings.stop_requested
        if requested is not None and requested[1]:  # a role fell as the run was ending
            return f"{reason}, but {requested[0]}", True
        fault = shortfall(self.standings, finished=bool(self._finished()))
        return (f"{reason}, but {fault}", True) if fault else (reason, False)

    def _finished(self) -> str:
        """Why the run is done: every policy says that it has nothing left to do."""
        finished, learners = self.standings.finished, self.settings.learners
        if not learners or not learners <= {f"learner-{policy}" for policy in finished}:
            return ""
        told = [reason if len(finished) == 1 else f"{policy}: {reason}" for policy, reason in sorted(finished.items())]
        return "; ".join(told) or "finished"
