"""Promise 8 by doing it: a whole run on a small disk that is filled, and a tracker whose file may grow no further."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.durable_log import acknowledged
from tests.chaos.test_tracker_under_load import Tracker, last_sequences
from tests.flow.running import Running, assert_folds_equal_rebuild, headrace, quiet, until
from tracker.ledger import LedgerReader
from tracker.reserve import FILE

LONG = ("cartpole", "--set", "stop.seconds=600", "--set", "stop.return=100000")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 40 MiB."""
    folder = tmp_path / "run"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"a small filesystem cannot be mounted by this user: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 1024 * 1024
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


def watched(run: Running) -> dict[str, Any]:
    out = headrace("watch", str(run.directory), "--once", "--json", cwd=run.directory.parent)
    found: dict[str, Any] = json.loads(out.stdout) if out.returncode == 0 else {}
    return found


def full(run: Running) -> dict[str, Any]:
    """What `watch` shows once there is no room."""

    def shown() -> dict[str, Any] | None:
        found = watched(run)
        return found if any("no room to write" in alarm for alarm in found.get("alarms", ())) else None

    return run.until(shown, "the alarm is shown", 60) or {}


def test_a_run_goes_on_when_there_is_room_again(disk: Path, tmp_path: Path) -> None:
    with Running(tmp_path, *LONG) as run:
        run.learning(2)
        filler = fill(disk)
        stored = full(run)["facts"]["stored"]
        assert watched(run)["facts"]["stored"] == stored  # nothing is acknowledged that is not on disk
        assert "ALARM: no room to write" in run.out.read_text()
        filler.unlink()
        run.until(lambda: len(run.facts()) > stored + 100, "facts are stored again")
        assert not [alarm for alarm in watched(run)["alarms"] if "no room" in alarm]
    # and it ended as any other run: every source's facts are there without a hole (`Running.check`)
    assert json.loads((disk / "summary.json").read_text())["state"] == "ended"
    assert not (disk / FILE).exists()


def test_a_run_that_ends_without_room_ends_whole(disk: Path, tmp_path: Path) -> None:
    with Running(tmp_path, *LONG) as run:
        run.learning(2)
        fill(disk)
        full(run)
        run.interrupt()
        assert run.wait(40) == 0, run.told()
    summary = json.loads((disk / "summary.json").read_text())
    assert (summary["state"], summary["reason"]) == ("ended", "interrupted")
    assert [fact.body["phase"] for fact in run.facts("phase")] == ["starting", "running", "stopping", "ended"]
    assert not (disk / FILE).exists()


def test_a_file_that_may_grow_no_further_is_a_full_disk(tmp_path: Path) -> None:
    stop, log = tmp_path / "stop", tmp_path / "log"
    tracker = Tracker(tmp_path)
    with ExitStack() as stack:
        stack.callback(tracker.close)
        tracker.start()
        script = [sys.executable, str(Path(__file__).with_name("source.py")), "actor-0", tracker.address]
        paths = [str(path) for path in (tracker.where.token_file, log, stop)]
        source = subprocess.Popen([*script, *paths], stdout=subprocess.PIPE, text=True, env=quiet())
        stack.callback(source.wait, 10)
        stack.callback(source.kill)
        until(lambda: acknowledged(log) > 1000, "it is heard", 30)
        write_ahead = Path(f"{tracker.where.ledger}-wal")
        unlimited = resource.prlimit(tracker.pid, resource.RLIMIT_FSIZE)
        limit = write_ahead.stat().st_size + 64 * 1024
        resource.prlimit(tracker.pid, resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        before = still(lambda: acknowledged(log))
        assert last_sequences(tracker.where.ledger)["actor-0"] == before
        resource.prlimit(tracker.pid, resource.RLIMIT_FSIZE, unlimited)
        until(lambda: acknowledged(log) > before + 1000, f"it goes on; it said {tracker.words()}", 30)
        stop.touch()
        out, _ = source.communicate(timeout=60)
        _, sent, flushed = out.split()
        assert flushed == "True"
        assert tracker.end(signal.SIGTERM) == 0, tracker.words()
    with LedgerReader(tracker.where.ledger) as reader:
        mine = [fact[3] for fact in reader.read_all() if fact[1] == "actor-0"]
    assert mine == list(range(1, int(sent) + 1))
    assert_folds_equal_rebuild(tracker.where.ledger)


def still(look: Callable[[], int]) -> int:
    """What it gives once it gives the same for a hundred looks on end: far longer than the pulses are apart."""
    seen = [look()]

    def same() -> bool:
        seen.append(look())
        return len(seen) > 100 and len(set(seen[-100:])) == 1

    until(same, "acknowledgements have stopped", 60)
    return seen[-1]
