"""The run directory, and the private folder of its sockets.

    runs-out/<name>-<time>/  run.toml  token  ipc  run.lock  ledger.sqlite  summary.json  checkpoints/  logs/

Invariant: a directory belongs to one run: one that holds a ledger is only entered to resume it, and never while another
launch holds its lock. The sockets' folder is short (a unix socket's path has at most 107 bytes), ours alone (0700), new
for each launch, and gone at the end; what a launch that was killed left behind is swept by the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from broker.errors import HeadraceError, RequestError
from broker.names import new_token
from tracker.lock import is_held

RUNS_OUT = Path("runs-out")
PREFIX = "hr-"
MAX_IPC = 60
WORK = frozenset({"progress", "episode", "outcome", "update", "checkpoint"})
"""Kinds of facts that say that something was done."""
STALE_SECONDS = 60.0
LAST_WORDS_LINES = 20
LAST_WORDS_BYTES = 8192


@dataclass(frozen=True)
class RunDirectory:
    """Where everything of one run is."""

    path: Path

    @property
    def run_file(self) -> Path:
        """The resolved run file."""
        return self.path / "run.toml"

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
            return Path((self.path / "ipc").read_text(encoding="utf-8").strip())
        except OSError:
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
            return self.token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise RequestError(f"{self.token_file}: cannot be read: {error.strerror}") from None

    def launched(self) -> bool:
        """Whether a launcher is at work here: the one that made the sockets' folder lives. Its tracker may be down."""
        try:
            pid, started = ((self.ipc or Path()) / "owner").read_text(encoding="utf-8").split()
            return int(pid) != os.getpid() and _started(int(pid)) == started
        except (OSError, ValueError):
            return False

    def worked(self) -> bool:
        """Whether the ledger holds anything that an actor or a learner did: that is kept, whatever came afterwards."""
        if not self.ledger.exists():
            return False
        from tracker.ledger import LedgerReader

        try:
            with LedgerReader(self.ledger) as ledger:
                return any(fact[5] in WORK for fact in ledger.read_all())
        except HeadraceError:
            return True

    def discard(self, *, folder_too: bool) -> None:
        """Remove a run that never began. All that is in its folder is ours: `make` saw to that."""
        for entry in [self.path] if folder_too else list(self.path.iterdir()):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def close(self) -> None:
        """Sweep the sockets' folder. May be called again."""
        folder = self.ipc
        if folder is not None:
            sweep(folder)
            (self.path / "ipc").unlink(missing_ok=True)


def make(name: str, run_dir: Path | None = None, *, resume: bool = False, root: Path = RUNS_OUT) -> RunDirectory:
    """Make a new run's directory, or enter one to resume it. RequestError where that would mix two runs."""
    path = _fresh(name, root) if run_dir is None and not resume else _named(_required(run_dir))
    if resume:
        inspect(path)
    try:
        with _alone(path):
            return _enter(name, path, resume=resume, fresh=run_dir is None)
    except OSError as error:
        raise RequestError(f"{path}: cannot be used: {error.strerror}; choose another --run-dir") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of two launches that enter one directory at a time, the second sees what the first has made of it."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _enter(name: str, path: Path, *, resume: bool, fresh: bool) -> RunDirectory:
    if resume:
        directory = inspect(path)
        if is_held(directory.path) or directory.launched():
            raise RequestError(f"{directory.path}: its run is still going on; `headrace watch` shows it")
    else:
        directory = RunDirectory(path)
        if not fresh:
            _check_empty(path)
    for folder in (directory.checkpoints, directory.path / "logs"):
        folder.mkdir(exist_ok=True)
    directory.close()
    sweep_stale()
    private = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name[:12]}-", dir=ipc_base()))
    (private / "owner").write_text(f"{os.getpid()} {_started(os.getpid())}\n", encoding="utf-8")
    (directory.path / "ipc").write_text(f"{private}\n", encoding="utf-8")
    _write_token(directory.token_file)
    return directory


def exists(run_dir: Path | None) -> bool:
    """Whether the folder that was asked for is there. RequestError if it cannot be one."""
    if run_dir is None:
        return False
    path = _named(run_dir)
    try:
        return path.exists()
    except OSError as error:
        raise RequestError(f"{path}: cannot be used: {error.strerror}; choose another --run-dir") from None


def inspect(path: Path) -> RunDirectory:
    """The directory of a run that has been started. RequestError if it is none."""
    path = path.expanduser().resolve()
    directory = RunDirectory(path)
    if not path.is_dir():
        raise RequestError(f"{path}: no such directory")
    if not directory.ledger.is_file() or not directory.run_file.is_file():
        raise RequestError(f"{path}: holds no run (no run.toml with a ledger.sqlite)")
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


def last_words(log: Path, lines: int = LAST_WORDS_LINES) -> str:
    """The last lines of a log, or "" where there is none; at most 8 KiB."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def ipc_base() -> Path:
    """Where sockets' folders are made: the user's runtime folder, or /tmp where there is none or its path is long."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - mkdtemp below is private
    usable = base.is_dir() and os.access(base, os.W_OK) and len(os.fsencode(base)) <= MAX_IPC - 25
    return base if usable else Path("/tmp")  # noqa: S108


def sweep(folder: Path) -> None:
    """Remove a sockets' folder, if it is one of ours (name, owner, the file `owner` in it) and no link."""
    with suppress(OSError):
        status = folder.lstat()
        ours = folder.name.startswith(PREFIX) and stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if ours and (folder / "owner").is_file():
            shutil.rmtree(folder, ignore_errors=True)


def sweep_stale() -> None:
    """Remove the folders of launchers that are gone for a minute or more."""
    for folder in ipc_base().glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):
            pid, started = (folder / "owner").read_text(encoding="utf-8").split()
            old = time.time() - folder.stat().st_mtime > STALE_SECONDS
            if old and _started(int(pid)) != started:
                sweep(folder)


def _started(pid: int) -> str:
    """When a process was created, as text; "gone" where there is none."""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return "gone"


def _required(run_dir: Path | None) -> Path:
    if run_dir is None:
        raise RequestError("--resume needs --run-dir: which run is to go on?")
    return run_dir


def _fresh(name: str, root: Path) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for again in range(1000):
        path = (root / (f"{name}-{stamp}" + (f"-{again + 1}" if again else ""))).resolve()
        try:
            path.mkdir(parents=True)
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


def _check_empty(path: Path) -> None:
    """RequestError unless nothing is there: what a launch that fails has made is removed again, and nothing else."""
    if RunDirectory(path).launched():
        raise RequestError(f"{path}: a run is going on there; `headrace watch` shows it; choose another --run-dir")
    if (path / "ledger.sqlite").exists():
        raise RequestError(f"{path}: holds a run already; add --resume to go on with it, or choose another --run-dir")
    strange = sorted(entry.name for entry in path.iterdir())
    if strange:
        raise RequestError(f"{path}: holds other things ({', '.join(strange[:5])}); choose an empty --run-dir")


def _write_token(path: Path) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(new_token() + "\n")
