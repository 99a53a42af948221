"""Strangers without a token at a run that listens on tcp, several launchers in one directory, many runs at once."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
import zmq

from tests.flow.running import Running, headrace, processes_in, quiet, until
from tests.flow.test_bad_requests import free_port

pytestmark = pytest.mark.soak

GREETING = bytes([0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3])
"""How a ZeroMQ connection begins; the rest of the 64 bytes never comes."""
SETTINGS = ("--set", "stop.return=", "--set", "stop.seconds=600", "--set", "actors.environments=8")
MEBIBYTE = 1024 * 1024


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Running]:
    """A run on tcp that must stay undisturbed: it ends in order, and no role has fallen."""
    address = f"tcp://127.0.0.1:{free_port('127.0.0.1')}"
    with Running(tmp_path, "cartpole", *SETTINGS, "--set", f"tracker.address={address}") as running:
        running.learning()
        running.strangers = True
        yield running


def doors(run: Running) -> list[int]:
    """The ports of the tracker and of the learner: for each its PULL and its XPUB."""
    ports = []
    for role in ("tracker", "learner-agent"):
        found = psutil.Process(run.pid(role)).net_connections("tcp")
        ports += [one.laddr.port for one in found if one.status == psutil.CONN_LISTEN]
    assert len(ports) == 4
    return ports


def memory(run: Running) -> dict[str, float]:
    roles = ("tracker", "learner-agent")
    return {role: psutil.Process(run.pid(role)).memory_info().rss / MEBIBYTE for role in roles}


def undisturbed(run: Running, before: dict[str, float], more: float = 50.0) -> None:
    """It learns on, all of its roles among it, and memory is back within `more` MiB of before."""
    made, stored = len(run.versions()), len(run.facts())
    run.until(lambda: len(run.versions()) > made + 3 and len(run.facts()) > stored + 20, "it goes on", 60)
    run.until(lambda: all(now < before[role] + more for role, now in memory(run).items()), "memory is back", 60)
    shown = headrace("watch", str(run.directory), "--once", "--json", cwd=run.directory.parent)
    assert {role["state"] for role in json.loads(shown.stdout)["roles"]} == {"alive"}


def test_600_connections_of_garbage(run: Running) -> None:
    before, found, chance = memory(run), doors(run), random.Random(600)
    for number in range(600):
        # Closed on us in the middle of it, or by us at its end.
        with suppress(OSError), socket.create_connection(("127.0.0.1", found[number % 4]), 10) as one:
            one.sendall(
                (GREETING if number % 3 == 0 else b"") + chance.randbytes(chance.choice([1, 64, 1000, 100_000]))
            )
    undisturbed(run, before)


def test_1000_half_open_connections(run: Running) -> None:
    before, found = memory(run), doors(run)
    with ExitStack() as stack:
        for number in range(1000):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", found[number % 4]), 10))
            one.sendall(GREETING if number % 2 else b"")
        undisturbed(run, before)
    undisturbed(run, before)


def test_a_flood_without_a_token(run: Running) -> None:
    before, found = memory(run), doors(run)
    script = (
        "import sys, time, zmq; socket = zmq.Context().socket(zmq.PUSH); socket.connect(sys.argv[1])\n"
        "began = time.monotonic()\n"
        "while time.monotonic() - began < 15: [socket.send(b'x' * 100) for _ in range(1000)]\n"
    )
    pulls = [port for port in found if port + 1 in found]
    floods = [subprocess.Popen([sys.executable, "-c", script, f"tcp://127.0.0.1:{port}"]) for port in pulls]
    made = len(run.versions())
    try:
        run.until(lambda: all(flood.poll() is not None for flood in floods), "the floods are over", 60)
        assert len(run.versions()) > made + 3, "it went on meanwhile"
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()
    undisturbed(run, before)


def test_400_subscribers_that_never_read(run: Running) -> None:
    before, found = memory(run), doors(run)
    publishers = [port for port in found if port - 1 in found]
    with ExitStack() as stack:
        context = zmq.Context()
        stack.callback(context.term)
        for number in range(400):
            one = context.socket(zmq.SUB)
            stack.callback(one.close, 0)
            one.setsockopt(zmq.RCVHWM, 1)
            one.setsockopt(zmq.RCVBUF, 4096)
            one.setsockopt(zmq.SUBSCRIBE, b"")
            one.connect(f"tcp://127.0.0.1:{publishers[number % 2]}")
        made = len(run.versions())
        run.until(lambda: len(run.versions()) > made + 20, "it goes on meanwhile", 120)
    undisturbed(run, before, 200.0)


def test_of_three_launchers_at_one_instant_one_goes_on(tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def start(*more: str) -> subprocess.CompletedProcess[str]:
        together.wait(10)
        command = [sys.executable, "-m", "launcher.cli", "run", *more, "--headless", "--run-dir", "run"]
        return subprocess.run(
            [*command, "--set", "stop.seconds=12"], cwd=tmp_path, capture_output=True, text=True, env=quiet(),
            timeout=120, check=False,
        )  # fmt: skip

    for arguments in (("cartpole", "--set", "stop.return="), ("--resume", "--set", "stop.seconds=20")):
        with ThreadPoolExecutor(3) as pool:
            done = [future.result() for future in [pool.submit(start, *arguments) for _ in range(3)]]
        assert sorted(one.returncode for one in done) == [0, 2, 2], [one.stderr for one in done]
        for one in done:
            assert one.returncode == 0 or "run" in one.stderr
        assert not processes_in(tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["state"], summary["launches"]) == ("ended", 2)


def test_ten_runs_at_once(tmp_path: Path) -> None:
    small = ("--set", "actors.processes=1", "--set", "stop.seconds=900")
    with ExitStack() as stack:
        runs = [
            stack.enter_context(Running(tmp_path, "cartpole", *SETTINGS, *small, run_dir=f"run-{number}"))
            for number in range(10)
        ]
        for run in runs:
            until(lambda run=run: len(run.versions()) > 5, "versions of each", 400)  # type: ignore[misc]
        assert len({run.pid("tracker") for run in runs}) == 10
