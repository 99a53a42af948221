"""Versions and fragments over real sockets between a hub and its spokes: flow, catch-up, presence, binding, ending."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from broker import delivery
from broker import messages as m
from broker.errors import RequestError, RunError
from broker.hub import Hub
from broker.hubstate import Arrived
from broker.names import new_token
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor, until
from broker.standings import Feed
from broker.tracker_spoke import TrackerSpoke
from tests.flow.wiring import (
    DEADLINE,
    TOKEN,
    Reactors,
    fragments,
    identity,
    policy_hub,
    send,
    spoke_to,
    weights,
)


def test_a_late_joiner_catches_up_and_then_follows(reactors: Reactors, address: str) -> None:
    hub = policy_hub(reactors(), address)
    for number in range(1, 6):
        crc = hub.publish_version("p", (1, number), weights(number))
    spoke = spoke_to(reactors(), hub)
    assert (
        spoke.wait_for_version(DEADLINE) is not None
    )  # on a busy machine one that is just leaving, and the newest after
    assert until(lambda: spoke.newest().version == (1, 5), DEADLINE)  # type: ignore[union-attr]
    found = spoke.newest()
    assert found is not None
    assert found.crc == crc
    assert found.tree["w"].tolist() == weights(5)["w"].tolist()
    assert spoke.newest((1, 5)) is None
    hub.publish_version("p", (2, 6), weights(6))
    assert until(lambda: spoke.newest((1, 5)) is not None, DEADLINE)
    assert spoke.newest((1, 5)).version == (2, 6)  # type: ignore[union-attr]


def test_a_burst_of_versions_ends_at_the_newest_and_never_goes_back(reactors: Reactors) -> None:
    hub, spokes_on = policy_hub(reactors()), reactors()
    spokes = [spoke_to(spokes_on, hub, f"actor-{n}") for n in range(4)]
    seen: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def look() -> bool:
        for spoke in spokes:
            mine = seen[spoke.identity.name]
            newest = spoke.newest(mine[-1] if mine else None)
            if newest is not None:
                mine.append(newest.version)
        return all(mine and mine[-1] == (1, 60) for mine in seen.values())

    for number in range(1, 61):
        hub.publish_version("p", (1, number), {"w": np.zeros(100_000, np.float32)})
        look()
    assert until(look, DEADLINE)
    assert all(mine == sorted(set(mine)) for mine in seen.values())


def test_tight_windows_bound_the_queue_and_lose_nothing(reactors: Reactors, address: str) -> None:
    hub, spokes_on = policy_hub(reactors(), address), reactors()
    spokes = [spoke_to(spokes_on, hub, f"actor-{n}", window=n + 1) for n in range(3)]
    each = 40

    def produce(spoke: PolicySpoke) -> None:
        for number in range(each):
            assert spoke.wait_for_credit(DEADLINE)
            assert send(spoke, number)

    producers = [threading.Thread(target=produce, args=(spoke,)) for spoke in spokes]
    for producer in producers:
        producer.start()
    used: dict[str, list[int]] = defaultdict(list)
    waiting: list[Arrived] = []

    def consume() -> bool:
        waiting.extend(item for item in hub.take(0.01) if isinstance(item, Arrived))
        for spoke in spokes:
            assert sum(one.source == spoke.identity.name for one in waiting) <= spoke._window.window
        if waiting:
            oldest = waiting.pop(0)
            used[oldest.source].append(int(oldest.arrays["n"][0]))
            hub.settle(oldest.source, oldest.incarnation, oldest.sequence)
        return sum(map(len, used.values())) == each * len(spokes)

    assert until(consume, DEADLINE, step=0)
    assert all(numbers == list(range(each)) for numbers in used.values())
    assert all(spoke.flushed(DEADLINE) for spoke in spokes)
    assert hub.counts()["lost"] == 0
    for producer in producers:
        producer.join(DEADLINE)


def test_a_learner_that_restarts_opens_the_window_and_every_fragment_is_accounted_for(reactors: Reactors) -> None:
    first_on = reactors()
    first = policy_hub(first_on)
    spoke = spoke_to(reactors(), first, window=3)
    assert spoke.wait_for_credit(DEADLINE)
    for number in range(3):
        assert send(spoke, number)
    assert not send(spoke, 3), "no credit"
    assert until(lambda: first.queued >= 4, DEADLINE)
    first_on.close()  # it dies with its queue
    second = policy_hub(reactors(), first.address)
    assert spoke.wait_for_credit(DEADLINE)
    assert spoke.take_dropped() == 1 + 3, "the one without credit, and those that the dead hub had"
    assert send(spoke, 4)
    arrived: list[Arrived] = []
    assert until(lambda: bool(fragments(second, arrived)), DEADLINE)
    assert [(one.sequence, int(one.arrays["n"][0])) for one in arrived] == [(1, 4)]


def test_a_spoke_follows_its_hub_to_another_address(reactors: Reactors) -> None:
    first_on = reactors()
    spoke = spoke_to(reactors(), policy_hub(first_on))
    assert spoke.wait_for_credit(DEADLINE)
    first_on.close()
    second = policy_hub(reactors())
    spoke.redirect(second.address)
    assert until(lambda: spoke.incarnation == second.identity.incarnation and spoke.open_for_more, DEADLINE)
    assert send(spoke, 1)
    assert until(lambda: any(isinstance(item, Arrived) for item in second.take(0.05)), DEADLINE)


def test_a_superseded_spoke_learns_of_it_and_is_not_heard(reactors: Reactors) -> None:
    hub = policy_hub(reactors())
    old = spoke_to(reactors(), hub)
    assert old.wait_for_credit(DEADLINE)
    new = spoke_to(reactors(), hub)
    assert new.wait_for_credit(DEADLINE)
    assert until(lambda: old.superseded, DEADLINE)
    assert not new.superseded
    send(old, 1)
    assert send(new, 2)
    arrived: list[Arrived] = []
    assert until(lambda: bool(fragments(hub, arrived)), DEADLINE)
    assert [(one.incarnation, int(one.arrays["n"][0])) for one in arrived] == [(new.identity.incarnation, 2)]


def test_a_spoke_sees_its_hub_fall_silent_and_come_back(reactors: Reactors) -> None:
    first_on = reactors()
    first = policy_hub(first_on)
    spoke = spoke_to(reactors(), first)
    assert until(lambda: spoke.hub_life == "alive", DEADLINE)
    first_on.close()
    assert until(lambda: spoke.hub_life == "suspect", DEADLINE)
    second = policy_hub(reactors(), first.address)
    assert until(lambda: spoke.hub_life == "alive", DEADLINE)
    assert spoke.incarnation == second.identity.incarnation


def test_the_phase_and_its_reason_reach_everyone(reactors: Reactors) -> None:
    hub, spokes_on = policy_hub(reactors()), reactors()
    spokes = [spoke_to(spokes_on, hub, f"actor-{n}") for n in range(3)]
    hub.set_phase("stopping", "the budget is used up")
    assert until(lambda: all((s.phase, s.reason) == ("stopping", "the budget is used up") for s in spokes), DEADLINE)


def test_a_port_in_use_is_a_request_error_that_names_the_mend(reactors: Reactors) -> None:
    first = policy_hub(reactors())
    with pytest.raises(RequestError, match="choose another, or end the process that holds it"):
        policy_hub(reactors(), first.address)


def test_an_open_interface_is_refused_unless_it_is_called_insecure(reactors: Reactors) -> None:
    with pytest.raises(RequestError, match="insecure = true"):
        policy_hub(reactors(), "tcp://0.0.0.0:0")
    assert policy_hub(reactors(), "tcp://0.0.0.0:0", insecure=True).address.startswith("tcp://0.0.0.0:")


def test_a_folder_that_cannot_be_made_is_a_request_error(reactors: Reactors, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="choose another"):
        policy_hub(reactors(), f"ipc://{tmp_path}/file/h")


def test_a_reactor_ends_though_nobody_listens_and_much_is_unsent() -> None:
    reactor = Reactor()
    lonely = TrackerSpoke(reactor, identity("actor-0"), "actor", "tcp://127.0.0.1:9")
    for _ in range(100):
        lonely.fact("n", {"x": "y" * 10_000})
    lonely.say(m.Status(doing="waiting"))
    assert not lonely.farewell("bye", 0.05)
    ender = threading.Thread(target=reactor.close, args=(DEADLINE,), daemon=True)
    ender.start()
    ender.join(DEADLINE)
    assert not ender.is_alive()
    assert reactor.context.closed
    lonely.say(m.Status())  # a late word hurts nobody


def test_what_breaks_the_reactor_is_kept_and_nothing_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_FACTS", 1)
    reactor = Reactor()
    spoke = TrackerSpoke(reactor, identity("actor-0"), "actor", "tcp://127.0.0.1:9")
    monkeypatch.setattr(spoke, "on_tick", lambda now: 1 / 0)
    reactor.wake()
    assert until(lambda: isinstance(reactor.failure, ZeroDivisionError), DEADLINE)
    spoke.fact("n", {})
    with pytest.raises(RunError, match="sockets failed"):
        spoke.fact("n", {})
    reactor.close()


def test_a_feed_reads_the_newest_standings_and_says_nothing(reactors: Reactors) -> None:
    hub = Hub(reactors(), identity("tracker"), "tcp://127.0.0.1:0")
    feed = Feed(hub.address, TOKEN)
    stranger = Feed(hub.address, new_token())
    number = 0

    def published() -> bool:
        nonlocal number
        number += 1
        hub.publish("standings", m.Standings(), json.dumps({"n": number}).encode())
        return feed.next(0.05) is not None

    assert until(published, DEADLINE)
    assert stranger.next(0.1) is None
    assert hub.present() == {}
    feed.close()
    stranger.close()
