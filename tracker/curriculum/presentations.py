"""Who plays which drawn task, and who is at work on new ones.

Invariants: every draw has a number of its own, ever, and is open for one incarnation until an outcome, a failure or a
return ends it; a draw that returned may still get its one outcome, from the incarnation that it was drawn for. So of
a draw at most one outcome counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, NamedTuple

REMEMBERED = 64
"""Answered requests kept for each incarnation."""
RETURNED = 65_536
"""Returned draws whose outcome may still come, the newest."""

Holder = tuple[str, str]
"""(source, incarnation)"""


class Drawn(NamedTuple):
    """A draw: its task, its holder, the request that it answers, and its deadline (the run's clock, ns)."""

    task: str
    source: str
    incarnation: str
    request: int
    deadline: int


class Generating(NamedTuple):
    """A piece of generation work: `most` tasks wanted of whom."""

    most: int
    source: str
    incarnation: str
    request: int
    deadline: int


class Answered(NamedTuple):
    """What a request got: draws `first` .. `first + most - 1`, and the id of generation work ("": none)."""

    first: int
    most: int
    generation: str


class Presentations:
    """Open draws, draws that returned, generation work, and the requests that they answer."""

    def __init__(self) -> None:
        self.open: dict[int, Drawn] = {}
        self.held: dict[Holder, dict[int, None]] = {}
        self.returned: dict[int, Drawn] = {}
        self.generating: dict[str, Generating] = {}
        self.answered: dict[Holder, dict[int, Answered]] = {}
        self._deadlines: list[tuple[int, int, int]] = []
        """Heap of (deadline, first draw, how many): one entry a request."""

    def draw(self, first: int, tasks: list[str], holder: Holder, request: int, deadline: int) -> None:
        """A request got these draws."""
        held = self.held.setdefault(holder, {})
        for number, task in enumerate(tasks, first):
            self.open[number] = Drawn(task, *holder, request, deadline)
            held[number] = None
        if tasks:
            heapq.heappush(self._deadlines, (deadline, first, len(tasks)))
        else:
            self._tidy(holder)
        self._answer(holder, request, first, len(tasks), "")

    def generate(self, name: str, work: Generating) -> None:
        """A request got generation work."""
        self.generating[name] = work
        self._answer((work.source, work.incarnation), work.request, 0, 0, name)

    def _answer(self, holder: Holder, request: int, first: int, count: int, generation: str) -> None:
        answered = self.answered.setdefault(holder, {})
        before = answered.get(request)
        if before is not None:
            first, count = (first, count) if count else before[:2]
            generation = generation or before.generation
        answered[request] = Answered(first, count, generation)
        if len(answered) > REMEMBERED:
            del answered[next(iter(answered))]

    def find(self, number: int, task: str, holder: Holder) -> bool:
        """Whether this draw of this task, for this holder, is open or returned: whether its outcome can count."""
        drawn = self.open.get(number) or self.returned.get(number)
        return drawn is not None and drawn.task == task and (drawn.source, drawn.incarnation) == holder

    def close(self, number: int, holder: Holder) -> None:
        """The draw has its outcome, or failed: nothing more of it counts."""
        if self.open.pop(number, None) is None:
            self.returned.pop(number, None)
        else:
            self.held[holder].pop(number, None)
            self._tidy(holder)

    def give_back(self, number: int) -> Drawn | None:
        """The draw ended without an outcome; None if it was not open."""
        drawn = self.open.pop(number, None)
        if drawn is None:
            return None
        holder = (drawn.source, drawn.incarnation)
        self.held[holder].pop(number, None)
        self._tidy(holder)
        self.returned[number] = drawn
        if len(self.returned) > RETURNED:
            del self.returned[next(iter(self.returned))]
        return drawn

    def _tidy(self, holder: Holder) -> None:
        if not self.held[holder]:
            del self.held[holder]

    def gone(self, holder: Holder) -> None:
        """The incarnation asks nothing more."""
        self.answered.pop(holder, None)

    def expired(self, now: int) -> list[int]:
        """Open draws whose deadline is past."""
        heap = self._deadlines
        while heap and heap[0][0] <= now and not any(number in self.open for number in _numbers(heap[0])):
            heapq.heappop(heap)  # all of them have ended: forgetting the entry changes no answer
        if not heap or heap[0][0] > now:
            return []
        due = sorted(entry for entry in heap if entry[0] <= now)
        return [number for entry in due for number in _numbers(entry) if number in self.open]

    def plain(self) -> dict[str, Any]:
        """As JSON values, without the draws, which are many: `draws` has them."""
        return {
            "generating": [[name, *work] for name, work in self.generating.items()],
            "answered": [
                [*holder, [[request, *answer] for request, answer in of.items()]]
                for holder, of in self.answered.items()
            ],
        }

    def draws(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """Those that are open and those that returned, as rows."""
        return _rows(self.open), _rows(self.returned)

    @classmethod
    def of(cls, plain: dict[str, Any], opened: Iterable[Any], returned: Iterable[Any]) -> Presentations:
        """From `plain` and `draws`."""
        made = cls()
        made.open, made.returned = _drawn(opened), _drawn(returned)
        made.generating = {name: Generating(*work) for name, *work in plain["generating"]}
        for source, incarnation, of in plain["answered"]:
            made.answered[source, incarnation] = {request: Answered(*answer) for request, *answer in of}
        for number, drawn in made.open.items():
            made.held.setdefault((drawn.source, drawn.incarnation), {})[number] = None
            made._deadlines.append((drawn.deadline, number, 1))
        heapq.heapify(made._deadlines)
        return made


def _numbers(entry: tuple[int, int, int]) -> range:
    return range(entry[1], entry[1] + entry[2])


def _rows(draws: dict[int, Drawn]) -> list[tuple[Any, ...]]:
    return [(number, *drawn) for number, drawn in draws.items()]


def _drawn(rows: Iterable[list[Any]]) -> dict[int, Drawn]:
    return {number: Drawn(*drawn) for number, *drawn in rows}
