"""The tracker: the sole writer, as a process. A shell around `core` that owns the hub, the ledger and the store.

Invariant: what goes out rests on what is on disk; the loop never waits without a deadline; when the disk is full it
keeps what it has, says so, and tries again.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from broker import clock
from broker import messages as m
from broker.errors import RequestError, RunError
from broker.hub import Hub
from broker.hubstate import Delivery, FactsArrived, Said
from broker.liveness import Event
from broker.reactor import Reactor, until
from broker.station import Spec
from tracker.checkpoints import CHUNK, FOLDER, CheckpointStore
from tracker.core import Core
from tracker.curriculum.settings import CurriculumSettings
from tracker.display import Display
from tracker.exchange import Joined, Now, Restoring, Settings
from tracker.facts import Fact, Row
from tracker.hubs import Hubs
from tracker.leases import Request
from tracker.ledger import LEDGER, Ledger, LedgerDamaged, LedgerFull, LedgerReader
from tracker.live import Live
from tracker.lock import RunLock
from tracker.mend import rescue
from tracker.notices import ADDRESS, Notices
from tracker.reader import mending
from tracker.reserve import Reserve
from tracker.snapshots import Snapshots
from tracker.standard import standard_folds
from tracker.transfers import Transfers

GATHER = 0.005
"""Facts wait this long (seconds) for company before a commit."""
WAIT = 0.05
FULL_PAUSE = 0.5
LINGER = 0.4
"""After `ended`: time for the last pulses to arrive."""
LONGEST = 5.0
"""After `ended`: longest wait for the launcher's last words and for room to write the summary."""
ENDING_MARGIN = 14.0
"""Seconds that the end of a run may take in addition to `learner.ending_seconds`: actors and learners have 5 each, and
1 more after SIGTERM."""
REASON = 4_000
"""Most characters of a reason that travels in a pulse."""


def main(plain: Mapping[str, Any], ending: threading.Event) -> None:
    """Run the tracker to the end of the run. What it raises is its last word."""
    spec = Spec.of(plain)
    with RunLock(Path(spec.directory)):
        tracker = TrackerRole(spec, ending)
        try:
            tracker.run()
        finally:
            tracker.close()


def settings_of(spec: Spec) -> Settings:
    """What the core needs of the resolved plan."""
    run = spec.run
    stop = run.get("stop", {})
    return Settings(
        launch=spec.launch,
        stop_seconds=stop.get("seconds"),
        stop_env_steps=stop.get("env_steps"),
        stop_return=stop.get("return"),
        learners=frozenset(f"learner-{policy}" for policy in spec.plan["policies"]),
        epoch_steps=run["tracker"]["epoch_steps"],
        lease_seconds=run["tracker"]["lease_seconds"],
        ending_seconds=ENDING_MARGIN + run["learner"]["ending_seconds"],
        curriculum=CurriculumSettings.of(run["curriculum"]) if "curriculum" in run else None,
        seed=run.get("seed", 0),
    )


def check_there(directory: Path) -> None:
    """Raise LedgerDamaged if a tracker has run here and its ledger is gone: a new, empty one would hide the loss."""
    if (
        (directory / ADDRESS).exists()
        and not (directory / LEDGER).exists()
        and not mending(directory / LEDGER).exists()
    ):
        raise LedgerDamaged(
            f"{directory / LEDGER} is gone, though a tracker has written it: put it back, or start a new run directory"
        )


class TrackerRole:
    """One incarnation of the tracker."""

    def __init__(self, spec: Spec, ending: threading.Event) -> None:
        self._spec, self._ending = spec, ending
        self._parent = os.getppid()
        self._directory = Path(spec.directory)
        check_there(self._directory)
        self._ledger = Ledger(self._directory / LEDGER)
        folds = standard_folds()
        folds.restore(self._ledger, settle=self._ledger.settle)
        self._known = LedgerReader(self._directory / LEDGER)
        """The reactor thread's own reader: the thread asks once for each incarnation that says Hello."""
        self._snapshots = Snapshots(self._ledger, folds.draft)
        self._store = CheckpointStore(self._directory / FOLDER)
        identity = spec.identity()
        self._core = Core(settings_of(spec), folds, identity.incarnation)
        for flaw in folds.flaws:
            self._core.record("alarm", {"text": f"{flaw}; it was made anew from the ledger"})
        self._live = Live()
        self._live.hello(
            identity.name, identity.incarnation, m.Hello(role="tracker", pid=os.getpid()), time.monotonic()
        )
        self._reactor = Reactor("tracker-io")
        self._hub = Hub(
            self._reactor,
            identity,
            spec.tracker,
            insecure=spec.run["tracker"]["insecure"],
            queue=64,
            max_payload=CHUNK,
            last_sequence=self._known.last_sequence,
        )
        standings = self._core.standings
        if standings.phase_launch == spec.launch:  # who has not heard of the last phase hears it from this incarnation
            self._say_phase(standings.phase, standings.reason)
        self._say_what_is_left()
        self._reserve = Reserve(self._directory)
        if not self._reserve.hold():
            self._live.alarms["reserve"] = f"no room to spare in {self._directory}: free some space before it is full"
        self._hubs = Hubs(role["name"] for role in spec.plan["roles"] if role["kind"] in ("learner", "endpoint"))
        self._transfers = Transfers(self._store, self._core, self._live, self._hub)
        self._notices = Notices(self._directory, self._live.alarms)
        self._display = Display(identity, self._directory, self._core, self._live, self._hub)
        self._written: range | None = None
        """The positions of the core's batch, from its commit until it is acknowledged."""
        self._ended_at: float | None = None
        self._gone = False
        self._say_where(time.monotonic())

    def run(self) -> None:
        """Serve until the run has ended (or the launcher is gone)."""
        gc.collect()
        gc.freeze()  # many small dicts and no cycles: 20-30% more facts/s
        gc.set_threshold(200_000, 50, 100)  # a batch's facts come and go below it
        while True:
            at_once = self._core.behind or self._core.due or self._snapshots.under_way
            deliveries = [] if self._core.crowded else self._hub.take(0.0 if at_once else WAIT)
            if not self._core.behind and any(isinstance(delivery, FactsArrived) for delivery in deliveries):
                time.sleep(GATHER)
                deliveries += self._hub.take()
            now = Now(clock.now(self._spec.clock), time.monotonic())
            for delivery in deliveries:
                self._receive(delivery, now)
            if self._ending.is_set() and not self._gone:
                self._gone = True
                # The lifeline is cut a moment before the kernel gives us to another parent.
                gone = until(lambda: os.getppid() != self._parent, 0.25)
                self._core.close("the launcher is gone" if gone else "the tracker was told to end (SIGTERM)", now)
            self._send_directory(now.steady)
            self._commit(now)
            if self._display.show(now, self._ledger.last_position):
                self._say_where(now.steady)
                self._transfers.look()
            if self._reactor.failure is not None:
                raise RunError(f"the tracker's sockets failed: {self._reactor.failure!r}")
            if self._over(now):
                return

    def close(self) -> None:
        """Let go of sockets, files and the lock."""
        self._reactor.close()
        if self._core.ended:
            self._reserve.release()
        self._store.close()
        self._known.close()
        self._ledger.close()

    # --- in

    def _receive(self, delivery: Delivery, now: Now) -> None:
        match delivery:
            case FactsArrived(source, incarnation, first, items):
                self._core.accept(source, incarnation, first, items)
                self._live.heard(source, incarnation, now.steady)
            case Event(name, incarnation, change):
                self._live.liveness(name, incarnation, change)
                self._core.handle(delivery)
                if change in ("lost", "left"):
                    self._hubs.gone(name, incarnation)
            case Said(source, incarnation, message, payload):
                self._live.heard(source, incarnation, now.steady)
                self._said(source, incarnation, message, payload, now)
            case _:  # fragments have no business here; they were counted where they arrived
                return

    def _said(self, source: str, incarnation: str, message: Any, payload: Any, now: Now) -> None:
        match message:
            case m.Hello():
                if self._live.hello(source, incarnation, message, now.steady):
                    self._core.handle(Joined(source, message.role, incarnation))
                self._hubs.hello(source, incarnation, message)
            case m.Status():
                self._live.status(source, incarnation, message, now.steady)
            case m.TaskRequest():
                self._core.handle(
                    Request(source, incarnation, message.request, message.count, message.policy, message.generate)
                )
            case m.RestoreRequest() if message.position is None:
                self._core.handle(Restoring(message.policy, incarnation))
            case m.RestoreRequest():
                self._transfers.asked(source, message)
            case m.CheckpointOffer():
                self._transfers.offered(source, incarnation, message)
            case m.Chunk():
                self._transfers.arrived(source, message, payload)
            case _:
                return

    # --- out

    def _commit(self, now: Now) -> None:
        batch = self._core.gather(now)
        try:
            self._guard()
            if self._written is None:
                self._written = self._keep(batch.rows)
            self._guard()  # again, before the written facts are acknowledged
        except LedgerFull as error:
            self._live.alarms["disk"] = str(error)
            if batch:
                if not (self._core.ending and self._reserve.release()):
                    time.sleep(FULL_PAUSE if not self._gone else WAIT)
                return
        positions, self._written = self._written or range(0), None
        committed = self._core.committed(positions)
        self._say_what_is_left()  # before the acknowledgement: an actor near the limit waits for both
        if committed.durable:
            self._hub.acknowledge(committed.durable)
        for answer in committed.answers:
            self._hub.publish(answer.source, answer.message(now.clock, self._stored))
        for life in committed.lives:
            self._transfers.begin(life)
        for fact in committed.facts:
            self._publish(fact)
        ended = self._core.ended
        self._snapshots.go_on(due=self._core.snapshot_due(now), at_once=ended)
        if ended:
            with suppress(LedgerFull):
                self._keep(())  # before the summary, which reads them

    def _keep(self, rows: Sequence[Row]) -> range:
        """One commit: these facts, the ids that ended by the last ones, and what is made of snapshots."""
        positions = range(self._ledger.last_position + 1, self._ledger.last_position + 1)
        if rows or self._snapshots.under_way:
            try:
                with self._ledger.commit():
                    positions = self._ledger.append(rows)
                    self._ledger.store_ended(self._core.folds.fresh_ended())
                    self._snapshots.store()
            except LedgerFull:
                self._snapshots.abandon()  # facts come first
                raise
            self._core.folds.forget_ended()
            self._snapshots.stored()
            self._live.alarms.pop("disk", None)
        return positions

    def _guard(self) -> None:
        """If the ledger's files were changed, put all facts into a new ledger and end the run.

        LedgerFull if there is no room for it yet. LedgerDamaged if it cannot be made: then nothing is acknowledged.
        """
        what = self._ledger.change()
        if not what:
            return
        self._live.alarms["ledger"] = f"{what}: nothing is acknowledged until all facts are in a new ledger"
        self._reserve.release()
        try:
            aside = rescue(self._ledger)
        except LedgerFull:
            raise
        except (RunError, RequestError, OSError) as error:
            raise LedgerDamaged(
                f"{what} while the run went on, and the tracker could not save what it held: "
                f"`headrace mend {self._directory}` makes a new ledger of what can be read, if anything is left"
            ) from error
        del self._live.alarms["ledger"]
        changed_file = f"; the changed file is kept as {aside.name}" if aside.exists() else ""
        reason = (
            f"{what} while the run went on: all {self._ledger.last_position:,} facts are in a new ledger in its place"
            f"{changed_file}; `headrace run --resume --run-dir {self._directory}` goes on from it"
        )
        self._core.record("alarm", {"text": reason[: m.MAX_TEXT]})
        self._core.record("stop_request", {"reason": reason[: m.MAX_TEXT], "failed": True})

    def _send_directory(self, steady: float) -> None:
        for recipient in self._hubs.due(steady):
            self._hub.publish(recipient, self._hubs.directory)

    def _stored(self, position: int) -> str:
        """The body of the fact at this position."""
        return self._ledger.read(position - 1, 1)[0][6]

    def _publish(self, fact: Fact) -> None:
        if fact.kind == "phase":
            self._say_phase(fact.body["phase"], fact.body["reason"])
        elif fact.kind == "checkpoint":
            self._transfers.committed(fact.body)

    def _say_what_is_left(self) -> None:
        left = self._core.phases.env_steps_left
        if left is not None:
            self._hub.set_env_steps_left(left)

    def _say_phase(self, phase: str, reason: str) -> None:
        self._hub.set_phase(phase, reason[:REASON])  # type: ignore[arg-type]

    def _over(self, now: Now) -> bool:
        """Whether this launch has ended: the summary is written, the launcher has said its last words or is gone."""
        standings = self._core.standings
        if standings.phase != "ended" or standings.phase_launch != self._spec.launch:
            return False  # one that an earlier launch came to is no end of this one
        if self._ended_at is None:
            self._ended_at = now.steady
        written = self._notices.summary(now.steady)
        if not written:
            self._reserve.release()
        waiting = any(
            kind == "launcher" and state in ("alive", "suspect") for kind, _, state in self._core.members.values()
        )
        done = written and (self._gone or not waiting)
        return now.steady - self._ended_at >= (LINGER if done else LONGEST)

    def _say_where(self, steady: float) -> None:
        self._notices.address(self._hub.address, self._spec.run["name"], steady)
