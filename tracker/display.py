"""What the tracker shows of the run, and what it notes of itself: standings four times a second, samples of status and
quarantined frames as facts.

Invariant: what is shown of the past rests on committed facts; a display that is late or lost changes nothing.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from broker import messages as m
from broker.hub import Hub
from broker.names import STANDINGS
from broker.station import Gauge
from broker.wire import Identity
from tracker.core import Core
from tracker.curriculum.report import Section
from tracker.document import standings_document
from tracker.exchange import Now
from tracker.leaderboard import standings_part
from tracker.live import Live

STANDINGS_EVERY = 0.25
SAMPLES_EVERY = 30.0


class Display:
    """The display of one incarnation of the tracker, whose own status is in it."""

    def __init__(self, identity: Identity, directory: Path, core: Core, live: Live, hub: Hub) -> None:
        self._identity, self._directory = identity, directory
        self._core, self._live, self._hub = core, live, hub
        self._gauge, self._pool = Gauge(), Section()
        self._shown_at = 0.0
        self._samples_at = time.monotonic()
        self._quarantined = 0

    def show(self, now: Now, facts: int) -> bool:
        """Show everything, if it is time to. `facts`: the ledger's last position."""
        if now.steady - self._shown_at < STANDINGS_EVERY:
            return False
        self._shown_at = now.steady
        self._note(now)
        self._live.observe(self._core.standings, facts, now.steady)
        document = standings_document(
            self._core.standings,
            self._live,
            now.steady,
            directory=self._directory,
            tasks=self._core.tasks,
            facts=facts,
            seconds=self._core.phases.seconds(now),
            pool=self._pool.read(self._core.pool, now.steady),
            prompts=standings_part(self._core.templates),
        )
        self._hub.publish(STANDINGS, m.Standings(), json.dumps(document).encode())
        return True

    def _note(self, now: Now) -> None:
        counts = self._hub.counts()
        self._core.phases.duplicates = counts["duplicates"]
        if counts["quarantined"] > self._quarantined:
            sample = self._hub.samples[-1]
            count, self._quarantined = counts["quarantined"] - self._quarantined, counts["quarantined"]
            about = {"text": sample.text, "size": sample.size, "first": sample.first}
            who = {"source": self._identity.name, "reason": sample.reason, "count": count}
            self._core.record("quarantine", who | about)
        if now.steady - self._samples_at >= SAMPLES_EVERY:
            self._samples_at = now.steady
            for body in self._live.samples():
                self._core.record("status_sample", body)
        if self._gauge.due():
            me, status = self._identity, m.Status(doing="writing", rates=self._gauge.read())
            self._live.status(me.name, me.incarnation, status, now.steady)
