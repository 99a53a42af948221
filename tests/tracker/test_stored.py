from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tracker.bodies import ONE
from tracker import stored
from tracker.ledger import Ledger, LedgerReader

FACTS = 1_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger whose every tenth fact is of another kind, and whose every hundredth does not fit."""
    rows = []
    for number in range(FACTS):
        kind = "other" if number % 10 == 9 else "alarm"
        body = {"told": number} if number % 100 == 50 else {"text": f"number {number}"}
        rows.append((f"source-{number % 3}", ONE, number // 3 + 1, 5, kind, json.dumps(body)))
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger.commit():
        ledger.append(rows)
    ledger.close()
    return tmp_path / "ledger.sqlite"


def read(path: Path, after: int = 0, through: int = FACTS) -> list[stored.Chunk]:
    with LedgerReader(path) as ledger:
        return list(stored.stored(ledger, after, through, ["alarm"]))


def flat(chunks: list[stored.Chunk]) -> list[tuple]:
    return [fact for chunk in chunks for fact in chunk]


def test_a_process_beside_gives_what_reading_here_gives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = flat(read(path, 7, 990))
    assert [fact[0] for fact in here] == [n for n in range(8, 991) if n % 10]
    assert {fact[0] for fact in here if fact[6] is None} == {n for n in range(8, 991) if n % 100 == 51}
    assert here[0] == (8, "source-1", ONE, 3, 5, "alarm", {"text": "number 7"})
    commands: list[list[str]] = []
    start = subprocess.Popen
    monkeypatch.setattr(stored, "BESIDE", 500)
    monkeypatch.setattr(
        stored.subprocess, "Popen", lambda command, **more: (commands.append(command), start(command, **more))[1]
    )
    assert flat(read(path, 7, 990)) == here
    assert len(commands) == 1
    assert flat(read(path, 700, 990)) == here[-len(flat(read(path, 700, 990))) :]
    assert len(commands) == 1, "a short stretch is read here"


@pytest.mark.parametrize("given", ["nothing", "a part", "a part of a chunk", "something else"])
def test_what_the_process_beside_did_not_give_is_read_here(
    path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    here = flat(read(path))
    monkeypatch.setattr(stored, "BESIDE", 1)
    monkeypatch.setattr(stored, "CHUNK", 100)
    own = [sys.executable, "-c"]
    script = "import os, sys; from tracker import stored; stored.CHUNK = 100; "
    many = {"nothing": "0", "a part": "3 * length", "a part of a chunk": "3 * length - 50", "something else": "4"}[
        given
    ]
    said = "b'hello, ' * 9 +" if given == "something else" else ""
    script += (
        "own = os.dup(1); file = os.memfd_create('out'); os.dup2(file, 1); stored.main(); os.lseek(file, 0, 0); "
        "given = os.read(file, 1 << 30); length = len(given) // 10; "
        f"os.write(own, {said} given[:{many}]); os._exit(9)"
    )
    start = subprocess.Popen
    monkeypatch.setattr(stored.subprocess, "Popen", lambda command, **more: start([*own, script, *command[3:]], **more))
    chunks = read(path)
    assert flat(chunks) == here
    assert len(chunks) == 10


def test_without_a_process_all_is_read_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = flat(read(path))
    monkeypatch.setattr(stored, "BESIDE", 1)
    monkeypatch.setattr(sys, "executable", "")
    assert flat(read(path)) == here
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert flat(read(path)) == here


def test_a_process_that_says_nothing_is_left_to_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = flat(read(path))
    monkeypatch.setattr(stored, "BESIDE", 1)
    monkeypatch.setattr(stored, "PATIENCE", 0.2)
    start = subprocess.Popen
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    processes: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(
        stored.subprocess, "Popen", lambda _, **more: (processes.append(start(silent, **more)), processes[-1])[1]
    )
    assert flat(read(path)) == here
    assert processes[0].returncode is not None
