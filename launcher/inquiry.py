"""One question to the user's code, in a process that can do no harm here.

Invariant: nothing of the user's is imported into the launcher; the process that answers is gone, with all that it
started, when `answer` returns or raises, and at the latest after its deadline. It watches the lifeline as roles do.
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
"""How long the process may take to end itself and what it started."""


class Inquiry:
    """Asked at once and answered later, so that other things go on meanwhile.

    `module` is run as a program with `question` as JSON on its standard input; the last line of its output is the
    answer as JSON, or {"error": message}. `about` says in messages what could not be made, and `key` which key of the
    run file holds the deadline of `seconds`.
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
        """What it answered. RequestError with its error, its last words, or what it was at when its time was over."""
        late = False
        try:
            self._process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            late = True
            self._end()  # it says on its standard error what it was doing
        try:
            out, errors = (_content(file) for file in (self._out, self._errors))
        finally:
            self.close()
        said = "\n".join(f"  {line}" for line in output_end(errors).splitlines())
        if late:
            raise RequestError(
                f"{self._about}: it could not be made within {self._seconds:g} s, which is {self._key} of the run file:"
                f" raise that, or make it faster; it was at\n{said}"
            )
        try:
            reply = json.loads(out.strip().split(b"\n")[-1])
            error = reply.get("error")
        except (ValueError, AttributeError):
            how = describe(self._process.returncode)
            raise RequestError(f"{self._about}: it could not be made ({how}); it said\n{said}") from None
        if error is not None:
            raise RequestError(str(error))
        return dict(reply)

    def close(self) -> None:
        """End the process and what it started. May be called again."""
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
    """Run the module as a program; a native crash, and SIGABRT at the deadline, leave the stack on standard error."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    append_folder(folder or None)
    runpy.run_module(module, run_name="__main__")


def main() -> None:
    """The program: `python -m launcher.inquiry LIFELINE FOLDER MODULE`; the module has the folder last on its path."""
    leave_as(guarded(partial(_run, sys.argv[2], sys.argv[3]), int(sys.argv[1])))


if __name__ == "__main__":
    main()
