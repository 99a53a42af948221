"""Stored facts with their bodies decoded, a chunk at a time; those of a long stretch from a process beside this one.

Reading and decoding a fact takes as long as folding it: two cores rebuild half as fast again as one. The process is
this module: it writes what it read to its standard output, and ends when nobody takes it. Invariant: whatever becomes
of the process, every fact comes once and in order; what it did not give is read here. `marshal` is what keeps every
type as it was decoded, and is read in half the time of msgpack; nobody but this module writes to that pipe.

    python -m tracker.stored LEDGER AFTER THROUGH KINDS
"""

from __future__ import annotations

import fcntl
import gc
import marshal
import os
import select
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracker.facts import parser
from tracker.reader import LedgerReader

CHUNK = 2_000
"""Facts that are read at one go: few enough that they are still in the processor's cache when they are folded."""
BESIDE = 500_000
"""Facts from which on a process of their own is worth its start."""
AHEAD = 1024 * 1024
"""Bytes that the process may be ahead: some chunks, so that neither waits for the other's slower ones."""
PATIENCE = 30.0
"""Seconds without a byte after which the process is left to itself."""
MARK, LENGTH, MOST = b"chunk", 8, 2**32
"""What each chunk begins with, the bytes of its length, and how long it may be."""

Chunk = list[tuple[int, str, str, int, int, str, Any]]
"""(position, source, incarnation, sequence, time in ns, kind, body) each; a body that does not fit its kind is None."""


def stored(ledger: LedgerReader, after: int, through: int, kinds: Collection[str]) -> Iterator[Chunk]:
    """The facts above `after` up to `through` in order; those of other kinds are left out."""
    if through - after >= BESIDE:
        for last, chunk in _beside(ledger.path, after, through, kinds):
            yield chunk
            after = last
    for _, chunk in _decoded(ledger, after, through, kinds):
        yield chunk


def _decoded(ledger: LedgerReader, after: int, through: int, kinds: Collection[str]) -> Iterator[tuple[int, Chunk]]:
    """Chunks, each with the position through which it goes."""
    parsers = {kind: parser(kind) for kind in kinds}
    once: dict[str, str] = {}
    same = once.setdefault  # few sources, in many facts: a text that is one object is written, and made again, once
    while after < through:
        rows = ledger.read(after, min(CHUNK, through - after))
        if not rows:
            return
        chunk: Chunk = []
        once.clear()
        for position, source, incarnation, sequence, time, kind, text in rows:
            parse = parsers.get(kind)
            if parse is None:
                continue
            try:
                body = parse(text)
            except ValueError:
                body = None
            source, incarnation, kind = same(source, source), same(incarnation, incarnation), same(kind, kind)
            chunk.append((position, source, incarnation, sequence, time, kind, body))
        after = rows[-1][0]
        yield after, chunk


def _beside(path: Path, after: int, through: int, kinds: Collection[str]) -> Iterator[tuple[int, Chunk]]:
    """What the other process gives, up to its end, which may come early."""
    command = [sys.executable, "-P", "-m", "tracker.stored", str(path), str(after), str(through), ",".join(kinds)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
    except (OSError, TypeError, ValueError):  # no room for a process, or no interpreter known
        return
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    with suppress(OSError, AttributeError):  # not all systems have it, and not all may have as much
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, AHEAD)
    try:
        while content := _content(pipe):
            try:
                last, chunk = marshal.loads(content)  # noqa: S302 - what this module wrote
            except (EOFError, ValueError, TypeError):
                return
            yield last, chunk
    finally:
        process.stdout.close()
        process.kill()
        process.wait()


def _content(pipe: int) -> bytes:
    """One chunk as it was written; empty at the end, or where it breaks off or is none."""
    head = _exactly(pipe, len(MARK) + LENGTH)
    size = int.from_bytes(head[len(MARK) :], "little")
    return _exactly(pipe, size) if head.startswith(MARK) and size <= MOST else b""


def _exactly(pipe: int, size: int) -> bytes:
    parts: list[bytes] = []
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while size:
        part = os.read(pipe, min(size, AHEAD)) if poller.poll(PATIENCE * 1000) else b""
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def main() -> None:
    """The process beside."""
    gc.disable()  # plain values, no cycles: it would look through every chunk again and again
    path, after, through, kinds = sys.argv[1:]
    with (
        suppress(BrokenPipeError),
        os.fdopen(os.dup(1), "wb", buffering=AHEAD) as out,
        LedgerReader(Path(path)) as ledger,
    ):
        for part in _decoded(ledger, int(after), int(through), kinds.split(",")):
            content = marshal.dumps(part)
            out.write(MARK + len(content).to_bytes(LENGTH, "little") + content)
            out.flush()


if __name__ == "__main__":
    main()
