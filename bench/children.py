"""Processes of a measurement: started with the environment that the launcher gives, ended by their own id.

Invariant: when `Children` is left, every process that it started has ended, and what failed is shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from launcher.host import CHILD_VARIABLES

ROOT = Path(__file__).resolve().parent.parent


class Children:
    """A private folder for sockets and the processes that meet there."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hr-bench-")
        self.folder = Path(self._folder.name)
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, module: str, **options: Any) -> subprocess.Popen[str]:
        """Run `python -m MODULE OPTIONS-AS-JSON`; its standard output is a pipe."""
        # PYTHONSAFEPATH keeps the current folder off the path: the repository is named instead.
        environment = {**os.environ, **CHILD_VARIABLES, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", module, json.dumps(options)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self._processes.append(process)
        return process

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        self._folder.cleanup()


def result(process: subprocess.Popen[str], timeout: float) -> Any:
    """What a child said as JSON in its last line. RuntimeError if it said nothing."""
    out, _ = process.communicate(timeout=timeout)
    lines = out.strip().splitlines()
    if process.returncode != 0 or not lines:
        raise RuntimeError(f"{' '.join(process.args[2:4])} ended with {process.returncode}")  # type: ignore[index]
    return json.loads(lines[-1])


def options() -> dict[str, Any]:
    """In a child: what it was started with."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found
