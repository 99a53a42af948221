"""The log of a source's process, which outlives its kill: how far the tracker acknowledged, as 8-byte numbers."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path


def recorder(log: Path) -> Callable[[int], None]:
    """What appends the highest sequence known to be durable to this log whenever it is another one."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    before = 0

    def record(durable: int) -> None:
        nonlocal before
        if durable != before:
            before = durable
            os.write(file, struct.pack("<q", before))

    return record


def acknowledged(log: Path) -> int:
    """The highest sequence that this source knew to be durable."""
    content = log.read_bytes() if log.exists() else b""
    whole = len(content) - len(content) % 8
    return int(struct.unpack("<q", content[whole - 8 : whole])[0]) if whole else 0
