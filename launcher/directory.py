"""The run directory.

    runs-out/<name>-<time>/  run.toml  spaces.json  token  ipc  run.lock
                             ledger.sqlite  summary.json  checkpoints/  logs/

Invariant: a directory belongs to one run: one that holds a ledger is only entered to resume it, and never while another
launch holds its lock. Only its owner may enter it (0700, its files 0600). The launcher removes nothing from a directory
in which a role may have worked.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from broker import files
from broker.errors import RequestError
from broker.exits import output_end
from broker.names import new_token
from launcher import sockets
from tracker.lock import is_held

RUNS_OUT = Path("runs-out")
LAST_WORDS_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run is."""

    path: Path
    is_new: bool = False
    """Whether this launch created the folder."""

    @property
    def run_file(self) -> Path:
        """The resolved run file."""
        return self.path / "run.toml"

    @property
    def spaces_file(self) -> Path:
        """The record of the agents and spaces that the run began with."""
        return self.path / "spaces.json"

    @property
    def ledger(self) -> Path:
        """The tracker's database."""
        return self.path / "ledger.sqlite"

    @property
    def checkpoints(self) -> Path:
        """The tracker's checkpoint store."""
        return self.path / "checkpoints"

    @property
    def summary(self) -> Path:
        """What the tracker writes at the end."""
        return self.path / "summary.json"

    @property
    def token_file(self) -> Path:
        """The run token, mode 0600."""
        return self.path / "token"

    @property
    def ipc(self) -> Path | None:
        """The folder of the sockets of the current launch, or None where there is none."""
        try:
            return Path(os.fsdecode(files.read(self.path / "ipc", 4096)).strip())
        except FileNotFoundError:
            return None

    def log(self, role: str, attempt: int | None = None) -> Path:
        """The file that takes what this attempt of the role prints."""
        return self.path / "logs" / (f"{role}.{attempt}.log" if attempt is not None else f"{role}.log")

    def attempts_before(self) -> int:
        """The highest attempt that an earlier launch has logged: later ones go on from it, and overwrite nothing."""
        found = (re.fullmatch(r".+\.(\d+)\.log", log.name) for log in (self.path / "logs").glob("*.log"))
        return max((int(match[1]) for match in found if match), default=0)

    def token(self) -> str:
        """The run token. RequestError if it cannot be read."""
        try:
            return files.read(self.token_file, 256).decode("ascii", "replace").strip()
        except OSError as error:
            raise RequestError(f"{self.token_file}: cannot be read: {error.strerror}") from None

    def launched(self) -> bool:
        """Whether a launcher is at work here: the one that made the sockets' folder lives. Its tracker may be down."""
        try:
            folder = self.ipc  # asked for once: the launch that made it may remove it at any moment
            return folder is not None and sockets.owner(folder) not in {None, os.getpid()}
        except (OSError, ValueError, RequestError):  # another user may have made a folder of that name since
            return False

    def discard(self) -> None:
        """Remove the launcher's own files, and empty folders, from a run in which no role was ever started."""
        for written in (self.run_file, self.spaces_file, self.token_file, self.log("nursery"), self.path / "ipc"):
            written.unlink(missing_ok=True)
        for folder in (self.path / "logs", self.checkpoints, *([self.path] if self.is_new else [])):
            with suppress(OSError):  # it is not empty
                folder.rmdir()

    def close(self) -> None:
        """Sweep the sockets' folder. May be called again."""
        folder = self.ipc
        if folder is not None:
            sockets.sweep(folder)
            (self.path / "ipc").unlink(missing_ok=True)


def make(name: str, run_dir: Path | None = None, *, resume: bool = False, root: Path = RUNS_OUT) -> RunDirectory:
    """Make a new run's directory, or enter one to resume it. RequestError where that would mix two runs."""
    path = _fresh(name, root) if run_dir is None and not resume else _named(_required(run_dir))
    if resume:
        inspect(path)
    try:
        with _alone(path) as is_new:
            return _enter(name, RunDirectory(path, is_new or run_dir is None), resume=resume)
    except OSError as error:
        where = error.filename or path
        raise RequestError(f"{where}: cannot be used: {error.strerror}; choose another --run-dir") from None


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Make the directory if needed, and lock it: a second launch that enters it waits, and sees what the first made.

    Yields whether the directory was created here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
        is_new = True
    except FileExistsError:
        is_new = False
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield is_new
    finally:
        os.close(descriptor)


def _enter(name: str, directory: RunDirectory, *, resume: bool) -> RunDirectory:
    if not resume:
        _check_empty(directory)
    elif is_held(directory.path) or directory.launched():
        raise RequestError(f"{directory.path}: its run is still going on; `headrace watch` shows it")
    with suppress(PermissionError):  # a filesystem without modes, or a folder that belongs to another user
        directory.path.chmod(0o700)
    try:
        for folder in (directory.checkpoints, directory.path / "logs"):
            files.make_folder(folder)
        directory.close()
        sockets.sweep_stale()
        folder = sockets.make(name)
        try:
            files.write_whole(directory.path / "ipc", os.fsencode(folder) + b"\n")
            files.write_whole(directory.token_file, f"{new_token()}\n".encode())
        except BaseException:
            sockets.sweep(folder)
            raise
    except BaseException:
        if not resume:
            directory.discard()
        raise
    return directory


def inspect(path: Path) -> RunDirectory:
    """The directory of a run that has been started. RequestError if it is none."""
    path = path.expanduser().resolve()
    directory = RunDirectory(path)
    if not path.is_dir():
        raise RequestError(f"{path}: no such directory")
    try:
        files.check(directory.run_file, files.SMALL)
        files.check(directory.ledger)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        raise RequestError(f"{path}: holds no run (no run.toml with a ledger.sqlite: {missing} is missing)") from None
    return directory


def newest(root: Path = RUNS_OUT) -> RunDirectory:
    """The run that was started last. RequestError if there is none."""
    begun: dict[Path, float] = {}
    for ledger in root.glob("*/ledger.sqlite"):
        with suppress(OSError):
            begun[ledger.parent] = (ledger.parent / "run.toml").stat().st_mtime
    if not begun:
        raise RequestError(f"{root.resolve()}: holds no runs; start one with `headrace run`")
    return inspect(max(begun, key=lambda path: begun[path]))


def last_words(log: IO[bytes]) -> str:
    """Return the end of an open log, as `output_end` cuts it."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
    return output_end(log.read(LAST_WORDS_BYTES))


def _required(run_dir: Path | None) -> Path:
    if run_dir is None:
        raise RequestError("--resume needs --run-dir: which run is to go on?")
    return run_dir


def _fresh(name: str, root: Path) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for again in range(1000):
        path = (root / (f"{name}-{stamp}" + (f"-{again + 1}" if again else ""))).resolve()
        try:
            root.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise RequestError(f"{path}: cannot be made: {error.strerror}; choose another with --run-dir") from None
        return path
    raise RequestError(f"{root}: cannot make a new directory for {name}-{stamp}")


def _named(run_dir: Path) -> Path:
    try:
        return run_dir.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise RequestError(f"{run_dir}: cannot be used: {error}; choose another --run-dir") from None


def _check_empty(directory: RunDirectory) -> None:
    """RequestError unless nothing is there: what a launch that fails has made is removed again, and nothing else."""
    path = directory.path
    strange = sorted(entry.name for entry in path.iterdir())
    if strange and directory.launched():
        raise RequestError(f"{path}: a run is going on there; `headrace watch` shows it; choose another --run-dir")
    if "ledger.sqlite" in strange:
        raise RequestError(f"{path}: holds a run already; add --resume to go on with it, or choose another --run-dir")
    if strange:
        raise RequestError(f"{path}: holds other things ({', '.join(strange[:5])}); choose an empty --run-dir")
