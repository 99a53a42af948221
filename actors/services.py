"""Where the run's endpoints are: processes that serve something to rollouts, found by name in the tracker's directory.

Invariant: an address is looked up whenever it is needed and never kept, so that an endpoint that comes back at another
port is found there. What the directory lists may just have died: who is refused asks again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from broker.errors import Unreachable

if TYPE_CHECKING:
    from broker.station import Station

LOOK_SECONDS = 0.05


class Services:
    """The endpoints of the run, as an actor's rollout sees them. `endpoint-NAME` is the role of endpoint NAME."""

    def __init__(self, station: Station | None = None) -> None:
        self._station = station

    def address(self, name: str) -> str | None:
        """The address that endpoint `name` gave last, as it wrote it (a URL); None if the directory has none."""
        if self._station is None:
            return None
        entry = self._station.tracker.directory.get(f"endpoint-{name}")
        return None if entry is None else entry.address

    async def found(self, name: str, timeout: float = 30.0) -> str:
        """The same, as soon as there is one. Unreachable after `timeout` seconds; the actor says whom it waits for."""
        since = time.monotonic()
        while (address := self.address(name)) is None:
            if time.monotonic() - since >= timeout:
                raise Unreachable(f"no endpoint is named {name!r}: none gave an address within {timeout:g} s")
            if self._station is not None:
                self._station.waits.setdefault(f"endpoint-{name}", ("its address", since))
            await asyncio.sleep(LOOK_SECONDS)
        if self._station is not None:
            self._station.waits.pop(f"endpoint-{name}", None)
        return address

    async def moved(self, name: str, address: str, timeout: float = 30.0) -> None:
        """Wait until endpoint `name` is at another address than this one, where nobody listens any more.

        Unreachable after `timeout` seconds: it did not come back.
        """
        since = time.monotonic()
        while self.address(name) in (None, address):
            if time.monotonic() - since >= timeout:
                raise Unreachable(f"endpoint {name!r} fell, and did not come back within {timeout:g} s")
            if self._station is not None:
                self._station.waits.setdefault(f"endpoint-{name}", ("its return", since))
            await asyncio.sleep(LOOK_SECONDS)
        if self._station is not None:
            self._station.waits.pop(f"endpoint-{name}", None)
