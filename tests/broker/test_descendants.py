"""A guarded function and all that it started are gone when the guard has its status. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

PROGRAM = """
import faulthandler, os, signal, subprocess, sys, time
from broker.descendants import guarded
faulthandler.enable()
def start():
    script = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=-3).pid)"
    print(subprocess.check_output([sys.executable, "-c", script], text=True).strip(), flush=True)
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
def well(): start()
def left(): start(); os._exit(3)
def exits(): start(); sys.exit("no licence")
def raises(): start(); raise ValueError("no map")
def crashes(): start(); os.kill(os.getpid(), signal.SIGSEGV)
def hangs(): start(); time.sleep(60)
lifeline = int(sys.argv[2]) if len(sys.argv) > 2 else None
stranger = subprocess.Popen(["sleep", "60"]) if sys.argv[1] == "well" else None
status = guarded(globals()[sys.argv[1]], lifeline)
if stranger is not None:
    assert stranger.poll() is None, "a child from before was ended"
    stranger.kill()
print("status", status)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("main", "status", "says"),
    [
        ("left", 3, ""),
        ("exits", 1, "no licence"),
        ("raises", 1, "ValueError: no map"),
        ("crashes", -signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
    ],
)
def test_guarded_leaves_nothing_behind(main: str, status: int, says: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, main], capture_output=True, text=True, check=True)
    daemon, child, word, number = done.stdout.split()
    assert (word, int(number)) == ("status", status)
    assert says in done.stderr
    assert gone(int(daemon))
    assert gone(int(child))


def test_guarded_keeps_children_from_before() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "well"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("status 0\n")
    assert gone(int(done.stdout.split()[1]))


@pytest.mark.parametrize("how", ["lifeline", "interrupt", "killed"])
def test_guarded_ends_when_it_is_cut_off(tmp_path: Path, how: str) -> None:
    reader, writer = os.pipe()
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        command = [sys.executable, "-c", PROGRAM, "hangs", str(reader)]
        guard = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, pass_fds=[reader])
    try:
        assert guard.stdout is not None
        pids = [int(guard.stdout.readline()) for _ in range(2)]
        if how == "lifeline":
            os.close(writer)
        else:
            guard.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        guard.wait(20)
        until(lambda: all(gone(pid) for pid in pids), "nothing is left")
        if how != "killed":
            assert guard.stdout.read().startswith("status")
            assert "in hangs" in errors.read_text(), "the stack says where it was"
    finally:
        guard.kill()
        guard.wait()
        guard.stdout.close()
        os.close(reader)
        if how != "lifeline":
            os.close(writer)


REAPING = """
import subprocess, time
from broker.descendants import adopt, children, reap
adopt()
for _ in range(8):
    subprocess.run(["sh", "-c", "true &"], check=True)
kept = subprocess.Popen(["sh", "-c", "exit 7"])
deadline = time.monotonic() + 20
while list(children().values()).count("Z") < 9 and time.monotonic() < deadline:
    time.sleep(0.01)
reap(most=3)
print(list(children().values()).count("Z"), kept.wait())
reap(most=3)
"""


def test_adopted_children_are_waited_for() -> None:
    answer = subprocess.run([sys.executable, "-c", REAPING], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert answer.stdout == "3 7\n"
