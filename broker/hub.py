"""A hub: PULL and XPUB, bound by the process that owns what passes through them.

The shell around `hubstate`: it reads frames, counts what it does not believe, and says what the state wants said.
Invariants: only the reactor's thread touches sockets; the methods that the role calls take a lock and never wait for a
socket; no message ends a role, whatever exception reading it raises; the work of one turn, the memory of one message
and the queue for the role are bounded, whatever is sent.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from broker import addresses, authority
from broker import messages as m
from broker.arrays import Tree, pack
from broker.connections import Limit, Subscriptions, Unfinished, give_back_memory
from broker.errors import RequestError, RunError, WireError
from broker.hubstate import PULSE_EVERY, Delivery, HubState
from broker.liveness import Liveness
from broker.names import ALL, topic
from broker.reactor import Reactor
from broker.sending import Payload, send
from broker.wire import MAX_HEADER, MAX_PAYLOAD, Codec, Identity, payload_digest

SAMPLES = 32
MAX_FRAMES = m.MAX_ITEMS
"""Payload frames of one message that are kept to be looked at."""
TURN = 32
TURN_SECONDS = 0.05
"""Most messages, and most seconds, of reading before the reactor serves other sockets and timers."""
QUEUE = 16
"""Messages that libzmq reads ahead from one connection."""
MAX_REFUSED = 64
"""Most refused messages (each counts 1, and 1 more for each MiB) of one connection before it is closed."""
MUCH_REFUSED = 16 * 1024 * 1024
"""Bytes of refused messages after which free memory is returned to the system, a second after the last of them."""
MAX_QUEUED = 16_384
MAX_QUEUED_BYTES = 64 * 1024 * 1024
"""Most deliveries, and bytes of them, that wait for the role. At either limit the hub stops reading until the role has
taken them: senders then wait in their own sockets, and none counts as silent meanwhile."""


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
    `max_payload` is the most bytes of a message's payload. libzmq closes a connection that sends a frame larger than
    both this and the largest header. `last_sequence` returns the last fact of a (source, incarnation) that is on disk;
    the reactor's thread calls it once for each incarnation that says Hello.
    """

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        address: str,
        *,
        insecure: bool = False,
        queue: int = 4,
        max_payload: int = MAX_PAYLOAD,
        liveness: Liveness | None = None,
        last_sequence: Callable[[str, str], int] = lambda _source, _incarnation: 0,
        on_delivery: Callable[[], None] | None = None,
    ) -> None:
        addresses.check_bind(address, insecure=insecure)
        self.identity = identity
        self.address = address
        self.quarantine: Counter[str] = Counter()
        self.samples: deque[Quarantined] = deque(maxlen=SAMPLES)
        self._state = HubState(identity.incarnation, liveness, last_sequence)
        self._codec = Codec(identity, "hub")
        self._reactor = reactor
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._inbox: deque[Delivery] = deque()
        self._outbox: deque[tuple[Payload, ...]] = deque()
        self._published: _Published | None = None
        self._queue, self._max_payload = queue, max_payload
        self._refusals = Limit(MAX_REFUSED)
        self._refused_bytes = 0
        self._refused_at = 0.0
        self._unfinished: Unfinished | None = None
        self._looked_at = 0.0
        self._queued_bytes = 0
        self._paused = False
        self._discarding = False
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
            self._queued_bytes = 0
        if self._paused:
            self._reactor.wake()
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
        """Set what is left of the run's limit of env steps; the next pulses carry it, and no pulse is sent for it."""
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
        self._pull.setsockopt(zmq.RCVHWM, QUEUE)
        self._pull.setsockopt(zmq.MAXMSGSIZE, max(MAX_HEADER, self._max_payload))
        self._publish.setsockopt(zmq.SNDHWM, self._queue)
        self._subscriptions = Subscriptions(self._publish)
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
            if self.address.startswith("tcp://"):
                most = (QUEUE + 4) * (MAX_HEADER + self._max_payload)
                self._unfinished = Unfinished(addresses.split(self.address)[1], most)
        self._opened.set()

    def shut(self) -> None:
        """Close both sockets."""
        self._pull.close(0)
        self._publish.close(0)

    def on_readable(self, source: zmq.Socket[bytes]) -> None:
        """Frames, or subscriptions (a hint that nothing rests on)."""
        if source is self._publish:
            self._subscriptions.read()
            return
        delivered = False
        until = time.monotonic() + TURN_SECONDS
        for _ in range(TURN):
            if self._full():
                self._paused = True
                self._reactor.unwatch(source)
                break
            try:
                if time.monotonic() > until or not self._discard(source, until):
                    break
                header = source.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            frames: list[Payload] = []
            more, size = header.more, 0
            while more:
                frame = source.recv(zmq.NOBLOCK, copy=False)
                more = frame.more
                size += len(frame)
                frames.append(frame.buffer)
                if len(frames) > MAX_FRAMES or size > self._max_payload:  # the rest of the message is discarded
                    self._discarding = more
                    self._refusals.count(header, MAX_REFUSED)
                    break
            if self._unfinished is not None:
                self._unfinished.read(header)
            delivered |= self._read(header, frames, size)
        if delivered:
            with self._lock:
                self._news.notify_all()
            if self._on_delivery is not None:
                self._on_delivery()

    def _discard(self, source: zmq.Socket[bytes], until: float) -> bool:
        """Discard the rest of a message that is too large. Returns False if `until` passed first."""
        while self._discarding:
            if time.monotonic() > until:
                return False
            self._discarding = source.recv(zmq.NOBLOCK, copy=False).more
        return True

    def _read(self, frame: zmq.Frame, frames: list[Payload], size: int) -> bool:
        header = frame.bytes
        payload = frames[0] if frames else None
        try:
            if size > self._max_payload:
                raise WireError("oversized", f"payload of {size} bytes; at most {self._max_payload}")
            envelope = self._codec.decode(header, payload, (self.identity.name,), tuple(frames[1:]))
            authority.check(self.identity.name, envelope, self.identity.clock)
            with self._lock:
                delivered = self._state.handle(envelope, time.monotonic())
                self._inbox.extend(delivered)
                self._queued_bytes += len(header) + size if delivered else 0
        except WireError as error:
            self._refuse(error, frame, size)
            return False
        except Exception as error:
            self._refuse(WireError("malformed", f"reading it raised {type(error).__name__}"), frame, size)
            return False
        return bool(delivered)

    def _refuse(self, error: WireError, frame: zmq.Frame, size: int) -> None:
        size += len(frame)
        self.samples.append(Quarantined(error.reason, str(error)[:300], size, bytes(frame.buffer[:48]).hex()))
        self._refusals.count(frame, 1 + size // 2**20)
        self._refused_bytes += size
        self._refused_at = time.monotonic()
        self.quarantine[error.reason] += 1  # after the sample: a reader that sees the count grow finds the sample

    def _full(self) -> bool:
        return len(self._inbox) >= MAX_QUEUED or self._queued_bytes >= MAX_QUEUED_BYTES

    def on_tick(self, now: float) -> float:
        """Send what is waiting, then the pulses that are due, and the version to those who are behind."""
        if self._unfinished is not None and now - self._looked_at >= PULSE_EVERY:
            self._looked_at = now
            if closed := self._unfinished.look():
                self._refused_bytes, self._refused_at = self._refused_bytes + closed, now
        if self._refused_bytes > MUCH_REFUSED and now - self._refused_at > 1.0:
            self._refused_bytes = 0
            give_back_memory()
        if self._paused and not self._full():
            self._paused = False
            self._reactor.watch(self._pull, self)
        with self._lock:
            due = self._state.pulse_due()
            if now < due and not self._outbox:
                return due
            changes = [] if self._paused else self._state.silent(now)
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
