"""Files that are whole or not there, whatever falls meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

PARTIAL = ".partial"
"""What a file is called while it is written."""


def write_whole(path: Path, content: bytes) -> None:
    """The file under its name, with all of its content on disk. That the name stays needs `sync_folder`."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def sync_folder(folder: Path) -> None:
    """What was renamed or removed there stays so, also after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
