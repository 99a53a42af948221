"""The drawn tasks of an actor that steps environments: asked for ahead, taken one an episode, and what came of each.

Invariant: of each task that was taken one fact is said, `outcome` or `rollout_error`. The stock is small: a draw ends
with its lease, and what was drawn long ago is no longer what teaches.
"""

from __future__ import annotations

import json
import time
from collections import deque

from actors.asking import Asking
from actors.curriculum.drawn import DrawnTask
from actors.curriculum.patience import Patience
from actors.curriculum.workshop import Workshop
from broker import messages as m
from broker.delivery import shortened
from broker.station import Station


class Desk:
    """Keeps `ahead` drawn tasks in stock, besides as many as copies of the environment want one now."""

    def __init__(self, station: Station, workshop: Workshop, ahead: int) -> None:
        self._station, self._workshop, self._ahead = station, workshop, max(1, ahead)
        self._stock: deque[DrawnTask] = deque()
        self._asking = Asking(station.tracker)
        self._patience = Patience(station, workshop)
        self.played = 0

    @property
    def stock(self) -> int:
        """Tasks that can be taken now."""
        return len(self._stock)

    def tend(self, wanted: int = 0) -> None:
        """Ask, take answers, settle generation work. `wanted` copies have no task. Never waits for an answer.

        RequestError: the source of the run file is wrong.
        """
        self._workshop.settle()
        now = time.monotonic()
        while self._stock and self._stock[0].until <= now:
            self._stock.popleft()  # its draw has returned; what is drawn now is worth more
        if self._asking.open:
            for answer in self._station.tracker.take_assignments():
                self._take_in(answer, now)
        room = self._ahead + wanted - len(self._stock)
        if self._asking.open:
            self._asking.repeat(room, now, offers=self._workshop.idle)
        elif room > 0 and 2 * room >= self._ahead:
            self._asking.ask(room, now, offers=self._workshop.idle)

    def take(self) -> DrawnTask | None:
        """The next task, if there is one."""
        if not self._stock:
            return None
        self._patience.something()
        return self._stock.popleft()

    def hungry(self) -> bool:
        """Tend while nothing can be played; True while that is so. Ends the run when it has lasted too long."""
        self.tend(self._ahead)
        if self._stock:
            return False
        self._patience.nothing()
        return True

    def outcome(self, drawn: DrawnTask, score: float) -> None:
        """The task was played to its end. A score that is no number from 0 to 1 is the tracker's to refuse."""
        self.played += 1
        self._station.fact("outcome", {"task": drawn.task, "score": score, "draw": drawn.draw, "label": drawn.label})

    def failed(self, drawn: DrawnTask, traceback: str, *, permanent: bool) -> None:
        """The task could not be played: not a low score."""
        body = {"task": drawn.task, "traceback": shortened(traceback), "permanent": permanent, "draw": drawn.draw}
        self._station.fact("rollout_error", {**body, "label": drawn.label})

    def _take_in(self, answer: m.Assignment, now: float) -> None:
        if not self._asking.answered(answer):
            return
        until = now + answer.seconds
        for leased in answer.tasks:
            if leased.generate:
                self._workshop.begin(leased)
            elif leased.draw is not None:
                body = json.loads(leased.body)
                self._stock.append(DrawnTask(leased.task, leased.label or "", leased.draw, body, until))
