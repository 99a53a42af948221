"""Descriptions of how a process ended: its exit status and the end of its output.

Invariants: every status has a description (None: the status is unknown); the end of an output fits into a fact.
"""

from __future__ import annotations

import signal

from broker.delivery import shortened

STATUS_FINAL = 3
"""Exit status of a role that would fail in the same way if it were restarted: the run ends with status 1."""
LAST_LINES = 100
TRACEBACKS = ("Traceback (most recent call last)", "Fatal Python error:", "Timeout (")
CHAINS = ("During handling of the above exception", "The above exception was the direct cause")


def signal_name(status: int | None) -> str | None:
    """Name the signal of a status (SIGKILL for -9). None if the status is unknown or not a signal."""
    if status is None or status >= 0:
        return None
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def describe(status: int | None) -> str:
    """Describe an exit status for a message."""
    if status is None:
        return "an unknown status"
    return signal_name(status) or f"status {status}"


def output_end(output: bytes) -> str:
    """Return the last 100 lines of an output, or more if its last traceback, with those chained to it, begins earlier.

    An output that is longer than a fact may hold loses its middle, and says so.
    """
    lines = output.decode(errors="replace").strip().splitlines()
    return shortened("\n".join(lines[min(max(0, len(lines) - LAST_LINES), _last_traceback(lines)) :]))


def _last_traceback(lines: list[str]) -> int:
    """Return the line where the last traceback, or the first one chained to it, begins; without one, the line count."""
    begin, chained = len(lines), True
    for place in range(len(lines) - 1, -1, -1):
        line = lines[place].lstrip(" +|")
        if line.startswith(CHAINS):
            chained = True
        elif line.startswith(TRACEBACKS):
            if not chained:
                break
            begin, chained = place, False
    return begin
