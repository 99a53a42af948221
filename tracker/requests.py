"""Requests for tasks on their way to an answer: new ones, those that wait for work, those that were told there is none.

Invariants: the same request of the same incarnation gets the same answer, also if that is an empty one; a request waits
for work for at most `PARKED` seconds; a request of an incarnation that is gone or superseded gets no answer; an
incarnation has at most `MAX_OPEN` open requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tracker.leases import Request

PARKED = 0.5
"""Seconds for which a request waits for work before it is told that there is none. Actors repeat theirs after 1 s."""
REMEMBERED = 64
"""Requests of one incarnation that were told so, and are told so again."""

MAX_OPEN = 16
"""Most requests of one incarnation that wait at the same time. An actor has one, and repeats it under its number."""

Asker = tuple[str, str]


class Requests:
    """Those that are to be answered."""

    def __init__(self) -> None:
        self._open: dict[Asker, dict[int, tuple[Request, float | None]]] = {}
        """By (source, incarnation) and number: the request, and since when there is no work for it (monotonic s)."""
        self._empty: dict[Asker, dict[int, None]] = {}

    def add(self, request: Request) -> None:
        """It came, or came again; what it asks for now counts."""
        requests = self._open.setdefault(request[:2], {})
        since = requests.get(request.request, (request, None))[1]
        requests[request.request] = (request, since)
        if len(requests) > MAX_OPEN:
            del requests[next(iter(requests))]

    @property
    def waiting(self) -> bool:
        """Whether one waits for work."""
        return bool(self._open)

    def gone(self, source: str, incarnation: str) -> None:
        """An incarnation will ask nothing more."""
        self._empty.pop((source, incarnation), None)

    def take(
        self, heard: Callable[[Request], bool], answered: Callable[[Request], object]
    ) -> tuple[list[Request], list[Request]]:
        """(to be answered as they were before, to be answered anew). Who is not `heard` gets no answer."""
        known: list[Request] = []
        fresh: list[Request] = []
        for request in [request for requests in self._open.values() for request, _ in requests.values()]:
            if not heard(request):
                self._close(request)
            elif request.request in self._empty.get(request[:2], ()) or answered(request) is not None:
                self._close(request)
                known.append(request)
            else:
                fresh.append(request)
        return known, fresh

    def decided(self, given: Mapping[Request, bool], now: float) -> list[Request]:
        """Some were given work, for others there is none. Those that are to be answered now: with it, or that so."""
        told = []
        for request, work in given.items():
            since = self._open[request[:2]][request.request][1]
            if not work and (since is None or now - since < PARKED):
                self._open[request[:2]][request.request] = (request, now if since is None else since)
                continue
            self._close(request)
            told.append(request)
            if work:
                continue
            empty = self._empty.setdefault(request[:2], {})
            empty[request.request] = None
            if len(empty) > REMEMBERED:
                del empty[next(iter(empty))]
        return told

    def _close(self, request: Request) -> None:
        requests = self._open[request[:2]]
        del requests[request.request]
        if not requests:
            del self._open[request[:2]]
