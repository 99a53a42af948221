"""How a process ended, in words. Invariant: any status has some; None is one that nobody saw."""

from __future__ import annotations

import signal

STATUS_FINAL = 3
"""A role failed, and another attempt would fail alike: the run ends with status 1."""


def signal_name(status: int | None) -> str | None:
    """SIGKILL for -9; None where it was no signal, or nobody knows."""
    if status is None or status >= 0:
        return None
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def describe(status: int | None) -> str:
    """An exit in words."""
    if status is None:
        return "an unknown status"
    return signal_name(status) or f"status {status}"
