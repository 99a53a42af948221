"""Who is alive: a pure fold of what was heard and when.

States: alive → suspect (silent for `suspect_after`) → lost (silent for `lost_after`). A peer that is heard again in
either state has `returned` and is alive; it has `left` after a Farewell, and is `forgotten` to make room for another
name. Invariants: the events determine the whole state; only the newest incarnation of a name counts, and an older one
is ignored until the name is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["alive", "suspect", "lost", "left"]
Change = Literal["alive", "suspect", "lost", "returned", "left", "superseded", "forgotten"]

SUSPECT_AFTER = 3.0
LOST_AFTER = 10.0


@dataclass(slots=True)
class Peer:
    """What is known of one name."""

    incarnation: str
    heard: float
    state: State = "alive"


@dataclass(frozen=True)
class Event:
    """One change in the life of a name. `incarnation` is the one that it happened to."""

    name: str
    incarnation: str
    change: Change


class Liveness:
    """The names that have spoken, and which of them still do. Times are monotonic seconds given by the caller."""

    def __init__(self, suspect_after: float = SUSPECT_AFTER, lost_after: float = LOST_AFTER) -> None:
        if not 0 < suspect_after < lost_after:
            raise ValueError("liveness needs 0 < suspect_after < lost_after")
        self.suspect_after = suspect_after
        self.lost_after = lost_after
        self.peers: dict[str, Peer] = {}
        self._ended: dict[str, None] = {}
        """Names that are lost or have left, the earliest first."""

    def heard(self, name: str, incarnation: str, now: float, *, hello: bool) -> list[Event]:
        """A frame of `name` arrived. Only a Hello introduces an incarnation or replaces an older one."""
        peer = self.peers.get(name)
        if peer is None or incarnation > peer.incarnation:
            if not hello:
                return []
            events = [] if peer is None else [Event(name, peer.incarnation, "superseded")]
            self.peers[name] = Peer(incarnation, now)
            self._ended.pop(name, None)
            return [*events, Event(name, incarnation, "alive")]
        if incarnation < peer.incarnation:
            return []
        peer.heard = max(peer.heard, now)
        if peer.state == "alive":
            return []
        if peer.state == "left" and not hello:
            return []
        peer.state = "alive"
        self._ended.pop(name, None)
        return [Event(name, incarnation, "returned")]

    def admits(self, name: str, incarnation: str) -> bool:
        """Tell whether a Hello of this incarnation introduces the name or replaces an older incarnation."""
        peer = self.peers.get(name)
        return peer is None or incarnation > peer.incarnation

    def holds(self, name: str, incarnation: str) -> bool:
        """Whether this incarnation is the one that holds the name."""
        peer = self.peers.get(name)
        return peer is not None and peer.incarnation == incarnation

    def farewell(self, name: str, incarnation: str) -> list[Event]:
        """The name said that it is done."""
        if not self.holds(name, incarnation) or self.peers[name].state == "left":
            return []
        self.peers[name].state = "left"
        self._ended.setdefault(name)
        return [Event(name, incarnation, "left")]

    @property
    def ended(self) -> str | None:
        """The name that was lost or left first; None without any."""
        return next(iter(self._ended), None)

    def forget(self, name: str) -> Event:
        """Forget a name, to make room for another."""
        self._ended.pop(name, None)
        return Event(name, self.peers.pop(name).incarnation, "forgotten")

    def excuse(self, seconds: float, now: float) -> None:
        """Do not count the last `seconds` as silence: the messages of all peers waited to be read."""
        for peer in self.peers.values():
            peer.heard = min(peer.heard + seconds, now)

    def tick(self, now: float) -> list[Event]:
        """Those whose silence has become too long."""
        events = []
        for name, peer in self.peers.items():
            silence = now - peer.heard
            if peer.state in ("alive", "suspect") and silence >= self.lost_after:
                peer.state = "lost"
                self._ended.setdefault(name)
                events.append(Event(name, peer.incarnation, "lost"))
            elif peer.state == "alive" and silence >= self.suspect_after:
                peer.state = "suspect"
                events.append(Event(name, peer.incarnation, "suspect"))
        return events
