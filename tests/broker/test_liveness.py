from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.liveness import Event, Liveness
from tests.broker.draws import incarnation, quick

OLD, NEW = incarnation(1), incarnation(2)


def changes(events: list[Event]) -> list[str]:
    return [event.change for event in events]


def test_silence_makes_suspect_then_lost_and_a_word_makes_alive_again() -> None:
    live = Liveness(3, 10)
    assert changes(live.heard("a", OLD, 0, hello=True)) == ["alive"]
    assert live.tick(2.9) == []
    assert changes(live.tick(3)) == ["suspect"]
    assert live.tick(4) == []
    assert changes(live.heard("a", OLD, 5, hello=False)) == ["returned"]
    assert live.heard("a", OLD, 5, hello=False) == []
    assert changes(live.tick(8)) == ["suspect"]
    assert changes(live.tick(15)) == ["lost"]
    assert live.tick(100) == []
    assert changes(live.heard("a", OLD, 101, hello=False)) == ["returned"]
    assert live.peers["a"].state == "alive"


def test_a_long_silence_is_lost_at_once() -> None:
    live = Liveness(3, 10)
    live.heard("a", OLD, 0, hello=True)
    assert changes(live.tick(11)) == ["lost"]


def test_only_a_hello_introduces() -> None:
    live = Liveness()
    assert live.heard("a", OLD, 0, hello=False) == []
    assert not live.holds("a", OLD)
    live.heard("a", OLD, 0, hello=True)
    assert live.heard("a", NEW, 1, hello=False) == []
    assert live.holds("a", OLD)


def test_a_newer_incarnation_supersedes_and_the_older_is_never_heard_again() -> None:
    live = Liveness()
    live.heard("a", OLD, 0, hello=True)
    assert live.heard("a", NEW, 1, hello=True) == [Event("a", OLD, "superseded"), Event("a", NEW, "alive")]
    assert live.heard("a", OLD, 2, hello=True) == []
    assert live.holds("a", NEW)
    assert live.peers["a"].heard == 1


def test_who_left_is_not_missed_and_comes_back_only_with_a_hello() -> None:
    live = Liveness(3, 10)
    live.heard("a", OLD, 0, hello=True)
    assert live.farewell("a", NEW) == []
    assert changes(live.farewell("a", OLD)) == ["left"]
    assert live.farewell("a", OLD) == []
    assert live.tick(100) == []
    assert live.heard("a", OLD, 101, hello=False) == []
    assert changes(live.heard("a", OLD, 102, hello=True)) == ["returned"]


@pytest.mark.parametrize(("suspect", "lost"), [(0, 1), (2, 1), (1, 1)])
def test_the_times_must_make_sense(suspect: float, lost: float) -> None:
    with pytest.raises(ValueError, match="suspect_after"):
        Liveness(suspect, lost)


moves = st.tuples(
    st.sampled_from(["hello", "word", "farewell", "tick"]), st.sampled_from("ab"), st.integers(1, 3), st.floats(0, 6)
)


@quick
@given(st.lists(moves, max_size=60))
def test_the_events_tell_the_whole_state(script: list[tuple[str, str, int, float]]) -> None:
    """A fold over the events knows the holder and the state of every name."""
    live, now = Liveness(3, 10), 0.0
    holder: dict[str, str] = {}
    state: dict[str, str] = {}
    for move, name, age, seconds in script:
        now += seconds
        if move == "tick":
            events = live.tick(now)
        elif move == "farewell":
            events = live.farewell(name, incarnation(age))
        else:
            events = live.heard(name, incarnation(age), now, hello=move == "hello")
        for event in events:
            if event.change == "superseded":
                assert holder[event.name] == event.incarnation
                continue
            if event.change == "alive":
                assert event.incarnation > holder.get(event.name, "")
                holder[event.name] = event.incarnation
            assert holder[event.name] == event.incarnation
            state[event.name] = "alive" if event.change == "returned" else event.change
        for known, peer in live.peers.items():
            assert holder[known] == peer.incarnation
            assert state[known] == peer.state
