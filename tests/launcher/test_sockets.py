"""The sockets' folder: where it is made, and which ones are swept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import RequestError
from launcher import sockets
from launcher.directory import make
from launcher.host import process_start
from tests.broker.test_files import stranger


@pytest.fixture
def zombie() -> Iterator[tuple[int, int]]:
    """A process that has ended and was not waited for: its pid, and when it was created."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(child.pid)
    assert child.stdin is not None
    assert start is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child.pid, start
    child.wait()


def old(folder: Path) -> Path:
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))
    return folder


def folder(base: Path, name: str, owner: str) -> Path:
    (base / name).mkdir()
    (base / name / sockets.OWNER).write_text(owner)
    return old(base / name)


def test_only_folders_of_dead_launchers_of_ours_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zombie: tuple[int, int]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mine = process_start(os.getpid())
    folder(tmp_path, "hr-dead", "999999999 1")
    folder(tmp_path, "hr-zombie", "{} {}".format(*zombie))
    folder(tmp_path, "hr-reused", f"{os.getpid()} {mine + 1 if mine else 0}")
    folder(tmp_path, "hr-alive", f"{os.getpid()} {mine}")
    folder(tmp_path, "hr-garbled", "someone")
    (tmp_path / "hr-docs").mkdir()  # not ours, whatever its name
    sockets.sweep_stale()
    sockets.sweep(tmp_path / "hr-docs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hr-alive", "hr-docs", "hr-garbled"]


def test_what_others_put_there_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for name in ("hr-fifo", "hr-endless", "hr-big", "hr-folder"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "hr-fifo" / sockets.OWNER)
    (tmp_path / "hr-endless" / sockets.OWNER).symlink_to("/dev/zero")
    (tmp_path / "hr-big" / sockets.OWNER).touch()
    os.truncate(tmp_path / "hr-big" / sockets.OWNER, 2**40)
    (tmp_path / "hr-folder" / sockets.OWNER).mkdir()
    (tmp_path / "hr-linked").symlink_to(folder(tmp_path.parent, "hr-elsewhere", "999999999 1"))
    before = sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        old(path)
    sockets.sweep_stale()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path.parent / "hr-elsewhere").exists()


def test_a_folder_of_another_user_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    theirs = folder(tmp_path, "hr-theirs", "999999999 1")
    (theirs / sockets.OWNER).unlink()
    stranger(theirs / sockets.OWNER)
    os.chown(old(theirs), 12345, 12345)
    sockets.sweep_stale()
    assert theirs.exists()


@pytest.mark.parametrize("unusable", ["missing", "file", "x" * 60, "x" * 300, "relative", "full"])
def test_a_runtime_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unusable: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ("x" * 60)).mkdir()
    runtime = Path("/proc/self" if unusable == "full" else unusable if unusable == "relative" else tmp_path / unusable)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.chdir(tmp_path)
    made = sockets.make("spread")
    try:
        assert made.parent == Path("/tmp")
        assert sockets.owner(made) == os.getpid()
    finally:
        sockets.sweep(made)
    assert not made.exists()
    monkeypatch.setattr(sockets, "_bases", lambda: [("XDG_RUNTIME_DIR=", runtime)])
    with pytest.raises(RequestError, match=rf"XDG_RUNTIME_DIR={runtime}.*: set XDG_RUNTIME_DIR to a folder of yours"):
        make("spread", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_is_a_zombie_launches_nothing(tmp_path: Path, zombie: tuple[int, int]) -> None:
    directory = make("spread", tmp_path / "run")
    try:
        assert directory.ipc is not None
        (directory.ipc / sockets.OWNER).write_text(f"{os.getppid()} {process_start(os.getppid())}\n")
        assert directory.launched()
        (directory.ipc / sockets.OWNER).write_text("{} {}\n".format(*zombie))
        assert not directory.launched()
    finally:
        directory.close()
