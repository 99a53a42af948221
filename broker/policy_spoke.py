"""A spoke towards a learner: fragments up with credit, versions down.

Invariants: at most `window` fragments are unsettled; versions never go backwards.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from operator import index
from typing import Any, Literal

import msgpack

from broker import messages as m
from broker.arrays import Draft, fill, unpack
from broker.credit import SendWindow
from broker.errors import RequestError, WireError
from broker.layouts import Layout, Leaf, Tree, described, read_layout
from broker.reactor import Reactor
from broker.sending import ZERO_COPY, Payload, fresh
from broker.spoke import Spoke
from broker.wire import MAX_PAYLOAD, Envelope, Identity

BATCH = 1024 * 1024
MAX_NOTE = 1024 * 1024
MAX_ITEMS = 1024
REMEMBERED = 1024
"""Losses that `fate` knows of."""


@dataclass(frozen=True)
class Versioned:
    """One version of a policy as it was published. The arrays are read-only views of what arrived."""

    version: tuple[int, int]
    crc: int
    tree: Tree


@dataclass(slots=True)
class _Batch:
    """Fragments of one layout that leave as one message; there is room for more in its payload."""

    layout: Layout
    room: int
    payload: memoryview | None
    """One buffer with room for all; None where each fragment is a draft with a buffer of its own."""
    items: list[dict[str, Any]] = field(default_factory=list)
    drafts: list[Payload] = field(default_factory=list)
    noted: int = 0
    """Bytes of the items' notes: they travel in the header, which has a bound."""

    def fits(self, layout: Layout, noted: int, *, drafted: bool) -> bool:
        """Whether one more fragment of this layout may go along."""
        alike = (self.payload is None) == drafted and self.layout.digest == layout.digest
        return alike and len(self.items) < self.room and self.noted + noted <= MAX_NOTE

    def frames(self) -> tuple[Payload, ...]:
        """The payload frames: one for all fragments, or one for each draft."""
        if self.payload is None:
            return tuple(self.drafts)
        return (self.payload[: len(self.items) * self.layout.size],)


def packed_size(note: dict[str, Any]) -> int:
    """Return the bytes that a note takes in a message, or more if it has many values. TypeError or ValueError if it
    cannot be sent.

    It is packed on the reactor's thread, where an error would end the role: it is refused here instead.
    """
    if not all(isinstance(key, str) for key in note):
        raise TypeError("the keys of a note are text")
    try:
        packed = msgpack.packb(note)
        msgpack.unpackb(packed, strict_map_key=True)  # the hub does the same: keys are text at every level
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"a note holds plain values only: {error}") from error
    size = len(packed)
    if size > MAX_NOTE:
        raise ValueError(f"a note has {size} bytes; make it smaller: at most {MAX_NOTE}")
    try:
        values = m.count_plain(note)
    except ValueError as error:
        raise ValueError(f"a note {error}") from error
    if values > m.MAX_NOTE_VALUES:
        raise ValueError(f"a note has {values:,} values; make it smaller: at most {m.MAX_NOTE_VALUES:,}")
    return max(size, values * MAX_NOTE // m.MAX_NOTE_VALUES)


class PolicySpoke(Spoke):
    """An actor's side of one policy. `window` is in fragments."""

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        hub: str,
        address: str,
        *,
        window: int,
        policy: str,
        queue: int = 8,
        max_fragment: int = MAX_PAYLOAD,
    ) -> None:
        self.policy = policy
        self._max_fragment = max_fragment
        self.dropped = 0
        """Fragments that were made and will never be settled: the hub was gone, or its incarnation changed."""
        self._window = SendWindow(window)
        self._batches: deque[_Batch] = deque()
        self._waiting = 0
        self._made = 0
        self._gone = 0
        """Of the fragments made, how many are settled or went to a hub that is gone."""
        self._losses: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        """Of the fragments made (1, 2, 3 ...): (after, through) that the hub does not have, or that one of them is."""
        self._lost = 0
        """As the hub counts them."""
        self._room = 1
        self._known: frozenset[str] = frozenset()
        self._newest: Versioned | None = None
        super().__init__(reactor, identity, "actor", hub, address, policy=policy, queue=queue)

    # --- on the role's thread --------------------------------------------------------------------------------------

    @property
    def open_for_more(self) -> bool:
        """Whether there is credit for one more fragment.

        Two counters with one writer each, so that no lock is waited for, and nothing that leaves is counted twice.
        """
        return self._window.hub is not None and self._made - self._gone < self._window.window

    @property
    def credit(self) -> int:
        """Fragments that may still be made now."""
        return max(0, self._window.window - (self._made - self._gone))

    def wait_for_credit(self, timeout: float) -> bool:
        """Wait until one more fragment may be made, at most `timeout` seconds."""
        if self.open_for_more:
            return True
        with self._lock:
            return self._news.wait_for(lambda: self.open_for_more or self.superseded, timeout) and self.open_for_more

    def send_fragment(
        self,
        arrays: dict[str, Any] | Draft,
        *,
        version: tuple[int, int],
        crc: int,
        steps: int,
        task: str | None = None,
        minted: bool = False,
        note: dict[str, Any] | None = None,
        given_up: str | None = None,
    ) -> bool:
        """Send the arrays as one fragment: a copy, or a Draft as it is, whose maker must not touch it again.

        `minted` says that the policy itself minted `task`; `given_up` says why the task has no result. Returns False,
        and counts the fragment as dropped, without credit.

        Raises TypeError or ValueError for arrays, steps, a note (at most 1 MiB, plain values by text keys) or a reason
        that cannot be sent, and RequestError for a fragment that is larger than the learner reads.
        """
        steps = index(steps)  # NumPy's whole numbers among them
        if not 0 <= steps < m.MAX_STEPS:
            raise ValueError(f"a fragment has from 0 to {m.MAX_STEPS - 1} agent steps, not {steps}")
        if not self.open_for_more:
            self.dropped += 1
            return False
        noted = 0 if note is None else packed_size(note)
        if given_up is not None:
            noted += packed_size({"given_up": given_up})
            if len(given_up) > m.MAX_TEXT:
                raise ValueError(f"a reason of {len(given_up)} characters; at most {m.MAX_TEXT}")
        leaves: list[Leaf] = []
        if isinstance(arrays, Draft):
            layout = arrays.layout
        else:
            layout, leaves = described(arrays)
        if layout.size > self._max_fragment:
            raise RequestError(
                f"policy {self.policy!r}: a fragment has {layout.size / 2**20:.1f} MiB, and its learner reads "
                f"{self._max_fragment / 2**20:.1f}; make smaller ones, or raise learner.max_fragment_mb"
            )
        fields: dict[str, Any] = {"version": version, "crc": crc, "steps": steps}
        if task is not None:
            fields["task"] = task
        if minted:
            fields["minted"] = True
        if note is not None:
            fields["note"] = note
        if given_up is not None:
            fields["given_up"] = given_up
        drafted = isinstance(arrays, Draft) and layout.size >= ZERO_COPY
        batch = self._take_batch(layout, noted, drafted=drafted)
        if batch.payload is not None:
            begin = len(batch.items) * layout.size
            place = batch.payload[begin : begin + layout.size]
            if isinstance(arrays, Draft):
                place[:] = arrays.payload
            else:
                fill(layout, leaves, place)
        elif isinstance(arrays, Draft):
            batch.drafts.append(arrays.payload)
        batch.noted += noted
        batch.items.append(fields)
        with self._lock:
            self._batches.append(batch)
            self._waiting += 1
            self._made += 1
        self._reactor.wake()
        return True

    @property
    def made(self) -> int:
        """Fragments taken by `send_fragment`: the number of the newest, for `fate`."""
        return self._made

    def fate(self, fragment: int) -> Literal["pending", "settled", "lost"]:
        """What became of the n-th fragment: lost if it was under way as the hub fell or missed something of ours.

        One that is said to be lost may have arrived all the same; one that is said to be settled has.
        """
        with self._lock:
            if any(after < fragment <= through for after, through in self._losses):
                return "lost"
            return "settled" if fragment <= self._made - self._waiting - self._window.unsettled else "pending"

    def _take_batch(self, layout: Layout, noted: int, *, drafted: bool) -> _Batch:
        """The last batch, if it still waits and has room (nobody else holds it then), or a new one.

        A buffer's room doubles while there is a backlog and halves while there is none: single fragments are not made
        to wait. Drafts bring their own buffers: what waits goes together, up to `BATCH`.
        """
        most = max(1, min(MAX_ITEMS, BATCH // max(1, layout.size)))
        with self._lock:
            if self._batches and self._batches[-1].fits(layout, noted, drafted=drafted):
                return self._batches.pop()
            if drafted:
                return _Batch(layout, most, None)
            self._room = self._room * 2 if self._batches else self._room // 2
            self._room = room = max(1, min(self._room, most))
        return _Batch(layout, room, fresh(layout.size * room))

    def take_dropped(self) -> int:
        """Fragments dropped since this was last asked."""
        with self._lock:
            dropped, self.dropped = self.dropped, 0
        return dropped

    def newest(self, after: tuple[int, int] | None = None) -> Versioned | None:
        """The newest version, if it is newer than `after`. Costs nothing when it is not."""
        newest = self._newest
        if newest is None or (after is not None and newest.version <= after):
            return None
        return newest

    def wait_for_version(self, timeout: float) -> Versioned | None:
        """The newest version as soon as there is one."""
        with self._lock:
            self._news.wait_for(lambda: self._newest is not None or self.superseded, timeout)
        return self._newest

    def flushed(self, timeout: float) -> bool:
        """Wait until all that was sent is settled."""
        with self._lock:
            return self._news.wait_for(lambda: self._waiting == 0 and self._window.unsettled == 0, timeout)

    # --- on the reactor's thread -----------------------------------------------------------------------------------

    def _version(self) -> tuple[int, int] | None:
        return self._newest.version if self._newest is not None else None

    def _sent_through(self) -> int:
        return self._window.sequence

    def _on_new_hub(self, incarnation: str) -> None:
        lost = self._window.on_hub(incarnation)
        if lost:
            self.dropped += lost
            self._losses.append((self._made - self._waiting - lost, self._made - self._waiting))
        self._known = frozenset()
        self._lost = 0
        self._gone = self._made - self._waiting

    def _on_pulse(self, pulse: m.Pulse, counters: m.SpokeCounters | None, now: float) -> None:
        if counters is not None and self.incarnation is not None:
            self._known = frozenset(counters.layouts)
            if counters.lost > self._lost:  # which of those under way is not said: whoever asks takes all for lost
                self._lost = counters.lost
                sent = self._made - self._waiting
                self._losses.append((sent - self._window.unsettled, sent))
            self._window.on_settled(self.incarnation, counters.settled)
            self._gone = self._made - self._waiting - self._window.unsettled
        mine = self._version()
        if pulse.version is not None and (mine is None or mine < pulse.version):
            self._next_hello = min(self._next_hello, now)  # behind: ask, once a pulse

    def _on_message(self, envelope: Envelope, now: float) -> None:
        message = envelope.message
        if not isinstance(message, m.Parameters):
            return
        if message.policy != self.policy:
            raise WireError("misdirected", f"parameters of {message.policy!r}")
        mine = self._version()
        if mine is not None and message.version <= mine:
            return
        tree = unpack(read_layout(message.layout), envelope.payload)
        self._newest = Versioned(message.version, message.crc, tree)

    def _flow(self, now: float) -> float:
        if self._window.stands_still(now):
            hello = self._hello_message(blocked=True, sent_through=self._window.sequence)
            self._push_message(hello, None)
        while self._batches:
            if not self._push_batch(self._batches.popleft()):
                return now + 0.002
        return time.monotonic() + 0.25

    def _push_batch(self, batch: _Batch) -> bool:
        layout = batch.layout
        items = [{"sequence": self._window.take(), **fields} for fields in batch.items]
        self._waiting -= len(items)
        fields: dict[str, Any] = {"layout": layout.digest, "items": items}
        if layout.digest not in self._known:
            fields["define"] = layout.plain
        header = self._codec.encode_fields("fragments", fields, self.hub_name, hub=self.incarnation)
        parts: tuple[Payload, ...] = (header, *batch.frames())
        if not self._push_parts(parts):
            self._stuck = parts
            return False
        return True
