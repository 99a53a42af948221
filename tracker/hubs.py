"""The tracker's directory: addresses of the run's hubs and endpoints, and the spokes that it must be sent to.

Invariants: an entry is listed from its Hello until it is lost or has left, and every Hello lists it again, so that one
that was only silent is listed again within a heartbeat of its return; only roles of the plan are listed, with addresses
that can be connected to; the directory is sent at most once in `APART` seconds, however many Hellos come.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker import addresses
from broker import messages as m
from broker.names import ALL

APART = 0.02
"""Seconds between two rounds of directories."""
SINGLE = 32
"""Most spokes that get the directory each under its own name. If more said Hello, it goes once to all."""


class Hubs:
    """The entries, by name. Who holds a name is for the hub's liveness to know: only a holder's Hello comes here."""

    def __init__(self, roles: Iterable[str]) -> None:
        """`roles` names the learners and endpoints of the plan."""
        self._roles = frozenset(roles)
        self._entries: dict[str, m.DirectoryEntry] = {}
        self._recipients: dict[str, None] = {}
        self._sent_at = 0.0

    def hello(self, name: str, incarnation: str, hello: m.Hello) -> None:
        """Handle a Hello: list the sender if it can be reached, and send it the directory, which it may have missed."""
        self._recipients[name] = None
        if hello.address is None or name not in self._roles:
            return
        if hello.role == "learner" and not addresses.is_hub(hello.address):
            return
        entry = m.DirectoryEntry(
            name=name, role=hello.role, policy=hello.policy, address=hello.address, incarnation=incarnation
        )
        if self._entries.get(name) != entry:
            self._entries[name] = entry
            self._recipients[ALL] = None

    def gone(self, name: str, incarnation: str) -> None:
        """Remove an incarnation that was lost or has left."""
        entry = self._entries.get(name)
        if entry is not None and entry.incarnation == incarnation:
            del self._entries[name]
            self._recipients[ALL] = None

    def due(self, now: float) -> list[str]:
        """Return the recipients of a directory that must be sent now (monotonic seconds)."""
        if not self._recipients or now - self._sent_at < APART:
            return []
        recipients, self._recipients, self._sent_at = list(self._recipients), {}, now
        return [ALL] if ALL in recipients or len(recipients) > SINGLE else recipients

    @property
    def directory(self) -> m.Directory:
        """The message."""
        return m.Directory(entries=tuple(self._entries.values()))
