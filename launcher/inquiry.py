"""One question to the user's code, in a process that can do no harm here.

Invariants: the launcher imports no code of the user's; the process that answers has ended, with all that it started,
when `answer` returns or raises, and soon after its deadline at the latest. It watches the lifeline as roles do.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any

from broker.descendants import guarded, leave_as
from broker.errors import RequestError
from broker.exits import describe, output_end
from launcher.host import append_folder, start
from launcher.lifeline import Lifeline

END_SECONDS = 5.0
"""Seconds that the process may take to end itself and what it started."""


class Inquiry:
    """Asked at once and answered later, so that other things go on meanwhile.

    `module` is run as a program with `question` as JSON on its standard input; the last line of its output is the
    answer as JSON, or {"error": message}. Messages name with `about` what could not be made, and with `key` the key of
    the run file that sets the deadline of `seconds`.
    """

    def __init__(
        self, about: str, module: str, question: Mapping[str, Any], folder: str | None, *, seconds: float, key: str
    ) -> None:
        self._about, self._seconds, self._key = about, seconds, key
        self._lifeline = Lifeline()
        reader = self._lifeline.reader
        arguments = [sys.executable, "-m", "launcher.inquiry", str(reader), folder or "", module]
        # Files, not pipes: what the user's code has started may hold them open after the answer.
        self._out, self._errors = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115 - `close` closes them
        self._process = start(arguments, question, (reader,), self._out, self._errors)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer. RequestError with its error, the end of its output, or where it was at the deadline."""
        late = False
        try:
            self._process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            late = True
            self._end()  # it prints its stack on standard error
        try:
            out, errors = (_content(file) for file in (self._out, self._errors))
        finally:
            self.close()
        output = "\n".join(f"  {line}" for line in output_end(errors).splitlines())
        if late:
            raise RequestError(
                f"{self._about}: it could not be made within {self._seconds:g} s, which is {self._key} of the run file:"
                f" raise that, or make it faster; it was at\n{output}"
            )
        try:
            reply = json.loads(out.strip().split(b"\n")[-1])
            error = reply.get("error")
        except (ValueError, AttributeError):
            how = describe(self._process.returncode)
            raise RequestError(f"{self._about}: it could not be made ({how}); it printed\n{output}") from None
        if error is not None:
            raise RequestError(str(error))
        return dict(reply)

    def close(self) -> None:
        """End the process and what it started. A second call does nothing."""
        self._end()
        self._out.close()
        self._errors.close()
        self._lifeline.close()

    def _end(self) -> None:
        self._lifeline.cut()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _run(folder: str, module: str) -> None:
    """Run the module as a program. A native crash, or SIGABRT at the deadline, prints the stack on standard error."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    append_folder(folder or None)
    runpy.run_module(module, run_name="__main__")


def main() -> None:
    """The program: `python -m launcher.inquiry LIFELINE FOLDER MODULE`; the module has the folder last on its path."""
    leave_as(guarded(partial(_run, sys.argv[2], sys.argv[3]), int(sys.argv[1])))


if __name__ == "__main__":
    main()
