"""One launch of a run: the shell around the supervisor, the engines and the launcher's own spoke.

Invariant: the launcher computes nothing and writes nothing but captured logs; it decides nothing either (that is
`supervision`), and every exit that it saw becomes a fact.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import IO, Any, Protocol

from broker import clock, files
from broker import messages as m
from broker.descendants import end_children
from broker.errors import RequestError
from broker.exits import describe
from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.station import Gauge
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity
from launcher import decisions as d
from launcher import words
from launcher.child import STATUS_REQUEST
from launcher.directory import RunDirectory, last_words
from launcher.engines import Engine, Exited, NurseryEngine, PlainEngine, Started
from launcher.host import open_log
from launcher.lifeline import Lifeline
from launcher.plan import Plan, child_of, tracker_address
from launcher.progress import Progress
from launcher.prompting import is_simulated
from launcher.supervision import Supervisor

STEP = 0.02
"""Seconds between looks at the processes."""
FLUSH_SECONDS = 2.0
NEWS_SECONDS = 0.5
"""The news that the run is ending may reach a role before it reaches the launcher, by so much."""


class View(Protocol):
    """What shows the run: the dashboard, or plain lines."""

    def show(self, document: dict[str, Any]) -> None:
        """A new standings document."""

    def tick(self) -> None:
        """Some time has passed."""

    def close(self) -> None:
        """Leave the terminal as it was."""


@dataclass
class Launch:
    """One launch of a run: spawns, watches, restarts, ends."""

    plan: Plan
    where: RunDirectory
    lifeline: Lifeline
    nursery: NurseryEngine
    resumed: bool = False
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    began: bool = False
    """Whether a role was ever requested: from then on the directory may hold work."""
    wall: Callable[[], int] = time.time_ns
    """The wall clock, read once to set the run's clock."""
    _logs: dict[tuple[str, int], IO[bytes]] = field(default_factory=dict)
    """The open log of each running attempt, so that its last words can be read even if the folder is removed."""
    strangers: frozenset[int] = frozenset()
    """Children of this process that do not belong to the run."""
    _pids: dict[str, int] = field(default_factory=dict)
    _exits: dict[str, int] = field(default_factory=dict)
    _outcome: d.EndRun | None = None
    _farewell: threading.Thread | None = None
    _failed: bool = False
    """What the tracker says of the run."""
    _held: list[tuple[float, Started | Exited]] = field(default_factory=list)
    _interrupts: list[str] = field(default_factory=list)
    _told_interrupts: int = 0
    problem: d.GiveUp | None = None
    """The first role that was given up, and its last words."""
    fell: str = ""
    """The last role that fell unexpectedly, how, and its last words."""
    _tracker_since: float = math.inf
    """When the tracker's process was started."""
    _frozen_since: float = math.inf
    """Since when the tracker seems to be frozen."""
    _gauge: Gauge = field(default_factory=Gauge)
    _progress: Progress = field(default_factory=Progress)

    def run(self, view: Callable[[], View]) -> int:
        """Until every process is gone. Returns the exit status."""
        run = self.plan.run
        self.number, newest = self._before()
        self.clock = clock.begin(self.wall(), newest)
        self.engines: dict[str, Engine] = {"plain": PlainEngine(self.lifeline), "nursery": self.nursery}
        self.supervisor = Supervisor(
            self.plan.kinds(),
            restarts=run.supervision.restarts,
            backoff_seconds=run.supervision.backoff_seconds,
            window_seconds=run.supervision.window_seconds,
            ending_seconds=run.learner.ending_seconds,
            attempts_before=self.where.attempts_before(),
        )
        self.reactor = Reactor("launcher-io")
        identity = Identity(self.where.token(), "launcher", new_incarnation(self.clock), self.clock)
        self.launched = clock.born(identity.incarnation) // 1_000_000
        self.spoke = TrackerSpoke(self.reactor, identity, "launcher", tracker_address(run, self.where), standings=True)
        self._first_facts()
        ending = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` asked for that
            ending.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._interrupt) for number in ending}
        shown = view()
        try:
            self._loop(shown)
        finally:
            shown.close()
            for engine in self.engines.values():
                engine.close(1.0)
            self.reactor.close(2.0)
            for number, handler in before.items():
                signal.signal(number, handler)
        assert self._outcome is not None
        if self.problem is not None and self._outcome.status != STATUS_REQUEST:
            what = f"{self.problem.role}: {self.problem.reason}\n{self.problem.last_words}"
            print(words.lines(what), file=sys.stderr)
        return max(self._outcome.status, int(self._failed))

    def _loop(self, view: View) -> None:
        self._decide(d.Begin())
        shown: bytes | None = None
        while self._outcome is None:
            happened = self._happened()
            if self.spoke.phase in ("stopping", "ended"):
                self._decide(d.Stopping(self.spoke.reason))
            for event in happened:
                self._seen(event)
            if self.spoke.phase in ("stopping", "ended"):
                self._leave_when_alone()
            while self._told_interrupts < len(self._interrupts):
                self._decide(d.Interrupt(self._interrupts[self._told_interrupts]))
                self._told_interrupts += 1
            self._decide(d.Tick())
            self._end_frozen(time.monotonic())
            standings = self.spoke.standings
            if standings is not None and standings is not shown:
                shown = standings
                document = json.loads(standings)
                self._failed = bool(document.get("failed"))
                for role in self._progress.observe(document, self._pids):
                    self._decide(d.Progressed(role))
                self._draw(partial(view.show, document))
            if self._gauge.due():
                self.spoke.say(m.Status(doing=f"watching {len(self._pids)} processes", rates=self._gauge.read()))
            self._draw(view.tick)
            time.sleep(STEP)

    def _end_frozen(self, now: float) -> None:
        """End a tracker that has stopped in the middle: whoever waits for it would wait for ever."""
        limit = self.plan.run.supervision.silence_seconds
        heard = now - self.spoke.silence
        if "tracker" not in self._pids or heard < self._tracker_since or now - heard < limit:
            self._frozen_since = math.inf
            return
        self._frozen_since = min(self._frozen_since, now)
        if now - self._frozen_since > 1.0:  # had this process been stopped, it would have read the news by now
            self._frozen_since = math.inf
            self._tracker_since = math.inf
            self._fact("alarm", {"text": f"the tracker said nothing for {limit:g} s: it is started again"})
            self._end("tracker", signal.SIGKILL)

    def _draw(self, draw: Callable[[], None]) -> None:
        """A run does not end because nobody reads any more what it prints (`| head`, a terminal that was closed)."""
        try:
            draw()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)

    def _happened(self) -> list[Started | Exited]:
        """What the engines saw. Who left well has heard that the run is ending, perhaps before us: we wait for it."""
        now = time.monotonic()
        self._held += [(now, event) for engine in self.engines.values() for event in engine.events()]
        happened: list[Started | Exited] = []
        while self._held:
            since, event = self._held[0]
            left_well = isinstance(event, Exited) and event.status == 0
            if left_well and self.spoke.phase not in ("stopping", "ended") and now - since < NEWS_SECONDS:
                break
            happened.append(event)
            del self._held[0]
        return happened

    # --- events and actions ----------------------------------------------------------------------------------------

    def _seen(self, event: Any) -> None:
        if isinstance(event, Started):
            self._pids[event.role] = event.pid
            if event.role == "tracker":
                self._tracker_since = time.monotonic()
            kind = self.plan.role(event.role).kind
            self._fact("spawned", {"role": event.role, "kind": kind, "pid": event.pid, "attempt": event.attempt})
            self._decide(d.RoleStarted(event.role, event.attempt, event.pid))
            return
        self._pids.pop(event.role, None)
        self._end_left_behind()
        self._exits[event.role] = event.pid or 0
        self._decide(d.RoleExited(event.role, event.attempt, event.status, self._last_words(event)))

    def _last_words(self, event: Exited) -> str:
        path = self.where.log(event.role, event.attempt)
        text = event.words
        with ExitStack() as logs:
            opened = [self._logs.pop((event.role, event.attempt), None)]
            with suppress(OSError, RequestError):  # a role opens a new log if the folder was removed before it began
                opened.append(os.fdopen(files.open_file(path), "rb"))
            for log in filter(None, opened):
                text = text or last_words(logs.enter_context(log))
        return text

    def _decide(self, event: d.Event) -> None:
        for action in self.supervisor.handle(event, time.monotonic()):
            self._do(action)

    def _do(self, action: d.Action) -> None:
        match action:
            case d.Spawn(role, attempt):
                self._spawn(role, attempt)
            case d.Report():
                if not action.expected:
                    self.fell = f"{action.role} ended with {describe(action.status)}\n{action.last_words}"
                self._fact(
                    "exited",
                    {
                        "role": action.role,
                        "pid": self._exits.get(action.role, 0),
                        "attempt": action.attempt,
                        "status": action.status,
                        "signal": action.signal,
                        "expected": action.expected,
                        "last_words": action.last_words,
                    },
                )
            case d.Terminate(role, _):
                self._end(role, signal.SIGTERM)
            case d.Kill(role, _):
                self._end(role, signal.SIGKILL)
            case d.GiveUp():
                self.problem = self.problem or action
                self._fact("alarm", {"text": f"{action.role}: {action.reason}"[: m.MAX_TEXT]})
            case d.AskStop(reason, failed):
                self._fact("stop_request", {"reason": reason[: m.MAX_TEXT], "failed": failed})
            case d.EndRun():
                self._outcome = action

    def _spawn(self, role: str, attempt: int) -> None:
        self.began = True
        path = self.where.log(role, attempt)
        try:
            self._logs[role, attempt] = open_log(path)
        except (OSError, RequestError) as error:
            why = f"its log {path} cannot be written: {getattr(error, 'strerror', None) or error}"
            self._held.append((time.monotonic(), Exited(role, attempt, None, None, why)))
            return
        spec = child_of(self.plan, role, attempt, self.where, self.launched, self.clock)
        self.engines[self.plan.role(role).engine].spawn(spec)

    def _end(self, role: str, number: signal.Signals) -> None:
        pid = self._pids.get(role)
        if pid is None:
            return
        engine = self.engines[self.plan.role(role).engine]
        try:
            (engine.kill if number == signal.SIGKILL else engine.terminate)(pid)
        except ValueError:  # it went by itself in between
            return

    def _end_left_behind(self) -> None:
        """End the orphans that this process adopted from an ended role. The nursery adopts those of its children."""
        roles = [pid for engine in self.engines.values() for pid in engine.pids()]
        end_children({*self.strangers, *roles, *filter(None, [self.nursery.pid])})

    def _fact(self, kind: str, body: dict[str, Any]) -> None:
        self.spoke.fact(kind, body, timeout=0.0 if self.spoke.unacknowledged else None)

    def _first_facts(self) -> None:
        run = self.plan.run
        self._fact(
            "run",
            {
                "name": run.name,
                "seed": run.seed,
                "life": self.number,
                "resumed": self.resumed,
                "config": {**run.to_plain(), "simulation": is_simulated(run)},
                "changed": {key: list(values) for key, values in self.changed.items()},
                "pid": os.getpid(),
            },
        )

    def _leave_when_alone(self) -> None:
        """Once actors and learners are gone: say the last facts and Farewell, so that the tracker may end."""
        if self._farewell is None and set(self._pids) <= {"tracker"}:

            def leave() -> None:
                self.spoke.flush(FLUSH_SECONDS)
                self.spoke.farewell("the run is ending", 1.0)

            self._farewell = threading.Thread(target=leave, name="farewell", daemon=True)
            self._farewell.start()

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self._interrupts.append("interrupted" if number == signal.SIGINT else signal.Signals(number).name)

    def _before(self) -> tuple[int, int]:
        """Return the number of this launch, and the latest time of the run's clock before it."""
        if not self.where.ledger.exists():
            return 1, 0
        from tracker.ledger import LedgerReader

        with LedgerReader(self.where.ledger) as ledger:
            launches = sum(1 for source, _ in ledger.last_sequences() if source == "launcher")
            return launches + 1, ledger.newest_time()
