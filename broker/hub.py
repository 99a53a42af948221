"""A hub: PULL and XPUB, bound by the process that owns what passes through them.

The shell around `hubstate`: it reads frames, counts what it does not believe, and says what the state wants said.
Invariant: sockets are touched on the reactor's thread only; what the role calls is locked and never waits for a socket.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from broker import addresses, authority, clock
from broker import messages as m
from broker.arrays import Tree, pack
from broker.errors import RequestError, RunError, WireError
from broker.hubstate import Delivery, HubState
from broker.liveness import Liveness
from broker.names import ALL, topic
from broker.reactor import Reactor
from broker.sending import Payload, send
from broker.wire import MAX_PAYLOAD, Codec, Identity, payload_digest

MAX_FRAME = 1024 * 1024 * 1024
SAMPLES = 32
MAX_FRAMES = m.MAX_ITEMS
"""Payload frames of one message that are kept to be looked at."""
TURN = 32
"""Messages that are read before the other sockets, and the role, have a turn."""


@dataclass(frozen=True)
class Quarantined:
    """One frame that was not believed."""

    reason: str
    text: str
    size: int
    first: str
    """The first bytes, in hex."""


@dataclass
class _Published:
    """The current version, kept for those who come late."""

    version: tuple[int, int]
    crc: int
    fields: dict[str, object]
    payload: memoryview
    digest: bytes


class Hub:
    """Binds at `address` at once (RequestError if it may not or cannot) and serves until the reactor closes.

    `queue` is the XPUB's limit per spoke, in messages: 4 where versions are published, more for small messages.
    """

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        address: str,
        *,
        insecure: bool = False,
        queue: int = 4,
        max_frame: int = MAX_FRAME,
        liveness: Liveness | None = None,
        last_sequences: dict[tuple[str, str], int] | None = None,
        on_delivery: Callable[[], None] | None = None,
    ) -> None:
        addresses.check_bind(address, insecure=insecure)
        self.identity = identity
        self.address = address
        self.quarantine: Counter[str] = Counter()
        self.samples: deque[Quarantined] = deque(maxlen=SAMPLES)
        self._state = HubState(identity.incarnation, liveness)
        self._state.remember(last_sequences or {})
        self._codec = Codec(identity, "hub")
        self._reactor = reactor
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._inbox: deque[Delivery] = deque()
        self._outbox: deque[tuple[Payload, ...]] = deque()
        self._published: _Published | None = None
        self._queue, self._max_frame = queue, max_frame
        self._on_delivery = on_delivery
        self._opened = threading.Event()
        self._refused: Exception | None = None
        reactor.add(self)
        if not self._opened.wait(10):
            raise RunError(f"the hub at {address} was not opened: its reactor is closed or failed")
        if self._refused is not None:
            raise self._refused

    # --- on the role's thread --------------------------------------------------------------------------------------

    def take(self, timeout: float = 0.0) -> list[Delivery]:
        """What has arrived, in order; waits up to `timeout` seconds for the first."""
        with self._lock:
            if not self._inbox and timeout > 0:
                self._news.wait(timeout)
            taken = list(self._inbox)
            self._inbox.clear()
        return taken

    @property
    def queued(self) -> int:
        """Deliveries that the role has not taken."""
        return len(self._inbox)

    def settle(self, source: str, incarnation: str, sequence: int) -> None:
        """All fragments of this source up to `sequence` have left the learner's queue."""
        with self._lock:
            pending = self._state.pending
            self._state.settle(source, incarnation, sequence)
        if not pending:  # otherwise the reactor already knows when the next pulse is due
            self._reactor.wake()

    def acknowledge(self, durable: dict[tuple[str, str], int]) -> None:
        """Facts that are on disk: highest sequence by (source, incarnation)."""
        with self._lock:
            for (source, incarnation), sequence in durable.items():
                self._state.durable(source, incarnation, sequence)
        self._reactor.wake()

    def offer(self, name: str, offer: int, chunks: int, state: str) -> None:
        """How far a checkpoint offer of a spoke has come."""
        with self._lock:
            self._state.offer(name, offer, chunks, state)
        self._reactor.wake()

    def set_phase(self, phase: m.PhaseName, reason: str = "") -> None:
        """The phase of the run, from now on in every pulse."""
        with self._lock:
            self._state.set_phase(phase, reason)
        self._reactor.wake()

    def set_env_steps_left(self, steps: int) -> None:
        """What is left of the run's limit of env steps: the next pulses say it, whatever brings them."""
        with self._lock:
            self._state.env_steps_left = steps

    @property
    def phase(self) -> m.PhaseName:
        """The phase that the pulse says."""
        return self._state.phase

    def publish_version(self, policy: str, version: tuple[int, int], tree: Tree) -> int:
        """Publish one immutable version (copied here) to all spokes. Returns its crc."""
        layout, payload = pack(tree)
        crc = zlib.crc32(payload)
        fields: dict[str, object] = {"policy": policy, "version": version, "crc": crc, "layout": layout.plain}
        digest = payload_digest(payload)
        header = self._codec.encode_fields("parameters", fields, ALL, digest)
        with self._lock:
            self._published = _Published(version, crc, fields, payload, digest)
            self._outbox.append((topic(ALL), header, payload))
            self._state.set_version(version, crc)
        self._reactor.wake()
        return crc

    def publish(self, recipient: str, message: m.Message, payload: Payload | None = None) -> None:
        """Send a message to one spoke, or to `all` or `standings`."""
        parts: tuple[Payload, ...] = (topic(recipient), self._codec.encode(message, recipient, payload))
        with self._lock:
            self._outbox.append(parts if payload is None else (*parts, payload))
        self._reactor.wake()

    def counts(self) -> dict[str, int]:
        """`lost` fragments, `duplicates` among facts, messages dropped by reason, quarantined frames."""
        with self._lock:
            return {
                "lost": self._state.lost(),
                "duplicates": self._state.duplicates,
                "quarantined": self.quarantine.total(),
                **{f"dropped: {reason}": count for reason, count in self._state.dropped.items()},
            }

    def present(self) -> dict[str, str]:
        """Liveness state by name."""
        with self._lock:
            return {name: peer.state for name, peer in self._state.liveness.peers.items()}

    # --- on the reactor's thread -----------------------------------------------------------------------------------

    def open(self, reactor: Reactor) -> None:
        """Bind both sockets."""
        self._pull = reactor.context.socket(zmq.PULL)
        self._publish = reactor.context.socket(zmq.XPUB)
        self._pull.setsockopt(zmq.RCVHWM, 1000)
        self._pull.setsockopt(zmq.MAXMSGSIZE, self._max_frame)
        self._publish.setsockopt(zmq.SNDHWM, self._queue)
        for opened in (self._pull, self._publish):
            opened.setsockopt(zmq.LINGER, 0)
            opened.setsockopt(zmq.IPV6, int(addresses.is_ipv6(self.address)))
        try:
            self.address = addresses.bind(self._pull, self._publish, self.address)
        except (zmq.ZMQError, OSError) as error:
            self._refused = RequestError(f"address {self.address}: {error}; choose another")
        except RequestError as error:
            self._refused = error
        else:
            reactor.watch(self._pull, self)
            reactor.watch(self._publish, self)
        self._opened.set()

    def shut(self) -> None:
        """Close both sockets."""
        self._pull.close(0)
        self._publish.close(0)

    def on_readable(self, source: zmq.Socket[bytes]) -> None:
        """Frames, or subscriptions (a hint that nothing rests on)."""
        if source is self._publish:
            try:
                while True:
                    source.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
        delivered = False
        for _ in range(TURN):
            try:
                header = source.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            frames: list[Payload] = []
            more, size = header.more, 0
            while more:
                frame = source.recv(zmq.NOBLOCK, copy=False)
                more = frame.more
                if len(frames) <= MAX_FRAMES and size <= MAX_PAYLOAD:  # the one that is too much is seen
                    frames.append(frame.buffer)
                size += len(frame)
            delivered |= self._read(header.bytes, frames, size)
        if delivered:
            with self._lock:
                self._news.notify_all()
            if self._on_delivery is not None:
                self._on_delivery()

    def _read(self, header: bytes, frames: list[Payload], size: int) -> bool:
        payload = frames[0] if frames else None
        try:
            envelope = self._codec.decode(header, payload, (self.identity.name,), tuple(frames[1:]))
            authority.check(self.identity.name, envelope, clock.now(self.identity.clock))
            with self._lock:
                delivered = self._state.handle(envelope, time.monotonic())
                self._inbox.extend(delivered)
        except WireError as error:
            self.samples.append(Quarantined(error.reason, str(error)[:300], len(header) + size, header[:48].hex()))
            self.quarantine[error.reason] += 1  # after the sample: who sees that it grew finds one
            return False
        return bool(delivered)

    def on_tick(self, now: float) -> float:
        """Send what is waiting, then the pulses that are due, and the version to those who are behind."""
        with self._lock:
            due = self._state.pulse_due()
            if now < due and not self._outbox:
                return due
            changes = self._state.liveness.tick(now)
            if changes:
                self._inbox.extend(changes)
                self._news.notify_all()
            outgoing, self._outbox = self._outbox, deque()
            pulses = self._state.pulses(now)
            behind = self._state.catch_up.due(ALL) if pulses else []
            published = self._published
            due = self._state.pulse_due()
        if changes and self._on_delivery is not None:
            self._on_delivery()
        for parts in outgoing:
            send(self._publish, parts)
        if published is not None:
            for name in behind:
                header = self._codec.encode_fields("parameters", published.fields, name, published.digest)
                send(self._publish, (topic(name), header, published.payload))
        for recipient, pulse in pulses:
            send(self._publish, (topic(recipient), self._codec.encode(pulse, recipient)))
        return due
