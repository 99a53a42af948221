"""Real processes: engines, the nursery, children and the lifeline. Every wait is for a condition, with a deadline."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launcher import directory
from launcher.child import ChildSpec
from launcher.engines import Engine, Exited, NurseryEngine, PlainEngine, Started
from launcher.lifeline import Lifeline

HERE = str(Path(__file__).parent)


def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def last_words(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        return directory.last_words(file)


class Seen:
    """The events of one engine so far."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.events = engine, list[Started | Exited]()

    def look(self) -> Seen:
        self.events += self.engine.events()
        return self

    def started(self, role: str, attempt: int = 1) -> Started:
        return self._find(Started, role, attempt)

    def exited(self, role: str, attempt: int = 1) -> Exited:
        return self._find(Exited, role, attempt)

    def _find(self, kind: type, role: str, attempt: int):  # type: ignore[no-untyped-def]
        def found() -> list[Started | Exited]:
            self.look()
            return [e for e in self.events if isinstance(e, kind) and (e.role, e.attempt) == (role, attempt)]

        until(found, f"{kind.__name__} of {role}.{attempt}, only {self.events}")
        assert len(found()) == 1
        return found()[0]


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    line = Lifeline()
    yield line
    line.close()


@pytest.fixture(params=["plain", "nursery"])
def engine(request: pytest.FixtureRequest, lifeline: Lifeline, tmp_path: Path) -> Iterator[Engine]:
    made: Engine = PlainEngine(lifeline)
    if request.param == "nursery":
        made = NurseryEngine(lifeline, tmp_path / "nursery.log", preload=["json"], folder=HERE)
    yield made
    assert made.close(0.5)
    assert not made.pids()


@pytest.fixture
def nursery(lifeline: Lifeline, tmp_path: Path) -> Iterator[NurseryEngine]:
    made = NurseryEngine(lifeline, tmp_path / "nursery.log", preload=["json"], folder=HERE)
    yield made
    assert made.close(0.5)
    assert made.pid is None


def spec(folder: Path, main: str, attempt: int = 1, finish: float = 0.0, role: str | None = None) -> ChildSpec:
    role = role or main
    log = folder / f"{role}.{attempt}.log"
    return ChildSpec(role, attempt, f"mains:{main}", str(log), {"file": str(folder / "note")}, HERE, finish)


def test_a_child_has_a_session_a_log_and_the_variables(engine: Engine, tmp_path: Path) -> None:
    engine.spawn(spec(tmp_path, "note"))
    assert Seen(engine).exited("note").status == 0
    assert (tmp_path / "note").read_text() == repr([True, "1", HERE, True, False, 2])  # main and lifeline


@pytest.mark.parametrize(
    ("main", "status", "words"),
    [
        ("crash", 1, "ValueError: the last words"),
        ("exits", 1, "SystemExit: no licence is free"),
        ("exits_with_two", 1, "SystemExit: 2"),
        ("vanishes", 7, "the licence server is gone"),
        ("in_a_thread", 1, "ValueError: the last words"),
        ("wrong", 2, "no cuda here"),
        ("absent", 2, "module 'mains' has no attribute"),
    ],
)
def test_how_it_ended_and_its_last_words(engine: Engine, tmp_path: Path, main: str, status: int, words: str) -> None:
    engine.spawn(spec(tmp_path, main))
    assert Seen(engine).exited(main).status == status
    assert words in last_words(tmp_path / f"{main}.1.log").splitlines()[-1]


def test_a_crash_in_native_code_leaves_its_stack(engine: Engine, tmp_path: Path) -> None:
    engine.spawn(spec(tmp_path, "segfault"))
    assert Seen(engine).exited("segfault").status == -signal.SIGSEGV
    words = last_words(tmp_path / "segfault.1.log")
    assert words.startswith("Fatal Python error: Segmentation fault")
    assert "in segfault" in words


def test_sigterm_is_a_wish_and_sigint_is_nothing(engine: Engine, tmp_path: Path) -> None:
    seen = Seen(engine)
    engine.spawn(spec(tmp_path, "wait"))
    engine.spawn(spec(tmp_path, "stuck"))
    pids = [seen.started(role).pid for role in ("wait", "stuck")]
    for role, word in (("wait", "waiting"), ("stuck", "stuck")):
        until(lambda role=role, word=word: word in last_words(tmp_path / f"{role}.1.log"), "its main runs")  # type: ignore[misc]
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    assert engine.end(pids, 10)
    assert [seen.exited(role).status for role in ("wait", "stuck")] == [0, 0]
    assert "good order" in last_words(tmp_path / "wait.1.log")


def test_who_is_deaf_is_killed(engine: Engine, tmp_path: Path) -> None:
    seen = Seen(engine)
    engine.spawn(spec(tmp_path, "deaf"))
    pid = seen.started("deaf").pid
    until(lambda: "deaf" in last_words(tmp_path / "deaf.1.log"), "it ignores SIGTERM")
    assert engine.end([pid], 0.1)
    assert seen.exited("deaf").status == -signal.SIGKILL
    with pytest.raises(ValueError, match="not a child"):
        engine.kill(pid)
    with pytest.raises(ValueError, match="not a child"):
        engine.terminate(os.getpid())


def test_what_a_role_leaves_behind_goes_with_it(engine: Engine, tmp_path: Path) -> None:
    engine.spawn(spec(tmp_path, "leave_behind"))
    assert Seen(engine).exited("leave_behind").status == 0
    left = int((tmp_path / "note").read_text())
    until(lambda: gone(left), "the process left behind is gone")


@pytest.mark.parametrize("main", ["leave_daemon", "leave_daemon_at_once"])
def test_a_daemon_goes_with_its_role(nursery: NurseryEngine, tmp_path: Path, main: str) -> None:
    nursery.spawn(spec(tmp_path, main))
    Seen(nursery).exited(main)
    assert gone(int((tmp_path / "note").read_text()))


def test_a_daemon_goes_with_a_plain_role(lifeline: Lifeline, tmp_path: Path) -> None:
    engine = PlainEngine(lifeline)
    engine.spawn(spec(tmp_path, "leave_daemon"))
    Seen(engine).exited("leave_daemon")
    assert gone(int((tmp_path / "note").read_text()))


def test_children_outlive_a_killed_nursery_and_a_new_one_is_started(nursery: NurseryEngine, tmp_path: Path) -> None:
    seen = Seen(nursery)
    for role in ("a", "b"):
        nursery.spawn(spec(tmp_path, "wait", role=role))
    pids = [seen.started(role).pid for role in ("a", "b")]
    first = nursery.pid
    assert first
    os.kill(first, signal.SIGKILL)
    until(lambda: seen.look() and nursery.pid is None, "the nursery's death is seen")
    assert not any(gone(pid) for pid in pids)
    nursery.spawn(spec(tmp_path, "note"))
    assert seen.exited("note").status == 0
    assert nursery.pid != first
    nursery.kill(pids[0])
    assert seen.exited("a").status is None  # nobody could see it
    assert nursery.end([pids[1]], 10)
    assert seen.exited("b").status is None


def test_orders_that_a_dying_nursery_never_took_count_as_exited(nursery: NurseryEngine, tmp_path: Path) -> None:
    nursery.warm()
    assert nursery.pid
    os.kill(nursery.pid, signal.SIGSTOP)
    nursery.spawn(spec(tmp_path, "wait"))
    os.kill(nursery.pid, signal.SIGKILL)
    assert Seen(nursery).exited("wait") == Exited("wait", 1, None, None)


def test_a_nursery_that_cannot_be_started_is_as_one_that_died(
    nursery: NurseryEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    nursery.spawn(spec(tmp_path, "note"))
    unborn = Seen(nursery).exited("note")
    assert (unborn.pid, unborn.status) == (None, None)
    assert "no process could be started" in unborn.words
    monkeypatch.undo()
    nursery.spawn(spec(tmp_path, "note"))
    assert Seen(nursery).exited("note").status == 0


def test_many_orders_wait_for_the_imports(nursery: NurseryEngine, tmp_path: Path) -> None:
    seen = Seen(nursery)
    big = {"file": str(tmp_path / "note"), "ballast": "x" * 100_000}
    for attempt in range(1, 9):  # more than a socket holds
        log = str(tmp_path / f"note.{attempt}.log")
        nursery.spawn(ChildSpec("note", attempt, "mains:note", log, big, HERE))
    assert [seen.exited("note", attempt).status for attempt in range(1, 9)] == [0] * 8
    assert nursery.ready is not None
    assert nursery.ready["failed"] == {}


def test_the_nursery_imports_torch_and_stays_single_threaded(lifeline: Lifeline, tmp_path: Path) -> None:
    nursery = NurseryEngine(lifeline, tmp_path / "nursery.log", preload=["torch", "no_such_module"], folder=HERE)
    try:
        nursery.spawn(spec(tmp_path, "note"))
        assert Seen(nursery).exited("note").status == 0
        assert (tmp_path / "note").read_text() == repr([True, "1", HERE, True, True, 2])
        assert nursery.ready is not None
        assert nursery.ready["threads"] == 1
        assert list(nursery.ready["failed"]) == ["no_such_module"]
    finally:
        assert nursery.close(0.5)


def test_the_end_of_the_lifeline_ends_the_roles_after_their_last_commit(
    engine: Engine, lifeline: Lifeline, tmp_path: Path
) -> None:
    seen = Seen(engine)
    engine.spawn(spec(tmp_path, "commit", finish=3.0))
    engine.spawn(spec(tmp_path, "deaf"))
    pids = [seen.started(role).pid for role in ("commit", "deaf")]
    until(lambda: "deaf" in last_words(tmp_path / "deaf.1.log"), "it ignores SIGTERM")
    lifeline.cut()
    until(lambda: all(gone(pid) for pid in pids), "both are gone", 10)
    assert (tmp_path / "note").read_text() == "committed"


PARENT = """
import sys, time
from pathlib import Path
from launcher.child import ChildSpec
from launcher.engines import NurseryEngine, PlainEngine
from launcher.lifeline import Lifeline
folder, here = sys.argv[1:]
line = Lifeline()
engines = [PlainEngine(line), NurseryEngine(line, Path(folder) / "nursery.log", preload=["json"], folder=here)]
for index, engine in enumerate(engines):
    for main in ("wait", "deaf", "stuck", "keep_daemon"):
        log = f"{folder}/{main}{index}.log"
        engine.spawn(ChildSpec(f"{main}{index}", 1, f"mains:{main}", log, {}, here))
while sum(len(engine.pids()) for engine in engines) < 8:
    [engine.events() for engine in engines]
    time.sleep(0.01)
print(*[pid for engine in engines for pid in engine.pids()], engines[1].pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("nursery_too", [False, True])
def test_no_orphans_when_the_launcher_is_killed(tmp_path: Path, nursery_too: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), HERE], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(30, parent.kill)
    watchdog.start()
    try:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 9
        logs = [tmp_path / f"keep_daemon{index}.log" for index in (0, 1)]
        until(lambda: all(last_words(log) for log in logs), "both daemons are there")
        pids += [int(last_words(log)) for log in logs]
        if nursery_too:  # then nobody is left but the roles' own lifelines
            os.kill(pids[8], signal.SIGKILL)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        until(lambda: all(gone(pid) for pid in pids), "all processes of the run are gone", 10)
    finally:
        watchdog.cancel()
        parent.kill()
        parent.wait(10)
        parent.stdout.close()


def test_a_log_whose_folder_was_removed_is_made_again(engine: Engine, tmp_path: Path) -> None:
    made = spec(tmp_path / "logs", "crash")
    engine.spawn(made)
    assert Seen(engine).exited("crash").status == 1
    assert "ValueError: the last words" in last_words(Path(made.log))
    assert stat.S_IMODE(Path(made.log).stat().st_mode) == 0o600
