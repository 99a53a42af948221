"""`headrace watch`: look at a run from outside, while it lasts or after it has ended.

A running run is found through its directory: `tracker.json` names the tracker's address, the file `token` lets its
standings be believed. A run that has ended is drawn once from its ledger. Everything here only reads.

Invariant: no wait without a deadline: a tracker that does not answer is said so, and where the run is over by then its
end is shown in place of it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from broker import files
from broker.errors import RequestError, Unreachable
from broker.text_files import read_text
from launcher import words

if TYPE_CHECKING:
    from rich.console import Console

TOKEN = re.compile(r"[0-9a-f]{32}")
RUNS = Path("runs-out")
PATIENCE = 10.0
"""Seconds that `--once` waits for the first standings."""
ROLE_KEYS = ("name", "kind", "pid", "state", "age", "restarts", "rss_mb", "cpu")


class Source(Protocol):
    """Where standings come from: `broker.standings.Feed`."""

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The newest standings, or None after `timeout` seconds."""

    def close(self) -> None:
        """Leave."""


@dataclass(frozen=True)
class Target:
    """What is watched: a run directory, the address of a tracker, or both."""

    directory: Path | None
    address: str | None
    token: Path | None

    def is_running(self) -> bool:
        """Whether it goes on (as far as can be seen from here: an address alone is taken to).

        A tracker holds it, or its launcher is about to start one again.
        """
        if self.directory is None:
            return True
        from launcher.directory import RunDirectory
        from tracker.lock import is_held

        return is_held(self.directory) or RunDirectory(self.directory).launched()

    def connect(self) -> Source:
        """A feed of the standings. RequestError if the address or the token cannot be read."""
        from broker.standings import Feed

        address = self.address or read_address(self.directory)
        if address is None:
            raise RequestError(f"{self.directory} has no tracker.json: the run has not begun; try again in a moment")
        token = self.token or (self.directory / "token" if self.directory else None)
        if token is None:
            raise RequestError(f"nothing here knows the token of {address}: give its file with --token FILE")
        try:
            # One that the user names may be a link, or a pipe: secrets often are.
            text = read_text(self.token) if self.token else files.read(token, 256).decode("ascii")
            if not TOKEN.fullmatch(text.strip()):
                raise ValueError("it is not 32 hexadecimal digits")
            return Feed(address, text.strip())
        except (OSError, ValueError) as error:
            raise RequestError(
                f"the run's token {token} cannot be read: {error}; watch as the user who runs it, or give its file "
                "with --token FILE"
            ) from error


def run_directory(given: Path | str | None) -> Path:
    """The run directory that was named, or the newest under `runs-out/`. RequestError if it is none."""
    from launcher.directory import inspect, newest

    return newest(RUNS).path if given is None else inspect(Path(given)).path


def read_address(directory: Path | None) -> str | None:
    """The tracker's address in the directory's `tracker.json`, or None."""
    if directory is None:
        return None
    try:
        address = words.mapping(json.loads(files.read(directory / "tracker.json"))).get("address")
    except (OSError, ValueError):
        return None
    return address if isinstance(address, str) else None


def target(given: str | None, token: Path | None = None) -> Target:
    """What `RUN-DIR or ADDRESS` means; for an address the run directory is looked for under `runs-out/`."""
    if given is not None and given.startswith(("ipc://", "tcp://")):
        directories = [path for path in RUNS.iterdir() if _serves(path, given)] if RUNS.is_dir() else []
        if not directories and token is None:
            raise RequestError(
                f"no running run under {RUNS}/ has the address {given}: give its token with --token FILE"
            )
        return Target(directories[0] if directories else None, given, token)
    return Target(run_directory(given), None, token)


def _serves(directory: Path, address: str) -> bool:
    """Tell whether this is the directory of a running run whose tracker has this address."""
    try:
        return read_address(directory) == address and Target(directory, None, None).is_running()
    except RequestError:  # a mistake in another run does not concern this one
        return False


def told(document: dict[str, Any]) -> dict[str, Any]:
    """The standings in the shape of `watch --json` that scripts rely on."""
    roles = [{key: role.get(key) for key in ROLE_KEYS} for role in words.objects(document.get("roles"))]
    rest = {key: value for key, value in document.items() if key not in ("roles", "time")}
    return {
        "run": None, "seconds": None, **rest, "roles": roles, "policies": words.mapping(document.get("policies")),
        "waits": words.listing(document.get("waits")), "events": words.listing(document.get("events")),
    }  # fmt: skip


def afterwards(directory: Path) -> dict[str, Any]:
    """Standings of a run that has ended, from its summary: what it counted, no roles."""
    from tracker.summary import summarise

    summary = summarise(directory)
    state = words.text(summary.get("state"), "ended")
    reason = words.text(summary.get("reason"))
    if state == "interrupted":
        reason = f"its tracker is gone; `headrace run --resume --run-dir {directory}` goes on with it"
    seconds = words.number(summary.get("seconds"))
    pace = {
        f"{key}_per_second": (words.number(summary.get(key)) or 0.0) / seconds if seconds else None
        for key in ("env_steps", "agent_steps")
    }
    return {
        **pace, **summary, "directory": str(directory), "phase": "ended" if state == "failed" else state,
        "reason": reason, "failed": bool(summary.get("failed")) or state == "failed", "seconds_left": None,
        "roles": [], "waits": [], "events": words.listing(summary.get("events")),
    }  # fmt: skip


def first(source: Source, run: Target, patience: float = PATIENCE) -> dict[str, Any] | None:
    """The first standings; None if the run is over before any come. Unreachable after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        document = source.next(0.5)
        if document is not None:
            return document
        if not run.is_running():
            return None
    where = run.directory or run.address
    raise Unreachable(
        f"the tracker of {where} has said nothing for {patience:.0f} s; is it this run's address and token?"
    )


def watch(
    given: str | None,
    *,
    once: bool,
    as_json: bool,
    token: Path | None = None,
    console: Console | None = None,
    write: Callable[[str], None] = print,
) -> int:
    """Attach to a run and show it until it ends or the user leaves. Returns the exit status, 0."""
    from rich.console import Console

    run = target(given, token)
    console = console or Console()
    document: dict[str, Any] | None = None
    if run.is_running():
        with closing(run.connect()) as source:
            if once:
                document = first(source, run)
            else:
                try:
                    _follow(source, run, console, write if as_json else None)
                except KeyboardInterrupt:
                    return 0
    if document is None:
        if run.directory is None:
            return 0
        if not as_json and not once:
            from launcher.report import render_summary
            from tracker.summary import summarise

            console.print(render_summary(summarise(run.directory)))
            return 0
        document = afterwards(run.directory)
    if as_json:
        write(words.as_json(told(document)))
    else:
        from launcher.dashboard import screen

        console.print(screen(document, console.width, max(console.height - 1, 20), time.monotonic()))
    return 0


def _follow(source: Source, run: Target, console: Console, write: Callable[[str], None] | None) -> None:
    """Show every document until the run has ended; `write` gets each as a line of JSON in place of a screen."""
    from launcher.dashboard import Dashboard
    from launcher.lines import PlainLines

    if write is not None:
        while (document := _next(source, run)) is not None:
            if document:
                write(words.as_json(told(document)))
        return
    display = Dashboard(console, hint="read-only · Ctrl-C leaves") if console.is_terminal else PlainLines(console.out)
    with display:
        while (document := _next(source, run)) is not None:
            display.show(document) if document else display.tick()


def _next(source: Source, run: Target) -> dict[str, Any] | None:
    """The newest standings, an empty mapping after half a second without, None when the run is over."""
    document = source.next(0.5)
    if document is None:
        return {} if run.is_running() else None
    return document
