"""From the command to the first training metric on the screen, and from Ctrl-C to the exit.

Each run is started in a terminal of its own (a pty of 120 x 40) as a user starts it; what it draws is read until the
name of a loss appears, which the dashboard shows once a learner has reported an update. Then comes SIGINT.

Invariant: the clock starts just before the process is made; every process of a run has ended before the next one.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from bench import runs

METRIC = b"policy_loss"
LIMIT = 60.0
ROWS, COLUMNS = 40, 120


def trial(run: str) -> dict[str, float]:
    """Seconds to the first metric, and from SIGINT to the exit. RuntimeError if either does not come."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder:
        line = runs.headrace("run", run, "--run-dir", Path(folder) / "run")
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        began = time.perf_counter()
        process = subprocess.Popen(
            line, cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        try:
            shown = _read(master, METRIC)
            if shown is None:
                raise RuntimeError(f"{' '.join(line)}: no {METRIC.decode()} on the screen within {LIMIT:.0f} s")
            first = shown - began
            asked = time.perf_counter()
            process.send_signal(signal.SIGINT)
            _read(master, None)
            process.wait(LIMIT)
            return {"metric_seconds": first, "exit_seconds": time.perf_counter() - asked}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            os.close(master)


def _read(terminal: int, wanted: bytes | None) -> float | None:
    """When `wanted` was drawn; None if it was not, by the time that the terminal was closed or the limit reached."""
    end = time.perf_counter() + LIMIT
    drawn = b""
    while (left := end - time.perf_counter()) > 0:
        if not select.select([terminal], [], [], left)[0]:
            return None
        try:
            came = os.read(terminal, 65_536)
        except OSError:  # Linux gives EIO when the last process has closed the other side
            return None
        if not came:
            return None
        drawn = drawn[-len(METRIC) :] + came
        if wanted is not None and wanted in drawn:
            return time.perf_counter()
    return None


def command(arguments: Sequence[str]) -> None:
    """`python -m bench start`."""
    parser = argparse.ArgumentParser(prog="python -m bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--runs", default="spread,cartpole", help="run files or shipped names, with commas between")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    found = runs.announce("start", arguments)
    names = asked.runs.split(",")
    trials: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(asked.rounds):
        for name in names:
            trials[name].append(trial(name))
    rows = [
        [
            name,
            runs.median(one["metric_seconds"] for one in given),
            " ".join(f"{one['metric_seconds']:.2f}" for one in given),
            runs.median(one["exit_seconds"] for one in given),
        ]
        for name, given in trials.items()
    ]
    print(runs.table(("(medians)", "s to the first metric", "each", "s from SIGINT to exit"), rows))
    runs.finish({**found, "trials": trials}, asked.json)
