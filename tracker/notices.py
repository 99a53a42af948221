"""What the tracker leaves in the run directory for those who come without a socket: `tracker.json`, `summary.json`.

Invariant: a notice is whole or not there; one that cannot be written is an alarm, and is tried again: a full disk ends
no tracker.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from broker.errors import RequestError
from broker.files import write_whole
from tracker.ledger import LedgerFull
from tracker.summary import SUMMARY, write_summary

ADDRESS = "tracker.json"
AGAIN = 0.5
"""Seconds between two tries."""


class Notices:
    """The notices of one incarnation of the tracker; `alarms` are the run's (`tracker.live`). Times are monotonic."""

    def __init__(self, directory: Path, alarms: dict[str, str]) -> None:
        self._directory, self._alarms = directory, alarms
        self._left: set[str] = set()
        self._tried: dict[str, float] = {}

    def address(self, address: str, run: str, now: float) -> bool:
        """Leave the tracker's address for `watch`. True once it is there; call it again until then."""
        notice = json.dumps({"address": address, "run": run, "pid": os.getpid()}).encode()
        return self._leave(ADDRESS, lambda: write_whole(self._directory / ADDRESS, notice), now)

    def summary(self, now: float) -> bool:
        """Leave the summary of the run as it is in the ledger. True once it is there; call it again until then."""
        return self._leave(SUMMARY, lambda: write_summary(self._directory), now)

    def _leave(self, name: str, write: Callable[[], object], now: float) -> bool:
        if name in self._left:
            return True
        if now - self._tried.get(name, -math.inf) < AGAIN:
            return False
        self._tried[name] = now
        try:
            write()
        except (OSError, LedgerFull, RequestError) as error:
            self._alarms[name] = f"{name} cannot be written: {error}; free some space, it is tried again"
            return False
        self._alarms.pop(name, None)
        self._left.add(name)
        return True
