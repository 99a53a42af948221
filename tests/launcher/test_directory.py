"""The run directory: what is planted in it, what is removed from it, and who may read it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.errors import RequestError
from launcher.directory import RunDirectory, inspect, make
from launcher.reading import load, resume
from launcher.watch import Target
from tests.broker.test_files import endless, fifo, link, stranger
from tracker.ledger import Ledger, LedgerReader
from tracker.lock import RunLock
from tracker.mend import mend
from tracker.reserve import Reserve


@pytest.fixture
def ended(tmp_path: Path) -> RunDirectory:
    """A run that has ended."""
    before = os.umask(0)  # whatever it is, a run is for its owner alone
    try:
        directory = make("x", tmp_path / "run")
        load().write(directory.run_file)
        with RunLock(directory.path):
            Ledger(directory.ledger).close()
        directory.close()
    finally:
        os.umask(before)
    return directory


def test_a_run_is_for_its_owner_alone(ended: RunDirectory) -> None:
    with Ledger(ended.ledger) as ledger, ledger.commit():
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ended.path.iterdir()}
    assert {name for name, mode in modes.items() if mode == 0o700} == {"checkpoints", "logs"}
    assert "ledger.sqlite-wal" in modes
    assert {mode for name, mode in modes.items() if name not in {"checkpoints", "logs"}} == {0o600}
    assert stat.S_IMODE(ended.path.stat().st_mode) == 0o700
    ended.path.chmod(0o755)
    make("x", ended.path, resume=True).close()
    assert stat.S_IMODE(ended.path.stat().st_mode) == 0o700


def use(path: Path) -> None:
    """All that opens a file of a run that is gone on with."""
    resume(inspect(path).run_file)
    directory = make("x", path, resume=True)
    try:
        load().write(directory.run_file)
        with RunLock(path), LedgerReader(directory.ledger):
            Reserve(path).hold()
        Ledger(directory.ledger).close()
        Target(path, None, None).connect()
    finally:
        directory.close()


FILES = ("run.toml", "token", "ipc", "run.lock", "reserve", "tracker.json", "ledger.sqlite", "ledger.sqlite-wal")


@pytest.mark.parametrize("plant", [fifo, endless, link, Path.mkdir, stranger])
@pytest.mark.parametrize("name", FILES)
def test_what_is_planted_in_a_run_is_refused_by_name(
    ended: RunDirectory, name: str, plant: Callable[[Path], None]
) -> None:
    (ended.path / name).unlink(missing_ok=True)
    plant(ended.path / name)
    with pytest.raises(RequestError, match=rf"{ended.path}/{name}(\.partial)? (is|belongs)"):
        use(ended.path)
    if plant is link:
        assert (ended.path / "target").read_text() == "another file"


@pytest.mark.parametrize("name", ["checkpoints", "logs"])
def test_a_folder_that_is_planted_in_a_run_is_refused(ended: RunDirectory, tmp_path: Path, name: str) -> None:
    (ended.path / name).rmdir()
    (tmp_path / "elsewhere").mkdir()
    (ended.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match=rf"{name} is a link"):
        use(ended.path)


@pytest.mark.parametrize("suffix", ["", "-wal", ".mending"])
def test_what_is_planted_is_not_mended(ended: RunDirectory, suffix: str) -> None:
    planted = Path(f"{ended.ledger}{suffix}")
    planted.unlink(missing_ok=True)
    os.mkfifo(planted)
    with pytest.raises(RequestError, match="FIFO"):
        mend(ended.path)


def test_a_run_that_never_began_is_removed(tmp_path: Path) -> None:
    directory = make("x", tmp_path / "new")
    load().write(directory.run_file)
    directory.log("nursery").write_text("importing")
    directory.close()
    directory.discard()
    assert not directory.path.exists()
    (tmp_path / "there").mkdir()
    directory = make("x", tmp_path / "there")
    directory.close()
    directory.discard()
    assert list(directory.path.iterdir()) == []


@pytest.mark.parametrize("work", ["checkpoints/a~1.1.checkpoint", "logs/actor-0.1.log", "ledger.sqlite", "notes.txt"])
def test_what_the_launcher_did_not_write_is_never_removed(tmp_path: Path, work: str) -> None:
    directory = make("x", tmp_path / "new")
    (directory.path / work).write_text("work")
    directory.close()
    directory.discard()
    assert (directory.path / work).read_text() == "work"


def test_a_directory_whose_parent_is_no_folder_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(RequestError, match="cannot be used"):
            make("x", place)
    shutil.rmtree(tmp_path, ignore_errors=True)
