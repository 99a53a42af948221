"""Requests between their coming and their answer."""

from __future__ import annotations

from tests.tracker import bodies as b
from tracker.leases import Request
from tracker.requests import PARKED, REMEMBERED, Requests

ASK = Request("actor-0", b.ONE, 1, 2)


def turn(requests: Requests, now: float, work: set[int] = frozenset(), answered: set[int] = frozenset()) -> list[int]:  # type: ignore[assignment]
    """One decision: there is work for these numbers, and those were answered before. The numbers answered by it."""
    known, fresh = requests.take(lambda request: True, lambda request: True if request.request in answered else None)
    told = requests.decided({request: request.request in work for request in fresh}, now)
    return [request.request for request in [*known, *told]]


def test_it_waits_for_work_and_then_is_told_that_there_is_none() -> None:
    requests = Requests()
    requests.add(ASK)
    assert requests.waiting
    assert turn(requests, 10.0) == turn(requests, 10.0 + 0.9 * PARKED) == []
    assert turn(requests, 10.0 + PARKED) == [1]
    assert not requests.waiting
    requests.add(ASK)  # its answer was lost
    assert turn(requests, 20.0, work={1}) == [1], "as it was answered"
    requests.add(ASK._replace(request=2))
    assert turn(requests, 20.0, work={2}) == [2]
    assert not requests.waiting


def test_said_again_it_waits_no_longer_and_asks_for_what_it_asks_now() -> None:
    requests = Requests()
    requests.add(ASK)
    assert turn(requests, 0.0) == []
    requests.add(ASK._replace(most=9))
    _, (fresh,) = requests.take(lambda _: True, lambda _: None)
    assert fresh.most == 9
    assert requests.decided({fresh: False}, PARKED) == [fresh]


def test_what_was_answered_is_answered_again_at_once() -> None:
    requests = Requests()
    requests.add(ASK)
    assert turn(requests, 0.0, answered={1}) == [1]
    assert not requests.waiting


def test_who_is_not_there_has_no_answer() -> None:
    requests = Requests()
    requests.add(ASK)
    requests.add(ASK._replace(source="actor-1"))
    known, fresh = requests.take(lambda request: request.source == "actor-1", lambda _: None)
    assert (known, [request.source for request in fresh]) == ([], ["actor-1"])
    requests.decided({fresh[0]: True}, 0.0)
    assert not requests.waiting


def test_what_is_remembered_is_bounded_and_forgotten_with_the_incarnation() -> None:
    requests = Requests()
    for number in range(REMEMBERED + 5):
        requests.add(ASK._replace(request=number))
        assert turn(requests, number) == []
        assert turn(requests, number + PARKED) == [number]
    for number, told in ((0, []), (5, [5])):
        requests.add(ASK._replace(request=number))
        assert turn(requests, 1000.0) == told
    requests.gone("actor-0", b.ONE)
    requests.add(ASK._replace(request=REMEMBERED + 4))
    assert REMEMBERED + 4 not in turn(requests, 1000.0)
