"""A spoke towards the tracker: facts, status, tasks and checkpoints up; assignments, directory and standings down.

Invariant: a fact that `fact` took is resent until the tracker said that it is durable, however often the tracker dies.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from broker import messages as m
from broker.clock import born, now
from broker.delivery import Outbox, fact_of
from broker.errors import DamagedCheckpoint, RunError, Superseded, Unreachable
from broker.names import STANDINGS
from broker.reactor import Reactor
from broker.spoke import Spoke
from broker.transfer import Upload, chunks_of
from broker.wire import Envelope, Identity

GATHER = 0.005
"""Facts wait this long (seconds) for company, unless there are already `COMPANY`."""
COMPANY = 50
MAX_WAITING = 64
"""Most assignments, and most chunks of a checkpoint, that wait for the role; it asks for one at a time."""


class TrackerSpoke(Spoke):
    """Any role's side of the slow loop."""

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        role: m.RoleKind,
        address: str,
        *,
        hub: str = "tracker",
        policy: str | None = None,
        serves: str | None = None,
        standings: bool = False,
    ) -> None:
        self.directory: dict[str, m.DirectoryEntry] = {}
        """The hubs of the run by name."""
        self.standings: bytes | None = None
        """The newest standings, JSON (if asked for)."""
        self.env_steps_left: int | None = None
        """What is left of the run's limit of env steps, by the durable facts; None without a limit."""
        self._outbox = Outbox()
        self._gathering: float | None = None
        self._request = 0
        self._assignments: deque[m.Assignment] = deque(maxlen=MAX_WAITING)
        self._restore: m.RestorePoint | None = None
        self._chunks: dict[int, tuple[m.Chunk, bytes]] = {}
        self._offers = born(identity.incarnation)  # so that no offer of an older incarnation has the same number
        self._upload: Upload | None = None
        self._held: tuple[str, tuple[int, int], bytes] | None = None
        self.on_news: Any = None
        """Called (on the reactor's thread) when something arrived; must not block."""
        topics = (STANDINGS,) if standings else ()
        super().__init__(reactor, identity, role, hub, address, policy=policy, serves=serves, topics=topics)

    # --- facts -----------------------------------------------------------------------------------------------------

    def fact(self, kind: str, body: Mapping[str, Any], timeout: float | None = None) -> int:
        """Take a fact; returns its sequence. Waits while 10,000 facts or 8 MiB are not durable.

        ValueError or TypeError for one that is wrong; Unreachable after `timeout` seconds of waiting (None: as long as
        the tracker's life takes: the role has nothing better to do), Superseded if a newer incarnation has the name.
        """
        fact = fact_of(kind, body, now(self.identity.clock))
        with self._lock:
            if self._outbox.full:
                deadline = None if timeout is None else time.monotonic() + timeout
                while self._outbox.full:
                    if self.superseded:
                        raise Superseded(f"{self.identity.name} was superseded by a newer incarnation")
                    if self._reactor.failure is not None:
                        raise RunError(f"{self.identity.name}: its sockets failed: {self._reactor.failure!r}")
                    if deadline is not None and time.monotonic() >= deadline:
                        raise Unreachable(f"the tracker took no facts for {timeout:g} s")
                    self._news.wait(0.25)
            sequence = self._outbox.add(fact)
            wake = self._gathering is None
            if wake:
                self._gathering = time.monotonic() + GATHER
        if wake:
            self._reactor.wake()
        return sequence

    @property
    def unacknowledged(self) -> int:
        """Facts that are not known to be durable."""
        return len(self._outbox)

    @property
    def durable(self) -> int:
        """The highest sequence of a fact known to be on disk."""
        return self._outbox.durable

    def flush(self, timeout: float) -> bool:
        """Wait until every fact is durable."""
        self._reactor.wake()
        with self._lock:
            return self._news.wait_for(lambda: len(self._outbox) == 0, timeout)

    # --- tasks -----------------------------------------------------------------------------------------------------

    def request_tasks(self, count: int, policy: str | None = None, *, generate: bool = False) -> int:
        """Ask for tasks; returns the request's number. Asking again before it is answered repeats it.

        `generate`: generation work may be among them.
        """
        with self._lock:
            self._request += 1
            number = self._request
        self.say(m.TaskRequest(request=number, count=count, policy=policy, generate=generate))
        return number

    def repeat_request(self, number: int, count: int, policy: str | None = None, *, generate: bool = False) -> None:
        """The same request again: its answer may have been lost."""
        self.say(m.TaskRequest(request=number, count=count, policy=policy, generate=generate))

    def take_assignments(self) -> list[m.Assignment]:
        """Assignments that arrived."""
        with self._lock:
            taken = list(self._assignments)
            self._assignments.clear()
        return taken

    # --- checkpoints -----------------------------------------------------------------------------------------------

    def offer_checkpoint(
        self, policy: str, version: tuple[int, int], content: bytes, score: float | None = None
    ) -> int:
        """Offer a checkpoint, which replaces an unfinished and a held one. Returns the offer's number."""
        upload = Upload(0, content, time.monotonic())  # hashes it all: not under the lock
        with self._lock:
            self._held = None
            self._begin_upload(upload, policy, version, score)
        self._reactor.wake()
        return upload.offer

    def hold_checkpoint(self, policy: str, version: tuple[int, int], content: bytes) -> None:
        """Hold a checkpoint to offer once the run is ending, when the role may be busy, unless another comes first."""
        with self._lock:
            self._held = (policy, version, content)

    def _begin_upload(self, upload: Upload, policy: str, version: tuple[int, int], score: float | None = None) -> None:
        self._offers += 1
        upload.offer, self._upload = self._offers, upload
        self._offer_message = m.CheckpointOffer(
            offer=upload.offer, policy=policy, version=version, size=upload.size, sha256=upload.sha256, score=score
        )

    @property
    def offering(self) -> bool:
        """Whether a checkpoint is on its way and not yet durable."""
        return self._upload is not None and not self._upload.done

    @property
    def offer_state(self) -> str:
        """The state of the last offer: none, fetching, durable or refused."""
        return self._upload.state if self._upload is not None else "none"

    def wait_durable(self, timeout: float) -> bool:
        """Wait until the last offer is durable. False if it was refused, or did not move for `timeout` seconds."""
        with self._lock:
            while self.offering:
                moved = self._upload.moved if self._upload is not None else 0.0
                left = moved + timeout - time.monotonic()
                if left <= 0:
                    break
                self._news.wait(left)
            return self.offer_state == "durable"

    def restore(self, policy: str, timeout: float = 30.0) -> tuple[m.RestorePoint, bytes | None]:
        """Where this learner begins, and the checkpoint's content if there is one.

        Unreachable after `timeout` seconds without progress; DamagedCheckpoint if what came is not what was promised.
        """
        deadline = time.monotonic() + timeout
        point: m.RestorePoint | None = None
        while point is None:
            self.say(m.RestoreRequest(policy=policy))
            with self._lock:
                self._news.wait_for(lambda: self._restore is not None, 0.5)
                point = self._restore
            if point is None and time.monotonic() > deadline:
                raise Unreachable(f"the tracker did not say where {policy} resumes within {timeout:g} s")
        if point.position == 0:
            return point, None
        parts: list[bytes] = []
        deadline = time.monotonic() + timeout
        for index in range(chunks_of(point.size)):
            while True:
                self.say(m.RestoreRequest(policy=policy, position=point.position, index=index))
                with self._lock:
                    self._news.wait_for(lambda at=index: at in self._chunks, 1.0)  # type: ignore[misc]
                    arrived = self._chunks.pop(index, None)
                if arrived is not None and arrived[0].offer == point.position:
                    parts.append(arrived[1])
                    deadline = time.monotonic() + timeout
                    break
                if time.monotonic() > deadline:
                    raise Unreachable(f"the checkpoint of {policy} stopped coming after {index} chunks")
                self.say(m.RestoreRequest(policy=policy))  # a tracker that came back must look for it first
        content = b"".join(parts)
        if len(content) != point.size:
            raise DamagedCheckpoint(f"{policy}: {len(content)} bytes came, {point.size} were promised")
        return point, content

    # --- on the reactor's thread -----------------------------------------------------------------------------------

    def _on_pulse(self, pulse: m.Pulse, counters: m.SpokeCounters | None, now: float) -> None:
        self.env_steps_left = pulse.env_steps_left  # before the counters: a fact seen durable is already subtracted
        if counters is not None and self.incarnation is not None:
            self._outbox.on_counters(self.incarnation, counters.received, counters.durable, now)
            if self._upload is not None:
                self._upload.on_counters(counters.offer, counters.chunks, counters.offer_state, now)
        if self._held is not None and pulse.phase in ("stopping", "ended"):
            (policy, version, content), self._held = self._held, None
            self._begin_upload(Upload(0, content, now), policy, version)
        if self.on_news is not None:
            self.on_news()

    def _on_message(self, envelope: Envelope, now: float) -> None:
        message = envelope.message
        mine = self.identity.incarnation
        match message:
            case m.Directory():
                self.directory = {entry.name: entry for entry in message.entries}
            case m.Standings():
                self.standings = bytes(envelope.payload)
            case m.Assignment() if message.incarnation == mine:
                self._assignments.append(message)
            case m.RestorePoint() if message.incarnation == mine:
                self._restore = message
            case m.Chunk():
                self._chunks[message.index] = (message, bytes(envelope.payload))
                if len(self._chunks) > MAX_WAITING:
                    del self._chunks[next(iter(self._chunks))]
            case _:
                return
        if self.on_news is not None:
            self.on_news()

    def _flow(self, now: float) -> float:
        due = self._flow_facts(now)
        return min(due, self._flow_upload(now)) if self._upload is not None else due

    def _flow_facts(self, now: float) -> float:
        if self._outbox.stalled(now) or (self._gathering is None and self._outbox.unsent):
            self._gathering = now  # asked again, or a new incarnation of the tracker has less than was sent
        if self._gathering is None:
            return now + (0.25 if len(self._outbox) else 3600.0)
        if now < self._gathering and len(self._outbox) < COMPANY:
            return self._gathering
        while (batch := self._outbox.batch(now)) is not None:
            first, facts = batch
            header = self._codec.encode_fields(
                "facts", {"first": first, "items": facts}, self.hub_name, hub=self.incarnation
            )
            if not self._push_parts((header,)):
                self._stuck = (header,)
                return now + 0.002
        self._gathering = None
        return now + 0.25

    def _flow_upload(self, now: float) -> float:
        upload = self._upload
        if upload is None or upload.done:
            return now + 3600.0
        upload.stalled(now)
        if upload.must_offer(now):
            self._push_message(self._offer_message, None)
        while (chunk := upload.next_chunk()) is not None:
            index, content = chunk
            header = m.Chunk(offer=upload.offer, index=index)
            parts = (self._codec.encode(header, self.hub_name, content, hub=self.incarnation), content)
            if not self._push_parts(parts):
                self._stuck = parts
                return now + 0.002
        return now + 0.25
