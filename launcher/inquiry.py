"""One question to the user's code, in a process that can do no harm here.

Invariant: nothing of the user's is imported into the launcher; the process that answers is gone, and its group with it,
when `answer` returns or raises, and at the latest after its deadline. It watches the lifeline as roles do.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from broker.errors import RequestError
from launcher.host import append_folder, start
from launcher.lifeline import Lifeline, watch

DEADLINE_SECONDS = 60.0


class Inquiry:
    """Asked at once and answered later, so that other things go on meanwhile.

    `module` is run as a program with `question` as JSON on its standard input; the last line of its output is the
    answer as JSON, or {"error": message}. `about` says in messages what could not be made.
    """

    def __init__(self, about: str, module: str, question: Mapping[str, Any], folder: str | None) -> None:
        self._about = about
        self._lifeline = Lifeline()
        reader = self._lifeline.reader
        arguments = [sys.executable, "-m", "launcher.inquiry", str(reader), folder or "", module]
        # Files, not pipes: what the user's code has started may hold them open after the answer.
        self._out, self._errors = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 - `close` closes them
        self._process = start(arguments, question, (reader,), self._out, self._errors)

    def answer(self, deadline: float = DEADLINE_SECONDS) -> dict[str, Any]:
        """What it answered. RequestError with its error, its last words, or that it took longer than `deadline` s."""
        try:
            self._process.wait(deadline)
            out, errors = _all(self._out), _all(self._errors)
        except subprocess.TimeoutExpired:
            raise RequestError(f"{self._about}: it could not be made within {deadline:.0f} s") from None
        finally:
            self.close()
        try:
            reply = json.loads(out.strip().split(b"\n")[-1])
            error = reply.get("error")
        except (ValueError, AttributeError):
            last = errors.decode(errors="replace").strip().splitlines()[-20:]
            words = "\n".join(f"  {line}" for line in last)
            status = self._process.returncode
            raise RequestError(
                f"{self._about}: it could not be made (exit status {status}); it said\n{words}"
            ) from None
        if error is not None:
            raise RequestError(str(error))
        return dict(reply)

    def close(self) -> None:
        """End the process and its group. May be called again."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._out.close()
        self._errors.close()
        self._lifeline.close()


def _all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def main() -> None:
    """The program: `python -m launcher.inquiry LIFELINE FOLDER MODULE`; the module has the folder last on its path."""
    watch(int(sys.argv[1]), grace=0.5)
    append_folder(sys.argv[2] or None)
    runpy.run_module(sys.argv[3], run_name="__main__")


if __name__ == "__main__":
    main()
