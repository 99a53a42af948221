"""A hub's decisions, without sockets: what to believe of each spoke, and what to say to whom.

Pure: messages and times come in, deliveries for the role and names to pulse come out. Invariants: a spoke's counters
say what this hub received from it, and never run ahead of what the role settled or made durable; only a Hello
introduces an identity, and the state of all identities together is bounded, whatever they send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broker import messages as m
from broker.arrays import unpack, unpack_all
from broker.catchup import CatchUp
from broker.credit import Settlement
from broker.delivery import Fact, Inbox
from broker.errors import WireError
from broker.layouts import Layout, Tree, read_layout
from broker.liveness import Event, Liveness
from broker.names import ALL
from broker.wire import Envelope

PULSE_EVERY = 0.25
PULSE_APART = 0.001
"""Seconds between two pulses at least. Where fragments are large a window is used up in milliseconds: at twice this a
stream of 256 KiB with a window of 32 lost a tenth of its rate for want of credit (docs/benchmarks.md)."""
MAX_LAYOUTS = 64
MAX_NAMES = 4096
"""Most names at the same time. A new name replaces one that was lost or has left, and whose facts are all on disk."""
MAX_SUPERSEDED = 1024
"""Most superseded incarnations whose facts are accepted. A new one replaces the oldest whose facts are on disk."""
LOOK_EVERY = 0.1
"""Seconds between two checks for spokes that have become silent."""
LOOK_LATE = 1.0
"""Seconds between two checks after which the hub itself must have been stopped: it sleeps at most 0.25 s."""


class Arrived(NamedTuple):
    """One fragment, checked, in order; it must be settled in the end."""

    source: str
    incarnation: str
    sequence: int
    version: tuple[int, int]
    crc: int
    steps: int
    arrays: Tree
    task: str | None = None
    minted: bool = False
    note: dict[str, Any] | None = None
    given_up: str | None = None


class FactsArrived(NamedTuple):
    """Facts in order, each new; to be made durable and then acknowledged."""

    source: str
    incarnation: str
    first: int
    items: tuple[Fact, ...]


class Said(NamedTuple):
    """Any other message of a spoke."""

    source: str
    incarnation: str
    message: Any
    payload: bytes | memoryview = b""


Delivery = Arrived | FactsArrived | Said | Event


@dataclass(slots=True)
class _Spoke:
    """What the hub holds of the incarnation that has a name."""

    incarnation: str
    inbox: Inbox
    settlement: Settlement = field(default_factory=Settlement)
    layouts: dict[str, Layout] = field(default_factory=dict)
    offer: tuple[int, int, str] = (0, 0, "none")


def _trees(layout: Layout, envelope: Envelope, count: int) -> list[Tree]:
    """The fragments of a message, whose payloads lie in one frame or in one each."""
    if envelope.more:
        return [unpack(layout, payload) for payload in (envelope.payload, *envelope.more)]
    return unpack_all(layout, envelope.payload, count)


class HubState:
    """The state of one hub incarnation. Not locked: its shell sees to that."""

    def __init__(
        self,
        incarnation: str,
        liveness: Liveness | None = None,
        last_sequence: Callable[[str, str], int] = lambda _source, _incarnation: 0,
    ) -> None:
        """`last_sequence` returns a (source, incarnation)'s last fact in the ledger; it is called once for each."""
        self.incarnation = incarnation
        self.liveness = liveness or Liveness()
        self.catch_up = CatchUp()
        self.phase: m.PhaseName = "starting"
        self.reason = ""
        self.version: tuple[int, int] | None = None
        self.crc = 0
        self.env_steps_left: int | None = None
        """What is left of the run's limit of env steps, for the next pulses."""
        self.dropped: Counter[str] = Counter()
        """Believed messages that were of no use, by reason (another incarnation's, replayed, unannounced ...)."""
        self.spokes: dict[str, _Spoke] = {}
        self.duplicates = 0
        """How many facts arrived again; each was stored once."""
        self._last_sequence = last_sequence
        self._superseded: dict[tuple[str, str], Inbox] = {}
        self._looked_at = -LOOK_EVERY
        self._lost_before = 0
        self._unsaid: list[Delivery] = []
        """Liveness events that came with a message which turned out false."""
        self._changed: set[str] = set()
        self._changed_all = True
        self._pulsed_at = -PULSE_EVERY
        self._rested_at = -PULSE_EVERY

    # --- what spokes say -------------------------------------------------------------------------------------------

    def handle(self, envelope: Envelope, now: float) -> list[Delivery]:
        """One believed message. Returns what the role is to see. WireError for one that turns out false."""
        name, incarnation, message = envelope.sender, envelope.incarnation, envelope.message
        hello = isinstance(message, m.Hello)
        if envelope.hub != self.incarnation and not (hello and not self.liveness.holds(name, incarnation)):
            # It may be a replay of a frame that was captured at an earlier hub's address: a Hello may only introduce.
            if hello:
                self._changed.add(name)
            else:
                self.dropped["another hub"] += len(message.items) if isinstance(message, m.Fragments) else 1
            return []
        if hello and self.liveness.admits(name, incarnation):
            self._enter(name, incarnation)
        events: list[Delivery] = [*self._unsaid, *self.liveness.heard(name, incarnation, now, hello=hello)]
        self._unsaid = []
        if not self.liveness.holds(name, incarnation):
            if name in self.spokes:  # an older incarnation learns from the pulse that it was superseded
                self._changed.add(name)
            if not isinstance(message, m.Facts):
                self.dropped["superseded" if name in self.spokes else "unannounced"] += 1
                return events
        if isinstance(message, m.Facts):
            return events + self._facts(name, incarnation, message)
        spoke = self.spokes[name]
        match message:
            case m.Hello():
                if envelope.hub == self.incarnation and message.blocked:
                    spoke.settlement.sent_through(message.sent_through)
                self.catch_up.hello(name, message.version)
                self._changed.add(name)
            case m.Fragments():
                try:
                    return events + self._fragments(name, spoke, message, envelope)
                except WireError:
                    self._unsaid = events
                    raise
            case m.Farewell():
                spoke.settlement.sent_through(message.sent_through)
                events += self.liveness.farewell(name, incarnation)
                self.catch_up.forget(name)
                self._changed.add(name)
            case _:
                pass
        return [*events, Said(name, incarnation, message, envelope.payload)]

    def _fragments(self, name: str, spoke: _Spoke, message: m.Fragments, envelope: Envelope) -> list[Delivery]:
        if message.define is not None and message.layout not in spoke.layouts:
            layout = read_layout(message.define)
            if layout.digest != message.layout:
                raise WireError("layout", "the layout is not the one that it is named")
            if len(spoke.layouts) >= MAX_LAYOUTS:
                spoke.layouts.pop(next(iter(spoke.layouts)))
            spoke.layouts[message.layout] = layout
            self._changed.add(name)
        known = spoke.layouts.pop(message.layout, None)
        if known is not None:
            spoke.layouts[message.layout] = known  # the newest used is the last to be forgotten
        trees = _trees(known, envelope, len(message.items)) if known is not None else None
        settlement = spoke.settlement
        arrived: list[Delivery] = []
        for index, item in enumerate(message.items):
            sequence = item.sequence
            if not settlement.arrive(sequence):
                self.dropped["replayed"] += 1
            elif trees is None:
                self.dropped["unknown layout"] += 1
                settlement.refuse(sequence)  # `leave` would settle what still waits before it
                self._changed.add(name)
            else:
                about = (item.version, item.crc, item.steps, trees[index], item.task, item.minted)
                arrived.append(Arrived(name, envelope.incarnation, sequence, *about, item.note, item.given_up))
        return arrived

    def _facts(self, name: str, incarnation: str, message: m.Facts) -> list[Delivery]:
        inbox = self._inbox(name, incarnation)
        if inbox is None:
            self.dropped["unannounced"] += 1
            return []
        duplicates = inbox.duplicates
        first, items = inbox.accept(message.first, message.items)
        self.duplicates += inbox.duplicates - duplicates
        self._changed.add(name)
        return [FactsArrived(name, incarnation, first, items)] if items else []

    def _inbox(self, name: str, incarnation: str) -> Inbox | None:
        """Return the inbox of an incarnation that said Hello and was not forgotten."""
        spoke = self.spokes.get(name)
        if spoke is not None and spoke.incarnation == incarnation:
            return spoke.inbox
        return self._superseded.get((name, incarnation))

    # --- who is known ----------------------------------------------------------------------------------------------

    def _enter(self, name: str, incarnation: str) -> None:
        """Give the name to a new incarnation; facts of the previous one are still accepted. WireError without room."""
        before = self.spokes.get(name)
        if before is None and len(self.spokes) >= MAX_NAMES:
            self._forget_name()
        if before is not None and len(self._superseded) >= MAX_SUPERSEDED:
            self._forget_superseded()
        inbox = self._superseded.get((name, incarnation)) or Inbox(self._last_sequence(name, incarnation))
        self._superseded.pop((name, incarnation), None)  # it is there if the name was forgotten meanwhile
        if before is not None:
            self._lost_before += before.settlement.lost
            self._superseded[name, before.incarnation] = before.inbox
        self.spokes[name] = _Spoke(incarnation, inbox)

    def _forget_name(self) -> None:
        ended = self.liveness.ended
        if ended is None or not self.spokes[ended].inbox.settled:
            raise WireError("crowded", f"{MAX_NAMES} names already")
        self._lost_before += self.spokes.pop(ended).settlement.lost
        self.catch_up.forget(ended)
        self._unsaid.append(self.liveness.forget(ended))

    def _forget_superseded(self) -> None:
        key = next((key for key, inbox in self._superseded.items() if inbox.settled), None)
        if key is None:
            raise WireError("crowded", f"{MAX_SUPERSEDED} superseded incarnations already")
        del self._superseded[key]

    def silent(self, now: float) -> list[Event]:
        """Return the changes of spokes that have become silent; checks every `LOOK_EVERY` seconds.

        Time in which the hub itself was stopped, or read nothing because its queue was full, does not count as silence.
        """
        away = now - self._looked_at
        if away < LOOK_EVERY:
            return []
        self._looked_at = now
        if away >= LOOK_LATE:
            self.liveness.excuse(away, now)
        return self.liveness.tick(now)

    # --- what the role says ----------------------------------------------------------------------------------------

    def settle(self, source: str, incarnation: str, sequence: int) -> None:
        """All fragments of this source up to `sequence` have left the queue."""
        spoke = self.spokes.get(source)
        if spoke is not None and spoke.incarnation == incarnation:
            spoke.settlement.leave(sequence)
            self._changed.add(source)

    def durable(self, source: str, incarnation: str, sequence: int) -> None:
        """All facts of this source up to `sequence` are on disk."""
        inbox = self._inbox(source, incarnation)
        if inbox is not None:
            inbox.commit(sequence)
            self._changed.add(source)

    def offer(self, name: str, offer: int, chunks: int, state: str) -> None:
        """How far a checkpoint offer has come."""
        spoke = self.spokes.get(name)
        if spoke is not None:
            spoke.offer = (offer, chunks, state)
            self._changed.add(name)

    def set_phase(self, phase: m.PhaseName, reason: str = "") -> None:
        """The phase of the run, as this hub knows it."""
        if (phase, reason) != (self.phase, self.reason):
            self.phase, self.reason = phase, reason
            self._changed_all = True

    def set_version(self, version: tuple[int, int], crc: int) -> None:
        """A version was published to all."""
        self.version, self.crc = version, crc
        self.catch_up.published(version)
        self._changed_all = True

    def lost(self) -> int:
        """Fragments counted as lost, over all spokes and their incarnations; never falls."""
        return self._lost_before + sum(spoke.settlement.lost for spoke in self.spokes.values())

    # --- the pulse -------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether something changed that no pulse has said yet."""
        return self._changed_all or bool(self._changed)

    def pulse_due(self) -> float:
        """When the next pulse is due."""
        apart = self._pulsed_at + PULSE_APART
        return apart if self.pending else max(apart, self._rested_at + PULSE_EVERY)

    def pulses(self, now: float) -> list[tuple[str, m.Pulse]]:
        """The pulses to send now, by recipient; empty when none is due."""
        if now < self.pulse_due():
            return []
        resting = now >= self._rested_at + PULSE_EVERY
        names = (
            {n for n, p in self.liveness.peers.items() if p.state in ("alive", "suspect")} | self._changed
            if resting
            else self._changed
        )
        out = [(ALL, self._pulse(None))] if resting or self._changed_all else []
        out += [(name, self._pulse(self._counters(name))) for name in sorted(names) if name in self.spokes]
        self._changed, self._changed_all, self._pulsed_at = set(), False, now
        if resting:
            self._rested_at = now
        return out

    def _pulse(self, counters: m.SpokeCounters | None) -> m.Pulse:
        return m.Pulse(
            phase=self.phase,
            reason=self.reason,
            version=self.version,
            crc=self.crc,
            env_steps_left=self.env_steps_left,
            spoke=counters,
        )

    def _counters(self, name: str) -> m.SpokeCounters:
        spoke = self.spokes[name]
        offer, chunks, state = spoke.offer
        return m.SpokeCounters(
            incarnation=spoke.incarnation,
            settled=spoke.settlement.settled,
            received=spoke.inbox.received,
            durable=spoke.inbox.durable,
            layouts=tuple(spoke.layouts),
            offer=offer,
            chunks=chunks,
            offer_state=state,  # type: ignore[arg-type]
            lost=spoke.settlement.lost,
        )
