"""The tracker's decisions: what came in goes in, facts to commit come out, and after the commit what may be published.

Invariants: no socket, no clock, no disk (`now` is passed in). Decisions are taken on committed facts only, all of a
batch at one go; while a batch is not on disk the very same batch is offered again and nothing else is decided, so that
a full disk delays and loses nothing. What `committed` returns rests on the ledger, and on nothing else.

    accept(...) ─┐
    handle(...) ─┼─▶ gather(now) ─▶ Batch ─▶ ledger.append ─▶ committed(positions) ─▶ Committed: publish this
    record(...) ─┘                   ▲  the same again while the disk is full  │
                                     └──────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any

from broker.delivery import body_text
from broker.liveness import Event
from tracker import assigning
from tracker.checkpoints import Manifest
from tracker.curriculum import decisions
from tracker.curriculum.answers import answered
from tracker.curriculum.pool import Curriculum
from tracker.epochs import Epochs
from tracker.exchange import Batch, Committed, CoreEvent, Joined, Life, Now, Restoring, Settings
from tracker.facts import SPEAKING, TRACKER, Fact, Row, Unfit, check_words, decode, forbidden_kinds
from tracker.folds import Folds
from tracker.leases import Answer, Request
from tracker.phases import ENDINGS, Phases
from tracker.requests import Requests
from tracker.standings import Standings
from tracker.tasks import Tasks
from tracker.templates import Templates

BATCH = 8_192
"""Most facts of sources in one commit. What is held for the next ones is bounded by the sources: each keeps at most
10,000 facts or 8 MiB that are not durable, and then waits (`broker.delivery.Outbox`)."""
SNAPSHOT_FACTS = 100_000
SNAPSHOT_SECONDS = 60.0
_whose, _sequence = itemgetter(0, 1), itemgetter(2)
"""Of a row; by the last one of each source all of its own are durable."""


class Core:
    """The decisions. Its folds must already be at the ledger's end.

    RequestError: the run file asks for another curriculum than the one that the run began with.
    """

    def __init__(self, settings: Settings, folds: Folds, incarnation: str) -> None:
        self.settings = settings
        self.folds = folds
        standings, tasks, epochs = folds.folds["standings"], folds.folds["tasks"], folds.folds["epochs"]
        assert isinstance(standings, Standings)
        assert isinstance(tasks, Tasks)
        assert isinstance(epochs, Epochs)
        pool = folds.folds["curriculum"]
        assert isinstance(pool, Curriculum)
        self.standings, self.tasks, self.epochs, self.pool = standings, tasks, epochs, pool
        templates = folds.folds["templates"]
        assert isinstance(templates, Templates)
        self.templates = templates
        decisions.begin(pool, settings.curriculum, settings.launch, settings.seed)  # what cannot go on is said at once
        self.incarnation = incarnation
        self.members: dict[str, tuple[str, str, str]] = {}
        """By name: (role, incarnation, liveness state)."""
        self.phases = Phases(settings, standings, self.members)
        self._sequence = 0
        self._batch: Batch | None = None
        self._rows: list[Row] = []
        self._bodies: list[Any] = []
        self._events: list[CoreEvent] = []
        self._recorded: list[tuple[str, dict[str, Any]]] = []
        self._requests = Requests()
        self._decided_at = 0
        """The position of the folds when it was last decided."""
        self._lost: list[tuple[str, str, str]] = []
        self._alarms = set(standings.alarms)
        """Alarms about facts that folds skipped, raised by this incarnation or an earlier one."""
        self._snapshot: tuple[int, float | None] = (folds.restored, None)

    # --- in

    def accept(self, source: str, incarnation: str, first: int, items: tuple[tuple[int, str, str], ...]) -> None:
        """New facts of a source, in order (the hub saw to that), numbered from `first`.

        A fact that does not fit its kind, or that its source may not write, is stored as `refused`.
        """
        rows, bodies = self._rows, self._bodies
        forbidden = forbidden_kinds(source, pooled=self.settings.curriculum is not None)
        for sequence, (time, kind, text) in enumerate(items, first):
            try:
                if kind in forbidden or source == TRACKER:
                    raise Unfit(f"{source} may not write {kind} facts")
                body = decode(kind, text)
                if kind in SPEAKING:
                    check_words(source, kind, body)
                bodies.append(body)
                rows.append((source, incarnation, sequence, time, kind, text))
            except Unfit as unfit:
                begin = text[:1000].encode("utf-8", "replace").decode()  # half a surrogate pair cannot be stored
                refused = {"kind": kind, "reason": str(unfit), "text": begin}
                bodies.append(refused)
                rows.append((source, incarnation, sequence, time, "refused", body_text(refused)))

    @property
    def behind(self) -> bool:
        """Whether facts that were accepted wait for a commit to come."""
        return bool(self._rows)

    @property
    def crowded(self) -> bool:
        """Tell whether so many facts wait for a commit that no more should be read: a source may exceed its bound."""
        return len(self._rows) >= 4 * BATCH

    @property
    def due(self) -> bool:
        """Whether a request waits for work, and what was committed since it was looked at may be some."""
        return self._requests.waiting and self._decided_at != self.folds.position

    def handle(self, event: CoreEvent) -> None:
        """Something happened; what follows from it is decided in the next `gather`."""
        self._events.append(event)

    def record(self, kind: str, body: dict[str, Any]) -> None:
        """A fact of the tracker's own that its shell found out: checkpoint, checkpoint_skipped, quarantine, ..."""
        self._recorded.append((kind, body))

    @property
    def ending(self) -> bool:
        """Whether the run is to end, be it that this cannot be written down just now."""
        batch = self._batch or Batch()
        rows, bodies = [*batch.rows, *self._rows], [*batch.bodies, *self._bodies]
        asked = any(row[4] == "stop_request" for row in rows)
        recorded = any(kind == "phase" for kind, _ in self._recorded)  # by `close`
        own = any(row[4] == "phase" and body["phase"] in ENDINGS for row, body in zip(rows, bodies, strict=True))
        return asked or recorded or own or self.standings.phase in ENDINGS

    def close(self, reason: str, now: Now) -> None:
        """The run ends here and now, without Farewells: there is nobody left to lead it, or it was cut short."""
        self._recorded += self.phases.cut_short(reason, now)

    def unrecorded(self, manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
        """Bodies of `checkpoint` facts for checkpoints on disk that have none: a crash came between the two."""
        bodies = []
        best = {name: tally.best_score for name, tally in self.standings.policies.items()}
        for manifest in reversed(manifests):
            tally = self.standings.policies.get(manifest.policy)
            if tally is None or manifest.file not in tally.positions:
                score, before = manifest.score, best.get(manifest.policy)
                better = score is not None and (before is None or score > before)
                if better:
                    best[manifest.policy] = score
                bodies.append({**asdict(manifest), "version": list(manifest.version), "best": better})
        return bodies

    # --- to the ledger and back

    def gather(self, now: Now) -> Batch:
        """The batch to commit now; it may be empty. Until `committed`, the same batch."""
        if self._batch is not None:
            return self._batch
        batch = Batch()
        for kind, body in self._decide(now, batch):
            text = body_text(body)
            self._sequence += 1
            batch.rows.append((TRACKER, self.incarnation, self._sequence, now.clock, kind, text))
            batch.bodies.append(decode(kind, text))
        batch.own = len(batch.rows)
        batch.rows += self._rows[:BATCH]
        batch.bodies += self._bodies[:BATCH]
        del self._rows[:BATCH], self._bodies[:BATCH]
        self._batch = batch
        return batch

    def committed(self, positions: range) -> Committed:
        """The batch is on disk at these positions: the folds take it. Gives what may be published."""
        batch = Batch() if self._batch is None else self._batch
        self._batch = None
        self.folds.apply(positions, batch.rows, batch.bodies)
        out = Committed()
        own = zip(positions, batch.rows[: batch.own], batch.bodies, strict=False)
        out.facts = [Fact(position, *row[:5], body) for position, row, body in own]
        of_sources = batch.rows[batch.own :]
        out.durable = dict(zip(map(_whose, of_sources), map(_sequence, of_sources), strict=True))
        for request in batch.answers:
            out.answers.append(self._answered(request) or Answer(*request[:3], 0, ()))
        for policy, incarnation in batch.lives:
            tally = self.standings.policy(policy)
            if tally.incarnation == incarnation:
                out.lives.append(Life(policy, tally.life, incarnation))
        return out

    @property
    def ended(self) -> bool:
        """Whether the run has ended, in this launch or an earlier one."""
        return self.standings.phase == "ended"

    def snapshot_due(self, now: Now) -> bool:
        """Whether it is time for snapshots: 100,000 facts or 60 s after the last ones, and when the run has ended.

        True once: whoever asks makes them of the folds as they are now.
        """
        position, at = self._snapshot
        new = self.folds.position - position
        if at is None:  # how long it has been is not known: from now on
            at = now.steady
            self._snapshot = (position, at)
        if not new or not (self.ended or new >= SNAPSHOT_FACTS or now.steady - at >= SNAPSHOT_SECONDS):
            return False
        self._snapshot = (self.folds.position, now.steady)
        return True

    # --- decisions, on committed facts

    def _decide(self, now: Now, batch: Batch) -> list[tuple[str, dict[str, Any]]]:
        facts: list[tuple[str, dict[str, Any]]] = []
        self._decided_at = self.folds.position
        lives: dict[str, Restoring] = {}
        for event in self._events:
            if isinstance(event, Joined):
                self.members[event.name] = (event.role, event.incarnation, "alive")
                self._lost += self._before(event)
            elif isinstance(event, Event):
                facts += self._liveness(event)
            elif isinstance(event, Restoring):
                lives[event.policy] = event
            else:
                self._requests.add(event)
        self._events.clear()
        facts += self._recorded
        self._recorded = []
        for text in self.folds.alarms:
            if text not in self._alarms:
                self._alarms.add(text)
                facts.append(("alarm", {"text": text}))
        batch.lives = list(lives.values())
        facts += [fact for restoring in batch.lives for fact in self._life(restoring)]
        batch.answers, fresh = self._requests.take(self._heard, self._answered)
        lost, self._lost = list(dict.fromkeys(self._lost)), []
        settings = self.settings
        decision = assigning.decide(
            self.tasks, now.clock, fresh, lost, settings.lease_seconds, attempts=settings.attempts
        )
        closing = self._closing()
        chosen = decisions.decide(
            self.pool,
            now.clock,
            [(request, request.most - len(names)) for request, names in decision.assigned],
            lost,
            settings.lease_seconds,
            taken=self.tasks.knows,
            closing=closing is not None,
        )
        beginning = decisions.begin(self.pool, settings.curriculum, settings.launch, settings.seed)
        facts = beginning + facts + decision.facts + chosen.facts
        given = {request: bool(names or chosen.given.get(request)) for request, names in decision.assigned}
        batch.answers += self._requests.decided(given, now.steady)
        if closing is not None:
            facts.append(("epoch", closing))
        return facts + self.phases.decide(now, decisions.dry(self.pool))

    def _closing(self) -> dict[str, Any] | None:
        """The body of the fact that closes the epoch, when one is over."""
        closing = self.epochs.decide(self.settings.epoch_steps)
        if closing is None and decisions.epoch_due(self.pool):
            closing = {"epoch": self.epochs.epoch + 1, "env_steps": self.epochs.env_steps}
        return closing

    def _heard(self, request: Request) -> bool:
        """Whether who asks is there (a superseded incarnation is not), in a run that goes on."""
        _, holding, state = self.members.get(request.source, ("", "", "lost"))
        there = holding == request.incarnation and state in ("alive", "suspect")
        return there and self.standings.phase not in ENDINGS

    def _answered(self, request: Request) -> Answer | None:
        return answered(self.tasks, self.pool, request)

    def _liveness(self, event: Event) -> list[tuple[str, dict[str, Any]]]:
        if event.change == "forgotten":
            self.members.pop(event.name, None)
            return []
        role, holding, _ = self.members.get(event.name, ("", event.incarnation, ""))
        gone = event.change in ("lost", "left", "superseded")
        if holding <= event.incarnation:
            state = {"returned": "alive", "superseded": "lost"}.get(event.change, event.change)
            self.members[event.name] = (role, event.incarnation, state)
        if gone:
            self._lost.append((event.name, event.incarnation, event.change))
            self._requests.gone(event.name, event.incarnation)
        body = {"role": event.name, "state": event.change, "incarnation": event.incarnation}
        if event.change == "superseded":
            body |= {"state": "lost", "reason": "superseded"}
        return [("liveness", body)]

    def _before(self, joined: Joined) -> list[tuple[str, str, str]]:
        """Earlier incarnations of the name that hold something: they fell while no tracker was there to see it."""
        pool = self.pool.presentations
        made = ((work.source, work.incarnation) for work in pool.generating.values())
        holders = sorted({*self.tasks.leases, *pool.held, *made})
        return [(name, held, "lost") for name, held in holders if name == joined.name and held < joined.incarnation]

    def _life(self, restoring: Restoring) -> list[tuple[str, dict[str, Any]]]:
        tally = self.standings.policies.get(restoring.policy)
        if tally is None:
            return [("life", {"policy": restoring.policy, "life": 1, "incarnation": restoring.incarnation})]
        if restoring.incarnation <= tally.incarnation:
            return []
        life = max(tally.life, tally.version[0], (tally.checkpoint or (0, 0))[0]) + 1
        return [("life", {"policy": restoring.policy, "life": life, "incarnation": restoring.incarnation})]
