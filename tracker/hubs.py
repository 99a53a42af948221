"""Where the hubs and endpoints of the run are: what the tracker's Directory says.

Invariant: one is listed from its Hello until it is lost or has left, and every Hello lists it again; so that one that
was only silent for long is found within a heartbeat of its return.
"""

from __future__ import annotations

from broker import messages as m


class Hubs:
    """The entries, by name. Who holds a name is for the hub's liveness to know: only a holder's Hello comes here."""

    def __init__(self) -> None:
        self._entries: dict[str, m.DirectoryEntry] = {}

    def hello(self, name: str, incarnation: str, hello: m.Hello) -> bool:
        """A Hello. True if the directory is another one now."""
        if hello.address is None:
            return False
        entry = m.DirectoryEntry(
            name=name, role=hello.role, policy=hello.policy, address=hello.address, incarnation=incarnation
        )
        if self._entries.get(name) == entry:
            return False
        self._entries[name] = entry
        return True

    def gone(self, name: str, incarnation: str) -> bool:
        """An incarnation was lost or has left. True if the directory is another one now."""
        entry = self._entries.get(name)
        if entry is None or entry.incarnation != incarnation:
            return False
        del self._entries[name]
        return True

    @property
    def directory(self) -> m.Directory:
        """The message."""
        return m.Directory(entries=tuple(self._entries.values()))
