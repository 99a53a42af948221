"""Commands under measurement and what their ledgers say: launched as a user launches them, timed from the launch.

Invariant: a command's clock starts just before its process is made, and a figure of a run is taken from its ledger (the
facts' own times, of this host's wall clock), never from what the run printed. When a `Command` is left its process
group has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from bench import machine
from broker.errors import HeadraceError
from tracker.ledger import LEDGER, LedgerReader

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For peers, as the launcher gives it to its own children: more threads cost small networks dearly."""
GRACE = 15.0


def headrace(*arguments: str | Path) -> list[str]:
    """The command line of `headrace ARGUMENTS`, of this interpreter's environment."""
    beside = Path(sys.executable).with_name("headrace")
    found = str(beside) if beside.exists() else shutil.which("headrace")
    if found is None:
        raise SystemExit("there is no `headrace` command beside this interpreter: run `make setup`")
    return [found, *map(str, arguments)]


class Command:
    """A command at work. `began` is the wall clock (s) at its launch, `seconds` what it took until its exit."""

    def __init__(self, line: Sequence[str], folder: Path, **environment: str) -> None:
        self.line = list(line)
        self.log = folder / "output"
        with self.log.open("wb") as output:
            self.began = time.time()
            self._clock = time.perf_counter()
            self.process = subprocess.Popen(
                self.line,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.seconds = float("nan")

    def wait(self, timeout: float) -> int:
        """The exit status. RuntimeError, with the end of its output, if it did not end in time or failed."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{self} did not end within {timeout:.0f} s\n{self.words()}") from None
        self.seconds = time.perf_counter() - self._clock
        if status != 0:
            raise RuntimeError(f"{self} ended with {status}\n{self.words()}")
        return status

    def words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def last_json(self) -> dict[str, Any]:
        """The last JSON object that it printed from the start of a line on."""
        text = self.log.read_text(errors="replace")
        start = text.rfind("\n{") + 1
        if not text.startswith("{", start):
            raise RuntimeError(f"{self} said nothing as JSON\n{self.words()}")
        found: dict[str, Any] = json.JSONDecoder().raw_decode(text, start)[0]
        return found

    def __str__(self) -> str:
        return " ".join(self.line)

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


# --- facts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """A fact as it was read: `time` is its source's wall clock in seconds."""

    source: str
    time: float
    kind: str
    body: dict[str, Any]


def facts(run_dir: Path, *kinds: str) -> Iterator[Read]:
    """The facts of these kinds, in the ledger's order."""
    with LedgerReader(run_dir / LEDGER) as ledger:
        for _, source, _, _, moment, kind, body in ledger.read_all():
            if kind in kinds:
                yield Read(source, moment / 1e9, kind, json.loads(body))


def phase_time(run_dir: Path, phase: str) -> tuple[float, str]:
    """When (wall clock, s) the run's first life came to `phase`, and the reason. RuntimeError if it did not."""
    for fact in facts(run_dir, "phase"):
        if fact.body["phase"] == phase:
            return fact.time, fact.body["reason"]
    raise RuntimeError(f"{run_dir}: there was no phase {phase!r}")


def step_rates(run_dir: Path, skip: float = 0.0) -> tuple[float, float]:
    """Env steps/s and agent steps/s: of each actor, from its first `progress` to its last.

    Facts of the run's first `skip` seconds are left out, and so are the steps that the first fact after them tells of:
    they were made before the interval.
    """
    running, _ = phase_time(run_dir, "running")
    by_actor: dict[str, list[Read]] = {}
    for fact in facts(run_dir, "progress"):
        if fact.time >= running + skip:
            by_actor.setdefault(fact.source, []).append(fact)
    env = agent = 0.0
    for told in by_actor.values():
        seconds = told[-1].time - told[0].time
        if seconds > 0:
            env += sum(fact.body["env_steps"] for fact in told[1:]) / seconds
            agent += sum(sum(fact.body["agent_steps"].values()) for fact in told[1:]) / seconds
    return env, agent


def env_steps(run_dir: Path) -> int:
    """All env steps of the run."""
    return sum(int(fact.body["env_steps"]) for fact in facts(run_dir, "progress"))


def staleness(run_dir: Path, since: float = 0.0) -> dict[str, float]:
    """Median and 95th percentile of the versions between acting and use, over all policies' fragments, and how many.

    `since` is a wall clock time.
    """
    counts: Counter[int] = Counter()
    for fact in facts(run_dir, "update"):
        if fact.time >= since:
            counts.update({int(behind): count for behind, count in fact.body["staleness"].items()})
    ages = sorted(counts.elements())
    if not ages:
        return {"median": float("nan"), "p95": float("nan"), "fragments": 0}
    return {"median": statistics.median(ages), "p95": ages[int(0.95 * (len(ages) - 1))], "fragments": len(ages)}


def pids(run_dir: Path) -> dict[str, int]:
    """The newest process of each role."""
    return {fact.body["role"]: int(fact.body["pid"]) for fact in facts(run_dir, "spawned")}


def until(condition: Callable[[], Any], timeout: float, what: str) -> None:
    """Wait until `condition` holds. RuntimeError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come within {timeout:.0f} s")
        time.sleep(0.02)


def has_reached(run_dir: Path, phase: str) -> bool:
    """Whether the run has come to `phase`. A ledger that is not there yet, or is just being made, has no phases."""
    try:
        return any(fact.body["phase"] == phase for fact in facts(run_dir, "phase"))
    except HeadraceError:
        return False


# --- memory ------------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """Samples the proportional memory of a process and all its descendants, in MiB, from a thread of its own."""

    pid: int
    every: float = 5.0
    samples: list[float] = field(default_factory=list)

    def __enter__(self) -> Memory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self.every):
            self.samples.append(proportional(self.pid))

    @property
    def peak(self) -> float:
        """The highest sample."""
        return max(self.samples, default=float("nan"))


def proportional(pid: int) -> float:
    """The PSS of a process and all its descendants, MiB."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    except psutil.NoSuchProcess:
        pass
    return total / 2**20


def resident(pid: int) -> float:
    """The RSS of one process, MiB."""
    return float(psutil.Process(pid).memory_info().rss / 2**20)


# --- telling -----------------------------------------------------------------------------------------------------


def announce(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Print the command and the machine; the same for `--json`."""
    found: dict[str, Any] = {"command": " ".join(("python -m bench", name, *arguments)), "machine": machine.describe()}
    print(f"$ {found['command']}\n{machine.line(found['machine'])}\n", flush=True)
    return found


def finish(found: dict[str, Any], path: Path | None) -> None:
    """Write the figures where `--json` says."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")


def median(values: Iterable[float | None]) -> float:
    """Of the values that there are; not a number if there is none. A None (never reached) counts as infinite."""
    given = [float("inf") if value is None else value for value in values]
    return statistics.median(given) if given else float("nan")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns of text, the first to the left, the others to the right."""
    texts = [[_text(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for first, *others in texts:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _text(cell: Any) -> str:
    if cell is None:
        return "never"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:,.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
