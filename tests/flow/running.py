"""A real run, started as a user starts it, and what its ledger must say of it whatever was done to it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import psutil

from tracker.facts import Fact as FoldedFact
from tracker.facts import Unfit, decode
from tracker.folds import Folds
from tracker.ledger import LedgerReader
from tracker.standard import standard_folds

START = 45.0
"""Seconds that a run may take until it is running (torch is imported meanwhile, beside whatever else goes on here)."""

T = TypeVar("T")


class Fact(NamedTuple):
    position: int
    source: str
    incarnation: str
    sequence: int
    time: int
    kind: str
    body: dict[str, Any]


def headrace(*arguments: str, cwd: Path, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    command = [sys.executable, "-m", "launcher.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False, env=quiet())


def quiet() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}


def until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """What `condition` gave, once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


def processes_in(directory: Path) -> dict[int, str]:
    """The processes that have a file of this directory open (every process of a run has its log): pid -> command."""
    inside = str(directory.resolve()) + os.sep
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    if os.readlink(link).startswith(inside):  # noqa: PTH115 - a Path would resolve `pipe:[1]`
                        found[process.pid] = f"{process.name()} {' '.join(process.cmdline())}"[:200]
                        break
    return found


class Running:
    """`headrace run ... --headless` in the directory `home / run_dir`. Leaving the block ends it and checks its ledger.

    `restarts`: the roles that were killed, or fell, on purpose; any other restart is a mistake.
    """

    def __init__(
        self,
        home: Path,
        *arguments: str,
        run_dir: str = "run",
        status: int = 0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = home / run_dir
        self.out, self.errors = home / f"{run_dir}.out", home / f"{run_dir}.err"
        command = [sys.executable, "-m", "launcher.cli", "run", *arguments, "--headless", "--run-dir", run_dir]
        self.restarts: set[str] = set()
        self.strangers = False
        """Whether frames that are not believed came on purpose."""
        self.expected_status = status
        self._facts: list[Fact] = []
        self._home = home
        variables = quiet() | (environment or {})
        with self.out.open("ab") as out, self.errors.open("ab") as errors:
            self.launcher = subprocess.Popen(command, cwd=home, stdout=out, stderr=errors, env=variables)

    # --- looking -----------------------------------------------------------------------------------------------------

    def facts(self, kind: str | None = None, source: str | None = None) -> list[Fact]:
        """What is in the ledger now."""
        path = self.directory / "ledger.sqlite"
        if path.is_file():
            uri = f"{path.as_uri()}?mode=ro"
            with suppress(sqlite3.OperationalError), closing(sqlite3.connect(uri, uri=True)) as db:
                after = self._facts[-1].position if self._facts else 0
                query = "SELECT position, source, incarnation, sequence, time, kind, body FROM facts WHERE position > ?"
                rows = db.execute(query + " ORDER BY position", (after,)).fetchall()
                self._facts += [Fact(*row[:6], json.loads(row[6])) for row in rows]
        return [f for f in self._facts if kind in (None, f.kind) and source in (None, f.source)]

    def last(self, kind: str, source: str | None = None) -> Fact | None:
        found = self.facts(kind, source)
        return found[-1] if found else None

    def spawned(self, role: str) -> Fact | None:
        found = [fact for fact in self.facts("spawned") if fact.body["role"] == role]
        return found[-1] if found else None

    def pid(self, role: str) -> int:
        """The process that has this role now."""
        fact = self.until(lambda: self.spawned(role), f"{role} was spawned")
        return int(fact.body["pid"])

    def phase(self) -> str:
        fact = self.last("phase")
        return str(fact.body["phase"]) if fact else ""

    def versions(self, policy: str | None = None) -> list[tuple[int, int]]:
        """As the `update` facts have them, in the ledger's order."""
        return [tuple(f.body["version"]) for f in self.facts("update") if policy in (None, f.body["policy"])]

    def until(self, condition: Callable[[], T], what: str, seconds: float = 20.0, *, ending: bool = False) -> T:
        """Wait for it; AssertionError with what the run said, also when the run ended meanwhile."""

        def look() -> T:
            found = condition()
            if not found and not ending and self.launcher.poll() is not None:
                raise AssertionError(f"the launcher left with {self.launcher.returncode} before: {what}")
            return found

        try:
            return until(look, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None

    def told(self) -> str:
        """Everything that helps to understand a failure."""
        parts = [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in (self.out, self.errors) if path.exists()]
        logs = [log for log in sorted((self.directory / "logs").glob("*.log")) if log.stat().st_size]
        parts += [f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs]
        kinds = [f for f in self._facts if f.kind in ("spawned", "exited", "phase", "life", "resumed", "alarm")]
        parts += [f"{f.position} {f.source} {f.kind} {f.body}"[:300] for f in kinds]
        return "\n".join(parts)

    # --- doing -------------------------------------------------------------------------------------------------------

    def learning(self, updates: int = 3) -> Self:
        """Wait until every policy has made some versions."""

        def enough() -> bool:
            run = self.last("run")
            made = defaultdict(int)
            for fact in self.facts("update"):
                made[fact.body["policy"]] += 1
            learners = {f.body["role"] for f in self.facts("spawned") if f.body["kind"] == "learner"}
            return run is not None and len(made) == len(learners) > 0 and min(made.values()) >= updates

        self.until(enough, f"{updates} updates of every policy", START)
        return self

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> Fact:
        """Signal the process that has the role; gives its `spawned` fact."""
        fact = self.until(lambda: self.spawned(role), f"{role} was spawned")
        os.kill(fact.body["pid"], number)
        if number == signal.SIGKILL:
            self.restarts.add(role)
        return fact

    def restarted(self, before: Fact, seconds: float = 20.0) -> Fact:
        """Wait for the next attempt of the role of this `spawned` fact."""
        role, attempt = before.body["role"], before.body["attempt"]

        def next_one() -> Fact | None:
            now = self.spawned(role)
            return now if now is not None and now.body["attempt"] == attempt + 1 else None

        return self.until(next_one, f"attempt {attempt + 1} of {role}", seconds)

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for the launcher's end; its exit status. No process of the run may be left."""
        self.until(lambda: self.launcher.poll() is not None, "the launcher left", seconds, ending=True)
        left = processes_in(self.directory)
        assert not left, f"left behind: {left}\n{self.told()}"
        status = self.launcher.returncode
        assert status is not None
        return status

    def interrupt(self) -> None:
        self.launcher.send_signal(signal.SIGINT)

    def end(self, seconds: float = 15.0) -> None:
        """Ctrl-C, and wait for the end."""
        if self.launcher.poll() is None:
            self.interrupt()
        status = self.wait(seconds)
        assert status == self.expected_status, f"exit status {status}\n{self.told()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.end()
                self.check()
        finally:
            if self.launcher.poll() is None:
                self.launcher.kill()
                self.launcher.wait()
            deadline = time.monotonic() + 5
            while (left := processes_in(self.directory)) and time.monotonic() < deadline:
                time.sleep(0.05)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def check(self) -> None:
        """What must be true of every ledger."""
        try:
            check_ledger(self.facts(), strangers=self.strangers)
            restarted = {f.body["role"] for f in self.facts("exited") if not f.body["expected"]}
            assert restarted <= self.restarts, f"fell without being asked to: {restarted - self.restarts}"
            assert_folds_equal_rebuild(self.directory / "ledger.sqlite")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None


def check_ledger(facts: list[Fact], *, strangers: bool = False) -> None:
    """No holes, nothing twice; versions and lives only grow; no fact refused and nothing quarantined."""
    assert [fact.position for fact in facts] == list(range(1, len(facts) + 1)), "positions have holes"
    sequences: dict[tuple[str, str], int] = defaultdict(int)
    for fact in facts:
        key = (fact.source, fact.incarnation)
        assert fact.sequence == sequences[key] + 1, f"{fact.source}: {fact.sequence} after {sequences[key]}"
        sequences[key] = fact.sequence
    wrong = {"refused", "refusal"} if strangers else {"refused", "quarantine", "refusal"}
    strange = [fact for fact in facts if fact.kind in wrong]
    assert not strange, strange[:3]
    versions: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for fact in facts:
        if fact.kind == "update":
            versions[fact.body["policy"]].append(tuple(fact.body["version"]))
    for policy, seen in versions.items():
        numbers = [number for _, number in seen]
        assert len(set(seen)) == len(seen), f"{policy}: a version means two things"
        assert all(a < b for a, b in pairwise(seen)), f"{policy}: versions went backwards"
        by_life = defaultdict(list)
        for life, number in seen:
            by_life[life].append(number)
        for life, run in by_life.items():
            assert run == list(range(run[0], run[0] + len(run))), f"{policy}: holes in life {life}"
        assert min(numbers) >= 0
    spawned = {(f.body["role"], f.body["attempt"]) for f in facts if f.kind == "spawned"}
    exited = [(f.body["role"], f.body["attempt"]) for f in facts if f.kind == "exited"]
    assert len(set(exited)) == len(exited), "an exit was recorded twice"
    assert set(exited) <= spawned, f"exits of what was never spawned: {set(exited) - spawned}"


def assert_folds_equal_rebuild(path: Path, cuts: tuple[float, ...] = (0.3, 0.8)) -> None:
    """Folds from the stored snapshots and the tail equal folds from the first fact; so do those cut anywhere."""
    with LedgerReader(path) as ledger:
        restored, rebuilt = standard_folds(), standard_folds()
        restored.restore(ledger)
        facts = list(_readable(ledger))
        _feed(rebuilt, facts)
        truth = json.dumps(rebuilt.snapshots(), sort_keys=True)
        assert json.dumps(restored.snapshots(), sort_keys=True) == truth, "snapshot and tail differ from the whole"
        for cut in cuts:
            at = int(len(facts) * cut)
            first, second = standard_folds(), standard_folds()
            _feed(first, facts[:at])
            for name, state in json.loads(json.dumps(first.snapshots())).items():
                second.folds[name].restore(state["state"])
            for name, ended in second.ended.items():
                ended.fresh = dict(first.ended[name].fresh)
            _feed(second, facts[at:])
            assert json.dumps(second.snapshots(), sort_keys=True) == truth, f"cut at {at} of {len(facts)}"


def _readable(ledger: LedgerReader) -> list[FoldedFact]:
    facts = []
    for position, source, incarnation, sequence, at, kind, text in ledger.read_all():
        with suppress(Unfit):
            facts.append(FoldedFact(position, source, incarnation, sequence, at, kind, decode(kind, text)))
    return facts


def _feed(folds: Folds, facts: list[FoldedFact]) -> None:
    for fact in facts:
        for fold in folds.folds.values():
            if fact.kind in fold.kinds:
                fold.apply(fact)
