"""What every role of a run has: its place in the run, its incarnation, its reactor and its spoke to the tracker.

Invariant: a role learns from its spec where the token file is, never the token; it owns its context (in the
reactor) and terminates it when the station closes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from broker import files
from broker import messages as m
from broker.errors import RunError, Superseded, Unreachable
from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.watchdog import Watchdog, Watched
from broker.wire import Identity

STATUS_EVERY = 0.5
SERVE_SECONDS = 0.1


@dataclass(frozen=True)
class Spec:
    """What a role is told when it is spawned: plain configuration only."""

    role: str
    kind: m.RoleKind
    index: int
    directory: str
    """The run directory."""
    sockets: str
    """The private folder for ipc sockets."""
    tracker: str
    """The tracker's address."""
    plan: dict[str, Any]
    """The resolved plan of the run (`launcher.plan`)."""
    policy: str | None = None
    attempt: int = 0
    launch: int = 1
    """When the launcher was started (ms, by the run's clock): distinguishes the launches of a run directory."""
    clock: int = 0
    """The run's clock (`broker.clock`)."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Spec:
        """From what travelled; unknown keys are another layer's business."""
        return cls(**{name: plain[name] for name in cls.__dataclass_fields__ if name in plain})

    def token(self) -> str:
        """The run token, from its file in the run directory."""
        return files.read(Path(self.directory) / "token", 256).decode("ascii", "replace").strip()

    def identity(self) -> Identity:
        """A fresh incarnation of this role."""
        return Identity(self.token(), self.role, new_incarnation(self.clock), self.clock)

    @property
    def run(self) -> dict[str, Any]:
        """The resolved run file."""
        resolved: dict[str, Any] = self.plan["run"]
        return resolved

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.run["seed"])


class Gauge:
    """What a process uses: `cpu` in percent of one core since the last look, `rss_mb` in MiB."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._at = -STATUS_EVERY

    def due(self) -> bool:
        """Whether it is time to say it again."""
        return time.monotonic() - self._at >= STATUS_EVERY

    def read(self) -> dict[str, float | int | None]:
        """Measure the process now. Empty if the system gives no answer, for example without a free file descriptor."""
        self._at = time.monotonic()
        try:
            with self._process.oneshot():
                return {
                    "cpu": self._process.cpu_percent(),
                    "rss_mb": round(self._process.memory_info().rss / 2**20, 1),
                }
        except (psutil.Error, OSError):
            return {}


@dataclass
class Station:
    """A role at work: identity, reactor, spoke to the tracker, and what it says of itself."""

    spec: Spec
    identity: Identity
    reactor: Reactor
    tracker: TrackerSpoke
    ending: threading.Event
    doing: str = "starting"
    rates: dict[str, float | int | None] = field(default_factory=dict)
    waits: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Whom the role waits for → (for what, since when in monotonic seconds)."""
    watched: Watched | None = None
    """What tells the watchdog which call of user code the role's thread is in."""
    reported_at: float = field(default_factory=time.monotonic)
    """When the role's thread called `report` last."""
    _gauge: Gauge = field(default_factory=Gauge)

    def __post_init__(self) -> None:
        self._watchdog = Watchdog(self)

    @classmethod
    def open(cls, spec: Spec, ending: threading.Event, *, serves: str | None = None, **more: Any) -> Station:
        """Make a station; `more` may hold `identity` and `reactor` that exist already."""
        identity = more.get("identity") or spec.identity()
        reactor = more.get("reactor") or Reactor(f"{spec.role}-io")
        tracker = TrackerSpoke(reactor, identity, spec.kind, spec.tracker, policy=spec.policy, serves=serves)
        return cls(spec, identity, reactor, tracker, ending)

    @property
    def stopping(self) -> bool:
        """Whether the run is ending or this role was told to; RunError when it cannot go on."""
        if self.reactor.failure is not None:
            raise RunError(f"{self.spec.role}: its sockets failed: {self.reactor.failure!r}") from self.reactor.failure
        if self.tracker.superseded:
            raise Superseded(f"{self.spec.role} was superseded by a newer process of that name")
        return self.tracker.phase in ("stopping", "ended") or self.ending.is_set()

    def wait_for(self, whom: str, what: str, condition: Callable[[], Any]) -> bool:
        """Wait until `condition` holds or the run is ending, saying for whom; True if it holds.

        `condition` may itself wait a little.
        """
        since = time.monotonic()
        try:
            while not condition():
                if self.stopping:
                    return bool(condition())
                self.waits.setdefault(whom, (what, since))
                self.report()
                self.ending.wait(0.001)
        finally:
            self.waits.pop(whom, None)
        return True

    def fact(self, kind: str, body: Mapping[str, Any]) -> int:
        """Say a fact; gives its sequence. Waits, and says so, while 10,000 are not durable.

        Unreachable if it is told to end meanwhile.
        """
        since = time.monotonic()
        while True:
            try:
                sequence = self.tracker.fact(kind, body, timeout=0.25)
            except Unreachable:
                if self.ending.is_set():
                    raise
                self.waits.setdefault("tracker", ("room for facts", since))
                self.report()
            else:
                if self.waits.get("tracker", ("", 0.0))[0] == "room for facts":
                    del self.waits["tracker"]
                return sequence

    def serve(self) -> None:
        """Be there until told to end: an endpoint outlives `stopping`, as actors may need it to their last rollout."""
        while not (self.stopping and (self.ending.is_set() or self.tracker.phase == "ended")):
            self.report()
            self.ending.wait(SERVE_SECONDS)

    def report(self, *, now: bool = False) -> None:
        """Say what this role does, at most every half second."""
        self.reported_at = time.monotonic()
        if now or self._gauge.due():
            self.say(self.doing)

    def say(self, doing: str, rates: Mapping[str, float] = MappingProxyType({})) -> None:
        """Say this of the role now, from any thread, beside what it waits for and its rates."""
        clock = time.monotonic()
        waits = self.waits.copy()  # the role's thread may go on meanwhile
        self.tracker.say(
            m.Status(
                doing=doing[:200],
                waits=tuple((whom, what, clock - since) for whom, (what, since) in waits.items()),
                rates={**self._gauge.read(), **self.rates.copy(), **rates},
            )
        )

    def close(self, reason: str = "", timeout: float = 3.0) -> bool:
        """Flush the facts, say Farewell, terminate the context. True if every fact is durable."""
        self._watchdog.close()
        flushed = self.tracker.flush(timeout)
        self.tracker.farewell(reason, 1.0)  # if it is lost, the tracker will find this role silent
        self.reactor.close()
        return flushed

    def leave(self, flushed: bool) -> None:
        """End a role that has done its work. RunError unless its last facts were written (`close` returned True)."""
        if not flushed:
            raise RunError(
                f"{self.spec.role}: {self.tracker.unacknowledged} of its last facts were not written: the tracker is "
                "gone, or its disk is full"
            )
