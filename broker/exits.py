"""How a process ended, in words: its status and the end of what it printed.

Invariant: any status has some words; None is one that nobody saw. The end of an output fits into a fact.
"""

from __future__ import annotations

import signal

from broker.delivery import shortened

STATUS_FINAL = 3
"""A role failed, and another attempt would fail alike: the run ends with status 1."""
LAST_LINES = 100
TRACEBACKS = ("Traceback (most recent call last)", "Fatal Python error:")
CHAINS = ("During handling of the above exception", "The above exception was the direct cause")


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


def output_end(output: bytes) -> str:
    """The last 100 lines that a process printed, and the whole of its last traceback with those that it is chained to.

    Of what is longer than a fact may hold the middle is left out, and the text says so.
    """
    lines = output.decode(errors="replace").strip().splitlines()
    return shortened("\n".join(lines[min(max(0, len(lines) - LAST_LINES), _last_traceback(lines)) :]))


def _last_traceback(lines: list[str]) -> int:
    """Where the last traceback begins, or the first of those that it is chained to; the end where there is none."""
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
