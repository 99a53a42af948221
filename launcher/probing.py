"""Asking the run's environment for its agents and spaces, in a process that can do no harm here.

Invariant: the environment is never imported into the launcher; the probing process is gone, and its group with it, when
`answer` returns or raises, and at the latest after its deadline. It watches the lifeline as roles do.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from broker.errors import RequestError
from launcher.host import append_folder, start
from launcher.lifeline import Lifeline, watch
from launcher.runfile import RunFile

DEADLINE_SECONDS = 60.0
MODULE = "actors.environments.probe"


@dataclass(frozen=True)
class Spaces:
    """What the environment is: its kind, and the plain specs of each agent's spaces, in the agents' order."""

    kind: str
    agents: dict[str, dict[str, Any]]
    """Agent -> {"observation": plain ObservationSpec, "action": plain ActionSpec}"""


class Probe:
    """One question to the environment, asked at once and answered later, so that other things go on meanwhile."""

    def __init__(self, run: RunFile, *, module: str = MODULE) -> None:
        self._id = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = Lifeline()
        if run.environment is None:
            return
        self._id = run.environment.id
        question = run.environment.model_dump(mode="json") | {"vector": run.actors.vector}
        reader = self._lifeline.reader
        arguments = [sys.executable, "-m", "launcher.probing", str(reader), run.folder or "", module]
        self._process = start(arguments, question, (reader,), subprocess.PIPE)

    def answer(self, deadline: float = DEADLINE_SECONDS) -> Spaces | None:
        """The spaces, or None for a run without an environment. RequestError says what is wrong with it."""
        if self._process is None:
            self._lifeline.close()
            return None
        try:
            out, errors = self._process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            raise RequestError(f"environment {self._id}: it could not be made within {deadline:.0f} s") from None
        finally:
            self.close()
        return self._read(out, errors.decode(errors="replace"), self._process.returncode)

    def close(self) -> None:
        """End the process and its group. May be called again."""
        if self._process is not None:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
        self._lifeline.close()

    def _read(self, out: bytes, errors: str, status: int) -> Spaces:
        last = out.strip().split(b"\n")[-1]
        try:
            reply = json.loads(last)
            if "error" in reply:
                raise RequestError(str(reply["error"]))
            return Spaces(reply["kind"], reply["agents"])
        except (ValueError, KeyError, TypeError):
            words = "\n".join(f"  {line}" for line in errors.strip().splitlines()[-20:])
            raise RequestError(
                f"environment {self._id}: it could not be made (exit status {status}); it said\n{words}"
            ) from None


def main() -> None:
    """The program: `python -m launcher.probing LIFELINE FOLDER MODULE`; the module has the folder last on its path."""
    watch(int(sys.argv[1]), grace=0.5)
    append_folder(sys.argv[2] or None)
    runpy.run_module(sys.argv[3], run_name="__main__")


if __name__ == "__main__":
    main()
