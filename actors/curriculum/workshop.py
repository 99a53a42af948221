"""Generation work of one actor: the source is asked in a process of its own, and what it gave is said as facts.

Invariants: the actor never waits for a source, and runs one at a time; after the deadline the process is ended with all
that it started, the tasks that it wrote until then are minted, and a `generation_failed` reports that it was late.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from actors.curriculum.making import COMMAND, read_answer
from actors.worker_ids import WorkerIds
from broker import messages as m
from broker.delivery import mint_parts
from broker.errors import RequestError
from broker.exits import describe, output_end
from broker.station import Station

SHARE = 0.9
"""Of `curriculum.generate_seconds`: the tracker's deadline began earlier, and facts take a moment."""
MOST = 64 * 1024 * 1024
"""Most bytes of an answer that are read."""
GRACE = 2.0
"""Seconds behind the deadline after which what a killed source left behind is not waited for."""
REASONS = 3
"""Unfit items that are named in a reason."""


@dataclass
class _Piece:
    """A piece of work under way; its thread fills `answer` and sets `over`."""

    work: m.LeasedTask
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    """Standard error of the process: a file, because a descendant of it could hold a pipe open."""
    deadline: float
    """Monotonic seconds."""
    answer: bytearray = field(default_factory=bytearray)
    late: bool = False
    over: threading.Event = field(default_factory=threading.Event)


class Workshop:
    """Takes generation work up and ends it. Every call is on the role's thread and returns at once."""

    def __init__(self, station: Station, environment: dict[str, Any] | None = None) -> None:
        """`environment`: EnvironmentSettings as plain values, for a source that is an environment's levels."""
        self._station = station
        self._environment = environment
        self._piece: _Piece | None = None
        self.failed = ""
        """Why the last piece of work failed; empty when it did not."""

    @property
    def idle(self) -> bool:
        """Whether it can take a piece of work."""
        return self._piece is None

    def begin(self, work: m.LeasedTask) -> None:
        """Take a piece of work up; one that comes while another is under way is left to its deadline."""
        if self._piece is not None:
            return
        run = self._station.spec.run
        seconds = run["curriculum"]["generate_seconds"] * SHARE
        question = {
            "curriculum": run["curriculum"],
            "environment": self._environment,
            "worker_id": WorkerIds.of_actor(run, 0).of_source(self._station.spec.index),
            "folder": run.get("folder"),
            "seed": self._station.spec.seed,
            "generation": work.task,
            "most": json.loads(work.body)["generate"],
            "seconds": seconds,
        }
        try:
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - `settle` closes it
            process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        except OSError as error:  # no process to be had just now
            self._fail(work, f"no process could be started: {error}")
            return
        self._piece = _Piece(work, process, errors, time.monotonic() + seconds)
        arguments = (self._piece, json.dumps(question).encode(), seconds)
        threading.Thread(target=_attend, args=arguments, name="generation", daemon=True).start()

    def settle(self) -> None:
        """Say what came of a piece of work that is over. RequestError: the source itself is wrong in the run file."""
        piece = self._piece
        if piece is None or not (piece.over.is_set() or time.monotonic() > piece.deadline + GRACE):
            return
        self._piece = None
        work = piece.work
        piece.errors.seek(0)
        printed = piece.errors.read()
        piece.errors.close()
        sys.stderr.write(printed.decode(errors="replace"))  # into the actor's log
        tasks, unfit, end = read_answer(bytes(piece.answer))
        reason = end.get("reason", "")
        if end["end"] == "request":
            self._fail(work, reason)
            raise RequestError(reason)
        reasons = [reason] if end["end"] == "failed" else []
        if end["end"] == "silent":
            seconds = self._station.spec.run["curriculum"]["generate_seconds"]
            late = f"it was not done within curriculum.generate_seconds ({seconds:g})"
            silent = piece.late or not piece.over.is_set()
            reasons.append(late if silent else f"its process ended with {describe(piece.process.returncode)}")
        if unfit:
            reasons.append(
                f"{len(unfit)} of {len(unfit) + len(tasks)} items are no tasks: {'; '.join(unfit[:REASONS])}"
            )
        exhausted = end["end"] == "complete"
        parts = list(mint_parts(tasks))
        for place, part in enumerate(parts, 1):
            last = place == len(parts) and not reasons and not exhausted
            self._station.fact("mint", {"tasks": part, "generation": work.task, "last": last})
        self.failed = ""
        if reasons:
            self._fail(work, "; ".join(reasons), last_words=output_end(printed))
        elif exhausted:
            told = f"all {len(tasks)} tasks of the source were given" if tasks else "the source gave no task"
            self._fail(work, told, permanent=True)

    def close(self) -> None:
        """End the process that is at work, if there is one."""
        if self._piece is not None and not self._piece.over.is_set():
            with suppress(OSError):
                self._piece.process.terminate()

    def _fail(self, work: m.LeasedTask, reason: str, *, permanent: bool = False, last_words: str = "") -> None:
        self.failed = reason
        body = {"generation": work.task, "reason": reason[:4000], "permanent": permanent, "last_words": last_words}
        self._station.fact("generation_failed", body)


def _attend(piece: _Piece, question: bytes, seconds: float) -> None:
    """On a thread of its own: write, read, and kill at the deadline."""
    process = piece.process
    assert process.stdin is not None
    assert process.stdout is not None

    def late() -> None:
        piece.late = True
        process.terminate()  # its guard ends the source and all that it started

    clock = threading.Timer(seconds, late)
    clock.daemon = True
    clock.start()
    try:
        with suppress(OSError):
            process.stdin.write(question)
            process.stdin.close()
        while part := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
            piece.answer += part
            if len(piece.answer) > MOST:
                break
    finally:
        clock.cancel()
        if len(piece.answer) > MOST:
            process.terminate()
        process.wait()  # it closed its output: it ends, or the kernel's clock ends it
        process.stdout.close()
        piece.over.set()
