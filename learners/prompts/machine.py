"""A program over recorded results: coroutines that ask for named work, and go on when all of it is there.

An algorithm is written as it is thought: `await machine.ask(requests)` gives their results, `machine.start(coroutine)`
runs a part beside the others, and awaiting what it gave is a barrier. Nothing here runs in a thread, reads a clock or
draws a number.

Invariant: a program whose parts meet only at barriers asks for the same set of names and comes to the same decisions
in whatever order results come, how often each comes, and whether some were there before it began. So a snapshot is the
results, and restoring is running the program again over them: what is recorded is not asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Generator, Iterable
from typing import Any, Generic, TypeVar

from learners.prompts.requests import Request, Result

T = TypeVar("T")


class Part(Generic[T]):
    """A running coroutine of the program. Awaiting it waits for its end and gives what it returned."""

    def __init__(self, coroutine: Coroutine[Any, None, T]) -> None:
        self.coroutine = coroutine
        self.done = False
        self.joined: list[Part[Any]] = []
        """Those that wait for its end."""
        self._value: list[T] = []

    def end(self, value: T) -> None:
        """It returned `value`."""
        self.done = True
        self._value.append(value)

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            yield self
        return self._value[0]


class Asked:
    """Requests that were made. Awaiting them gives their results, in the order of the requests."""

    def __init__(self, results: dict[str, Result], names: list[str]) -> None:
        self._results = results
        self._names = names
        self.missing = 0
        """While something waits for it: how many results are still to come."""

    def open(self) -> list[str]:
        """Names without a result, each once."""
        return [name for name in dict.fromkeys(self._names) if name not in self._results]

    def __await__(self) -> Generator[Any, None, list[Any]]:
        if self.open():
            yield self
        return [self._results[name] for name in self._names]


class Machine:
    """Drives one program. `give` is the only thing that moves it."""

    def __init__(self, results: dict[str, Result] | None = None) -> None:
        self.results: dict[str, Result] = dict(results or {})
        """By name; also such as nobody has asked for yet."""
        self.asked: set[str] = set()
        """Names of every request."""
        self.stages: dict[int, list[str]] = {}
        """By stage, the names that it was the first to ask for."""
        self.new: list[Request] = []
        """Requests without a result that were not handed out yet, in the order in which they were made."""
        self.pending = 0
        """Requests without a result, handed out or not."""
        self._waiting: dict[str, list[tuple[Asked, Part[Any]]]] = {}
        self._runnable: deque[Part[Any]] = deque()
        self._inside = 0

    def ask(self, requests: Iterable[Request], stage: int) -> Asked:
        """Ask for work, at once; what was asked for before is not asked for again."""
        names = []
        for request in requests:
            name = request.name
            names.append(name)
            if name not in self.asked:
                self.asked.add(name)
                self.stages.setdefault(stage, []).append(name)
                if name not in self.results:
                    self.new.append(request)
                    self.pending += 1
        return Asked(self.results, names)

    def start(self, coroutine: Coroutine[Any, None, T]) -> Part[T]:
        """Run a part beside the others. It has run to its first wait when this returns."""
        part = Part(coroutine)
        self._step(part)
        self._drain()
        return part

    def give(self, name: str, result: Result) -> bool:
        """Take a result, and run what it was waited for. False for one that was there: the first one counts."""
        if name in self.results:
            return False
        self.results[name] = result
        if name in self.asked:
            self.pending -= 1
        for asked, part in self._waiting.pop(name, ()):
            asked.missing -= 1
            if not asked.missing:
                self._runnable.append(part)
        self._drain()
        return True

    def take(self, most: int | None = None) -> list[Request]:
        """Requests to hand out now, the first `most` where that is given; each is given once."""
        new = [request for request in self.new if request.name not in self.results]
        most = len(new) if most is None else max(0, most)
        self.new = new[most:]
        return new[:most]

    def _step(self, part: Part[Any]) -> None:
        """Run a part to its next wait, or to its end."""
        self._inside += 1
        try:
            waits_for = part.coroutine.send(None)
        except StopIteration as stop:
            part.end(stop.value)
            self._runnable.extend(part.joined)
            part.joined = []
            return
        finally:
            self._inside -= 1
        if isinstance(waits_for, Part):
            waits_for.joined.append(part)
            return
        open_names = waits_for.open()
        waits_for.missing = len(open_names)
        for name in open_names:
            self._waiting.setdefault(name, []).append((waits_for, part))

    def _drain(self) -> None:
        while self._runnable and not self._inside:  # a part that starts another is still in its own step
            self._step(self._runnable.popleft())
