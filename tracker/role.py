"""The tracker: the sole writer, as a process. A shell around `core` that owns the hub, the ledger and the store.

Invariant: what goes out rests on what is on disk; the loop never waits without a deadline; when the disk is full it
keeps what it has, says so, and tries again.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker import messages as m
from broker.errors import DamagedCheckpoint, RunError
from broker.hub import Hub
from broker.hubstate import Delivery, FactsArrived, Said
from broker.liveness import Event
from broker.names import ALL, STANDINGS
from broker.reactor import Reactor
from broker.station import Gauge, Spec
from tracker.checkpoints import FOLDER, CheckpointsFull, CheckpointStore, read_chunk
from tracker.core import Core, Joined, Life, Now, Restoring, Settings, standard_folds
from tracker.curriculum.report import Section
from tracker.curriculum.settings import CurriculumSettings
from tracker.document import standings_document
from tracker.facts import Fact
from tracker.ledger import LEDGER, Ledger, LedgerFull
from tracker.live import Live
from tracker.lock import RunLock
from tracker.summary import write_summary
from tracker.tasks import Answer, Request

GATHER = 0.005
"""Facts wait this long (seconds) for company before a commit."""
WAIT = 0.05
STANDINGS_EVERY = 0.25
SAMPLES_EVERY = 30.0
FULL_PAUSE = 0.5
LINGER = 0.4
"""After `ended`: time for the last pulses to arrive."""


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
        curriculum=CurriculumSettings.model_validate(run["curriculum"]) if "curriculum" in run else None,
        seed=run.get("seed", 0),
    )


class TrackerRole:
    """One incarnation of the tracker."""

    def __init__(self, spec: Spec, ending: threading.Event) -> None:
        self._spec, self._ending = spec, ending
        self._parent = os.getppid()
        self._directory = Path(spec.directory)
        self._ledger = Ledger(self._directory / LEDGER)
        folds = standard_folds()
        folds.restore(self._ledger)
        self._store = CheckpointStore(self._directory / FOLDER)
        identity = spec.identity()
        last = self._ledger.last_sequences()
        self._core = Core(settings_of(spec), folds, identity.incarnation)
        self._live = Live()
        self._pool = Section()
        self._identity, self._gauge = identity, Gauge()
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
            last_sequences=last,
        )
        standings = self._core.standings
        if standings.phase_launch == spec.launch:  # who has not heard of the last phase hears it from this incarnation
            self._hub.set_phase(standings.phase, standings.reason)  # type: ignore[arg-type]
        self._entries: dict[str, m.DirectoryEntry] = {}
        self._restoring: dict[str, tuple[Path, int]] = {}
        """By policy: the checkpoint being fetched and the position that names it."""
        self._standings_at = self._samples_at = 0.0
        self._samples_at = time.monotonic()
        self._ended_at: float | None = None
        self._gone = False
        self._offers: dict[str, int] = {}
        """By policy: the number of the offer being fetched."""
        self._durable_offers: list[tuple[str, int, int]] = []
        self._skipped: set[tuple[str, str]] = set()
        self._quarantined = 0
        for body in self._core.unrecorded(self._store.manifests()):
            self._core.record("checkpoint", body)
        self._say_where()

    def run(self) -> None:
        """Serve until the run has ended (or the launcher is gone)."""
        gc.collect()
        gc.freeze()  # many small dicts and no cycles: 20-30% more facts/s
        gc.set_threshold(20_000, 50, 100)
        while True:
            deliveries = self._hub.take(WAIT)
            if any(isinstance(delivery, FactsArrived) for delivery in deliveries):
                time.sleep(GATHER)
                deliveries += self._hub.take()
            now = Now(time.time_ns(), time.monotonic())
            for delivery in deliveries:
                self._receive(delivery, now)
            if self._ending.is_set() and not self._gone:
                self._gone = True
                gone = os.getppid() != self._parent
                self._core.close("the launcher is gone" if gone else "the tracker was told to end (SIGTERM)", now)
            self._commit(now)
            self._show(now)
            if self._reactor.failure is not None:
                raise RunError(f"the tracker's sockets failed: {self._reactor.failure!r}")
            if self._core.standings.phase == "ended" and self._over(now):
                return

    def close(self) -> None:
        """Let go of sockets, files and the lock."""
        self._reactor.close()
        self._store.close()
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
                entry = self._entries.get(name)
                if change in ("lost", "left") and entry is not None and entry.incarnation == incarnation:
                    del self._entries[name]
                    self._publish_directory(ALL)
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
                    self._enter(source, incarnation, message)
            case m.Status():
                self._live.status(source, incarnation, message, now.steady)
            case m.TaskRequest():
                self._core.handle(
                    Request(source, incarnation, message.request, message.count, message.policy, message.generate)
                )
            case m.RestoreRequest() if message.position is None:
                self._core.handle(Restoring(message.policy, incarnation))
            case m.RestoreRequest():
                self._send_chunk(source, message)
            case m.CheckpointOffer():
                self._offered(source, incarnation, message)
            case m.Chunk():
                self._chunk(source, message, payload)
            case _:
                return

    def _enter(self, source: str, incarnation: str, hello: m.Hello) -> None:
        if hello.address is not None:
            self._entries[source] = m.DirectoryEntry(
                name=source, role=hello.role, policy=hello.policy, address=hello.address, incarnation=incarnation
            )
            self._publish_directory(ALL)
        self._publish_directory(source)

    def _publish_directory(self, recipient: str) -> None:
        self._hub.publish(recipient, m.Directory(entries=tuple(self._entries.values())))

    # --- checkpoints

    def _offered(self, source: str, incarnation: str, offer: m.CheckpointOffer) -> None:
        if offer.score is None:
            tally = self._core.standings.policies.get(offer.policy)
            offer = offer.model_copy(update={"score": tally.returns.mean if tally is not None else None})
        try:
            chunks = self._store.begin(incarnation, offer)
        except (CheckpointsFull, RunError) as error:
            self._live.alarms["checkpoints"] = str(error)
            return
        if chunks is not None:
            self._offers[offer.policy] = offer.offer
            self._hub.offer(source, offer.offer, chunks, "fetching")

    def _chunk(self, source: str, chunk: m.Chunk, payload: bytes | memoryview) -> None:
        policy = next((name for name, number in self._offers.items() if f"learner-{name}" == source), None)
        if policy is None or self._offers[policy] != chunk.offer or zlib.crc32(payload) != chunk.crc:
            return
        try:
            chunks = self._store.write(policy, chunk.index, payload)
            self._hub.offer(source, chunk.offer, chunks, "fetching")
            if self._store.complete(policy):
                body = self._store.finish(policy)
                del self._offers[policy]
                self._core.record("checkpoint", body)
                self._durable_offers.append((source, chunk.offer, chunks))
                self._live.alarms.pop("checkpoints", None)
        except (DamagedCheckpoint, CheckpointsFull, RunError) as error:
            self._offers.pop(policy, None)
            self._live.alarms["checkpoints"] = str(error)
            self._hub.offer(source, chunk.offer, 0, "refused")

    def _send_chunk(self, source: str, request: m.RestoreRequest) -> None:
        path, position = self._restoring.get(request.policy, (None, 0))
        if path is None or request.position != position or request.index is None:
            return
        content = read_chunk(path, request.index)
        self._hub.publish(source, m.Chunk(offer=position, index=request.index, crc=zlib.crc32(content)), content)

    def _answer_life(self, life: Life) -> None:
        found, skipped = self._store.newest_valid(life.policy)
        told = tuple(f"{file}: {reason}"[:4000] for file, reason in skipped[:64])
        for file, reason in skipped:
            if (file, reason) not in self._skipped:
                self._skipped.add((file, reason))
                self._core.record("checkpoint_skipped", {"policy": life.policy, "file": file, "reason": reason})
        name = f"learner-{life.policy}"
        tally = self._core.standings.policies.get(life.policy)
        seen = (tally.version[0], tally.version[1]) if tally is not None and tally.updates else None
        point = m.RestorePoint(
            policy=life.policy, incarnation=life.incarnation, life=life.life, skipped=told, seen=seen
        )
        if found is not None:
            path, manifest = found
            position = tally.positions.get(manifest.file, 1) if tally is not None else 1
            self._restoring[life.policy] = (path, position)
            point = point.model_copy(
                update={
                    "position": position,
                    "version": manifest.version,
                    "size": manifest.size,
                    "sha256": manifest.sha256,
                }
            )
        self._hub.publish(name, point)

    # --- out

    def _commit(self, now: Now) -> None:
        batch = self._core.gather(now)
        positions = range(self._ledger.last_position + 1, self._ledger.last_position + 1)
        if batch:
            try:
                with self._ledger.commit():
                    positions = self._ledger.append(batch.rows)
            except LedgerFull as error:
                self._live.alarms["disk"] = str(error)
                self._ending.wait(FULL_PAUSE)
                return
            self._live.alarms.pop("disk", None)
        committed = self._core.committed(positions)
        if committed.durable:
            self._hub.acknowledge(committed.durable)
        for answer in committed.answers:
            self._assign(answer, now)
        for life in committed.lives:
            self._answer_life(life)
        for fact in committed.facts:
            self._publish(fact)
        snapshots = self._core.snapshots_due(now)
        if snapshots is not None:
            try:
                with self._ledger.commit():
                    self._ledger.store_snapshots(snapshots, self._core.folds.position)
            except LedgerFull as error:
                self._live.alarms["disk"] = str(error)

    def _assign(self, answer: Answer, now: Now) -> None:
        seconds = max(0.0, (answer.deadline - now.wall) / 1e9) if answer.tasks or answer.drawn else 0.0
        queued = [m.LeasedTask(task=name, policy=policy or None, body=body) for name, policy, body in answer.tasks]
        drawn = [
            m.LeasedTask(task=name, policy=policy, body=body, label=label, draw=draw, generate=draw is None)
            for name, policy, body, label, draw in answer.drawn
        ]
        self._hub.publish(
            answer.source,
            m.Assignment(
                incarnation=answer.incarnation, request=answer.request, seconds=seconds, tasks=(*queued, *drawn)
            ),
        )

    def _publish(self, fact: Fact) -> None:
        if fact.kind == "phase":
            self._hub.set_phase(fact.body["phase"], fact.body.get("reason", ""))
        elif fact.kind == "checkpoint":
            for source, offer, chunks in self._durable_offers:
                self._hub.offer(source, offer, chunks, "durable")
            self._durable_offers.clear()

    def _show(self, now: Now) -> None:
        if now.steady - self._standings_at < STANDINGS_EVERY:
            return
        self._standings_at = now.steady
        counts = self._hub.counts()
        self._core.duplicates = counts["duplicates"]
        if counts["quarantined"] > self._quarantined:
            sample = self._hub.samples[-1]
            self._core.record(
                "quarantine",
                {"source": "tracker", "reason": sample.reason, "text": sample.text, "size": sample.size}
                | {"first": sample.first, "count": counts["quarantined"] - self._quarantined},
            )
            self._quarantined = counts["quarantined"]
        if now.steady - self._samples_at >= SAMPLES_EVERY:
            self._samples_at = now.steady
            for sample_body in self._live.samples():
                self._core.record("status_sample", sample_body)
        if self._gauge.due():
            me, status = self._identity, m.Status(doing="writing", rates=self._gauge.read())
            self._live.status(me.name, me.incarnation, status, now.steady)
        self._live.observe(self._core.standings, self._ledger.last_position, now.steady)
        self._hub.publish(STANDINGS, m.Standings(), json.dumps(self._document(now)).encode())

    def _document(self, now: Now) -> dict[str, Any]:
        return standings_document(
            self._core.standings,
            self._live,
            now.steady,
            directory=self._directory,
            tasks=self._core.tasks,
            facts=self._ledger.last_position,
            seconds=self._core.seconds(now),
            pool=self._pool.read(self._core.pool, now.steady),
        )

    def _over(self, now: Now) -> bool:
        """After `ended`: the summary is written, and the launcher has said its last words or is gone."""
        if self._ended_at is None:
            self._ended_at = now.steady
            write_summary(self._directory)
        waiting = any(
            kind == "launcher" and state in ("alive", "suspect") for kind, _, state in self._core.members.values()
        )
        if self._gone or not waiting:
            return now.steady - self._ended_at >= LINGER
        return now.steady - self._ended_at >= 5.0

    def _say_where(self) -> None:
        """Leave the address for those who come with the run directory alone (`watch`)."""
        path = self._directory / "tracker.json"
        temporary = path.with_suffix(".json.new")
        temporary.write_text(
            json.dumps({"address": self._hub.address, "run": self._spec.run["name"], "pid": os.getpid()})
        )
        temporary.replace(path)
