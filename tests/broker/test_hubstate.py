from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import hubstate
from broker import messages as m
from broker.arrays import pack
from broker.errors import WireError
from broker.hubstate import PULSE_APART, PULSE_EVERY, Arrived, FactsArrived, HubState, Said
from broker.liveness import Event, Liveness
from broker.wire import Envelope
from tests.broker.draws import incarnation, quick

HUB, OTHER_HUB = incarnation(100), incarnation(99)
OLD, NEW = incarnation(1), incarnation(2)
LAYOUT, ONE = pack({"x": np.arange(4, dtype=np.float32)})
FACT = (1, "kind", "{}")


def fresh(**more: Any) -> HubState:
    return HubState(HUB, Liveness(3, 10), **more)


def says(
    state: HubState,
    message: m.Message,
    *,
    name: str = "a",
    age: str = OLD,
    payload: bytes = b"",
    now: float = 0.0,
    hub: str | None = HUB,
) -> list[Any]:
    return state.handle(Envelope(name, age, message, payload, hub=hub), now)


def hello(
    state: HubState, name: str = "a", age: str = OLD, now: float = 0.0, hub: str | None = HUB, **more: Any
) -> list[Any]:
    return says(state, m.Hello(role="actor", pid=1, **more), name=name, age=age, now=now, hub=hub)


def fragments(*sequences: int, define: bool = True) -> m.Fragments:
    items = tuple(m.FragmentItem(sequence=n, version=(1, 1), crc=0, steps=4) for n in sequences)
    return m.Fragments(layout=LAYOUT.digest, define=LAYOUT.plain if define else None, items=items)


def sends(state: HubState, *sequences: int, age: str = OLD, hub: str = HUB, **more: Any) -> list[Any]:
    return says(state, fragments(*sequences, **more), age=age, payload=bytes(ONE) * len(sequences), hub=hub)


def pulse_to(state: HubState, name: str = "a", now: float = 1000.0) -> m.SpokeCounters:
    counters = dict(state.pulses(now))[name].spoke
    assert counters is not None
    return counters


def test_a_hello_is_delivered_with_its_events_and_answered_in_the_pulse() -> None:
    state = fresh()
    alive, said = hello(state)
    assert alive == Event("a", OLD, "alive")
    assert isinstance(said, Said)
    assert said.message.pid == 1
    counters = pulse_to(state)
    assert (counters.incarnation, counters.settled, counters.received, counters.durable) == (OLD, 0, 0, 0)


def test_fragments_arrive_in_order_with_their_arrays_and_are_settled_by_the_role() -> None:
    state = fresh()
    hello(state)
    arrived = sends(state, 1, 2)
    assert [(type(one), one.sequence, one.version, one.steps) for one in arrived] == [
        (Arrived, 1, (1, 1), 4),
        (Arrived, 2, (1, 1), 4),
    ]
    assert all(one.arrays["x"].tolist() == [0, 1, 2, 3] for one in arrived)
    assert pulse_to(state).settled == 0
    state.settle("a", NEW, 2)
    assert pulse_to(state, now=1001).settled == 0, "another incarnation's"
    state.settle("a", OLD, 1)
    assert pulse_to(state, now=1002).settled == 1


def test_each_fragment_may_bring_a_frame_of_its_own() -> None:
    state = fresh()
    hello(state)
    frames = [bytes(pack({"x": np.full(4, n, np.float32)})[1]) for n in (1, 2, 3)]
    arrived = state.handle(Envelope("a", OLD, fragments(1, 2, 3), frames[0], tuple(frames[1:]), HUB), 0.0)
    assert [(one.sequence, one.arrays["x"].tolist()) for one in arrived if isinstance(one, Arrived)] == [
        (n, [n] * 4) for n in (1, 2, 3)
    ]
    with pytest.raises(WireError, match="size"):  # one frame is short: the message is refused as a whole
        state.handle(Envelope("a", OLD, fragments(4, 5), frames[0], (frames[1][:-64],), HUB), 0.0)
    assert [one.sequence for one in sends(state, 6)] == [6]
    assert state.lost() == 2


def test_a_layout_is_inline_until_the_pulse_names_it() -> None:
    state = fresh()
    hello(state)
    assert sends(state, 1, define=False) == []
    assert state.dropped == {"unknown layout": 1}
    counters = pulse_to(state)
    assert (counters.settled, counters.layouts) == (1, ())
    assert len(sends(state, 2)) == 1
    assert pulse_to(state, now=1001).layouts == (LAYOUT.digest,)
    assert len(sends(state, 3, define=False)) == 1


def test_an_unknown_layout_does_not_settle_what_still_waits() -> None:
    state = fresh()
    hello(state)
    sends(state, 1)
    state.spokes["a"].layouts.clear()
    sends(state, 2, define=False)
    assert pulse_to(state).settled == 0
    state.settle("a", OLD, 1)
    assert pulse_to(state, now=1001).settled == 2


def test_layouts_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubstate, "MAX_LAYOUTS", 2)
    state = fresh()
    hello(state)
    digests = []
    for size in (1, 2, 3):
        layout, payload = pack([np.zeros(size)])
        item = m.FragmentItem(sequence=size, version=(1, 1), crc=0, steps=1)
        says(state, m.Fragments(layout=layout.digest, define=layout.plain, items=(item,)), payload=payload)
        digests.append(layout.digest)
    assert pulse_to(state).layouts == tuple(digests[1:])


@pytest.mark.parametrize("length", [0, ONE.nbytes - 1, ONE.nbytes + 64])
def test_a_payload_of_the_wrong_size_is_refused_and_its_sequence_lost_later(length: int) -> None:
    state = fresh()
    hello(state)
    with pytest.raises(WireError, match="size"):
        says(state, fragments(1), payload=bytes(length))
    assert len(sends(state, 2)) == 1
    assert state.lost() == 1


def test_a_layout_under_another_name_is_refused() -> None:
    state = fresh()
    hello(state)
    wrong = fragments(1).model_copy(update={"layout": "0" * 32})
    with pytest.raises(WireError, match="layout"):
        says(state, wrong, payload=bytes(ONE))
    with pytest.raises(WireError):
        says(state, fragments(1).model_copy(update={"define": {"hostile": 1}}), payload=bytes(ONE))


def test_fragments_for_another_hub_are_dropped_and_counted() -> None:
    state = fresh()
    hello(state)
    assert sends(state, 7, 8, hub=OTHER_HUB) == []
    assert state.dropped == {"another hub": 2}
    assert state.lost() == 0
    assert len(sends(state, 1)) == 1


@pytest.mark.parametrize("hub", [None, OTHER_HUB])
def test_what_addresses_another_hub_only_introduces(hub: str | None) -> None:
    state = fresh()
    assert hello(state, hub=hub)[0] == Event("a", OLD, "alive")
    assert [event.change for event in state.liveness.tick(4)] == ["suspect"]
    pulse_to(state)
    assert hello(state, hub=hub, now=5) == []
    assert pulse_to(state, now=1001).incarnation == OLD, "it is answered, so that it may learn where it is"
    for message in (m.Facts(first=1, items=(FACT,)), m.Status(), m.Farewell()):
        assert says(state, message, hub=hub, now=5) == []
    assert state.dropped == {"another hub": 3}
    assert state.liveness.peers["a"].state == "suspect"
    assert hello(state, hub=HUB, now=5)[0] == Event("a", OLD, "returned")
    assert hello(state, age=NEW, hub=hub, now=6)[:2] == [Event("a", OLD, "superseded"), Event("a", NEW, "alive")]


def test_a_replay_is_counted_and_not_delivered() -> None:
    state = fresh()
    hello(state)
    sends(state, 1)
    assert [one.sequence for one in sends(state, 1, 2)] == [2]
    assert state.dropped == {"replayed": 1}


def test_a_blocked_hello_settles_what_was_lost_for_this_hub_only() -> None:
    state = fresh()
    hello(state)
    hello(state, hub=OTHER_HUB, blocked=True, sent_through=3)
    hello(state, hub=HUB, blocked=False, sent_through=3)
    assert pulse_to(state).settled == 0
    hello(state, hub=HUB, blocked=True, sent_through=3)
    counters = pulse_to(state, now=1001)
    assert (counters.settled, counters.lost) == (3, 3)


def test_who_never_said_hello_is_not_listened_to_and_is_counted() -> None:
    state = fresh()
    assert sends(state, 1) == []
    assert says(state, m.Status()) == []
    assert state.dropped == {"unannounced": 2}
    assert "a" not in dict(state.pulses(1000.0))


def test_a_superseded_incarnation_is_counted_and_told() -> None:
    state = fresh()
    hello(state)
    sends(state, 3)
    assert hello(state, age=NEW)[:2] == [Event("a", OLD, "superseded"), Event("a", NEW, "alive")]
    state.pulses(1000.0)
    assert sends(state, 4) == []
    assert hello(state) == []
    assert state.dropped == {"superseded": 2}
    assert pulse_to(state, now=1000.1).incarnation == NEW, "its next word is answered with who holds the name"
    assert [one.sequence for one in sends(state, 1, age=NEW)] == [1], "sequences begin anew"
    assert state.lost() == 2, "what the older one lost stays counted"


def facts(first: int, count: int = 1) -> m.Facts:
    return m.Facts(first=first, items=(FACT,) * count)


def test_facts_flow_from_who_said_hello_superseded_or_not() -> None:
    state = fresh(last_sequence=lambda name, age: 2 if (name, age) == ("a", OLD) else 0)
    assert says(state, facts(3)) == [], "nobody yet"
    hello(state)
    hello(state, age=NEW)
    assert says(state, facts(2, 2)) == [FactsArrived("a", OLD, 3, (FACT,))]
    assert says(state, facts(5)) == []
    assert says(state, facts(1), age=NEW) == [FactsArrived("a", NEW, 1, (FACT,))]
    assert says(state, facts(1), age=incarnation(3)) == [], "known by name is not known"
    assert state.dropped == {"unannounced": 2}
    assert state.duplicates == 1
    counters = pulse_to(state)
    assert (counters.received, counters.durable) == (1, 0)
    state.durable("a", NEW, 1)
    state.durable("b", NEW, 7)
    assert pulse_to(state, now=1001).durable == 1


def test_a_spoke_that_reconnects_reads_what_the_ledger_has() -> None:
    state = fresh(last_sequence=lambda _name, _age: 9)
    hello(state)
    counters = pulse_to(state)
    assert (counters.received, counters.durable) == (9, 9)


def test_a_flood_of_identities_without_a_hello_leaves_nothing() -> None:
    asked: list[str] = []

    def last_sequence(name: str, _age: str) -> int:
        asked.append(name)
        return 0

    state = fresh(last_sequence=last_sequence)
    hello(state)
    for n in range(10, 2000):
        says(state, facts(1), name=f"x{n}")
        says(state, facts(1), age=incarnation(n))
        says(state, m.Status(), name=f"x{n}")
    assert (asked, list(state.spokes), list(state.liveness.peers), state._superseded) == (["a"], ["a"], ["a"], {})
    assert state._changed == {"a"}


def test_superseded_incarnations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubstate, "MAX_SUPERSEDED", 2)
    state = fresh()
    for n in (1, 2, 3):
        hello(state, age=incarnation(n))
        says(state, facts(1), age=incarnation(n))
    with pytest.raises(WireError, match="crowded"):  # what it holds is not on disk, and nobody else would know of it
        hello(state, age=incarnation(4))
    assert state.liveness.holds("a", incarnation(3))
    state.durable("a", incarnation(1), 1)
    hello(state, age=incarnation(4))
    assert says(state, facts(2), age=incarnation(1)) == [], "forgotten, and not begun again"
    assert says(state, facts(2), age=incarnation(2)) == [FactsArrived("a", incarnation(2), 2, (FACT,))]


def test_a_farewell_ends_the_pulses_and_a_hello_brings_them_back() -> None:
    state = fresh()
    hello(state)
    left, said = says(state, m.Farewell(reason="done"))
    assert left == Event("a", OLD, "left")
    assert said.message.reason == "done"
    state.pulses(1000.0)
    assert "a" not in dict(state.pulses(2000.0))
    assert hello(state)[0] == Event("a", OLD, "returned")
    assert "a" in dict(state.pulses(3000.0))


def test_a_return_is_told_even_if_the_message_that_showed_it_was_false() -> None:
    state = fresh()
    hello(state)
    assert [event.change for event in state.liveness.tick(10.0)] == ["lost"]
    with pytest.raises(WireError):
        says(state, fragments(1), payload=b"", now=11.0)
    assert hello(state, now=12.0)[0] == Event("a", OLD, "returned")


def test_a_name_that_ended_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubstate, "MAX_NAMES", 2)
    ledger = {("a", OLD): 0}
    state = fresh(last_sequence=lambda name, age: ledger.get((name, age), 0))
    hello(state, "a")
    hello(state, "b")
    with pytest.raises(WireError, match="crowded"):
        hello(state, "c")
    assert hello(state, "a", NEW), "who is known may come back"
    sends(state, 2, age=NEW)
    says(state, facts(1), age=NEW)
    says(state, m.Farewell(), age=NEW)
    with pytest.raises(WireError, match="crowded"):  # its fact is not on disk
        hello(state, "c")
    ledger["a", NEW] = 1
    state.durable("a", NEW, 1)
    assert hello(state, "c")[:2] == [Event("a", NEW, "forgotten"), Event("c", OLD, "alive")]
    assert state.lost() == 1, "what it lost stays counted"
    says(state, m.Farewell(), name="b")
    hello(state, "a", NEW)
    assert says(state, facts(1, 2), age=NEW) == [FactsArrived("a", NEW, 2, (FACT,))], "the ledger knows it"


def test_an_offer_is_shown_to_its_spoke() -> None:
    state = fresh()
    hello(state)
    state.offer("a", 3, 7, "fetching")
    state.offer("nobody", 1, 1, "durable")
    counters = pulse_to(state)
    assert (counters.offer, counters.chunks, counters.offer_state) == (3, 7, "fetching")


def test_what_concerns_all_goes_to_all_and_counters_to_their_own() -> None:
    state = fresh()
    hello(state, "a")
    hello(state, "b")
    state.pulses(10.0)
    state.set_phase("running", "because")
    state.set_version((1, 4), 77)
    ((recipient, pulse),) = state.pulses(10.1)
    assert recipient == "all"
    assert (pulse.phase, pulse.reason, pulse.version, pulse.crc, pulse.spoke) == (
        "running",
        "because",
        (1, 4),
        77,
        None,
    )
    sends(state, 1)
    state.settle("a", OLD, 1)
    ((recipient, pulse),) = state.pulses(10.2)
    assert recipient == "a"
    assert pulse.spoke is not None
    assert pulse.spoke.settled == 1


def test_a_phase_that_did_not_change_is_not_news() -> None:
    state = fresh()
    state.pulses(10.0)
    state.set_phase("starting")
    assert state.pulses(10.1) == []


@quick
@given(st.lists(st.tuples(st.floats(0, 0.4), st.booleans()), max_size=80))
def test_the_cadence_of_pulses(script: list[tuple[float, bool]]) -> None:
    """Never two within `PULSE_APART`; changes within it of being allowed; all and every spoke at least every 250 ms."""
    state, now = fresh(), 100.0
    hello(state, now=now)
    heard = {"all": now, "a": now}
    last = -1.0
    changed = True
    for wait, change in script:
        end = now + wait
        while state.pulse_due() <= end:  # the shell ticks when it is due
            now = max(now, state.pulse_due())
            out = dict(state.pulses(now))
            assert out or not changed
            assert now - last >= PULSE_APART - 1e-9
            last, changed = now, False
            for name in out:
                assert now - heard[name] <= PULSE_EVERY + PULSE_APART + 1e-9
                heard[name] = now
        now = end
        assert all(now - at <= PULSE_EVERY + PULSE_APART + 1e-9 for at in heard.values())
        state.liveness.heard("a", OLD, now, hello=False)
        if change:
            hello(state, now=now)
            changed = True
            assert state.pulse_due() <= max(now, last + PULSE_APART) + 1e-9


def test_every_wrong_moment_gives_no_pulse() -> None:
    state = fresh()
    assert state.pulses(0.0)
    assert state.pulses(PULSE_APART / 2) == []
    state.set_version((1, 1), 0)
    assert state.pulses(PULSE_APART / 2) == []
    assert state.pulses(PULSE_APART)
    assert state.pulses(0.2) == []
    assert state.pulses(0.25)


def test_no_spoke_is_silent_while_the_hub_is_away() -> None:
    state = fresh()
    hello(state, now=100.0)
    assert state.silent(100.1) == []
    assert state.silent(120.0) == [], "it was stopped, or read nothing: what was said meanwhile waits"
    looks = [state.silent(120.0 + 0.25 * step) for step in range(1, 41)]
    assert [event.change for events in looks for event in events] == ["suspect", "lost"]
