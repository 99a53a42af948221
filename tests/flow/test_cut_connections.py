"""What a network loses is found out, counted, and said of the right fragments."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from broker.hub import Hub
from broker.hubstate import Arrived
from broker.policy_spoke import PolicySpoke
from broker.reactor import until
from tests.flow.link import Link
from tests.flow.wiring import DEADLINE, Reactors, identity, policy_hub, weights

ARRAYS = {"x": np.zeros(3, np.float32)}


@pytest.fixture
def ends(reactors: Reactors) -> Iterator[tuple[Hub, PolicySpoke, Link]]:
    hub = policy_hub(reactors())
    hub.publish_version("p", (1, 0), weights(0))
    link = Link(int(hub.address.rpartition(":")[2]))
    spoke = PolicySpoke(
        reactors(), identity("actor-0"), "learner-p", f"tcp://127.0.0.1:{link.port}", window=4, policy="p"
    )
    assert spoke.wait_for_version(DEADLINE)
    assert spoke.wait_for_credit(DEADLINE)
    yield hub, spoke, link
    link.close()


def settled(hub: Hub) -> list[int]:
    """Take what came, and settle it."""
    came = [delivery for delivery in hub.take(0.01) if isinstance(delivery, Arrived)]
    for arrived in came:
        hub.settle(arrived.source, arrived.incarnation, arrived.sequence)
    return [arrived.sequence for arrived in came]


def lose_one(spoke: PolicySpoke, link: Link) -> None:
    link.hold()
    time.sleep(0.3)  # a Hello may just be passing
    assert spoke.send_fragment(ARRAYS, version=(1, 0), crc=0, steps=1)
    time.sleep(0.3)
    link.cut()


def test_the_last_one_is_found_missing_though_the_window_is_open(ends: tuple[Hub, PolicySpoke, Link]) -> None:
    hub, spoke, link = ends
    lose_one(spoke, link)
    assert until(lambda: not settled(hub) and spoke.fate(1) == "lost", DEADLINE)
    assert spoke.open_for_more
    assert hub.counts()["lost"] == 1
    assert spoke.send_fragment(ARRAYS, version=(1, 0), crc=0, steps=1)
    assert until(lambda: settled(hub) or spoke.fate(2) == "settled", DEADLINE)
    assert until(lambda: spoke.fate(2) == "settled", DEADLINE)
    assert spoke.fate(1) == "lost"


def test_one_that_later_ones_overtook_is_not_taken_for_delivered(ends: tuple[Hub, PolicySpoke, Link]) -> None:
    hub, spoke, link = ends
    lose_one(spoke, link)
    for _ in range(2):
        assert spoke.send_fragment(ARRAYS, version=(1, 0), crc=0, steps=1)
    came: list[int] = []
    assert until(lambda: came.extend(settled(hub)) or spoke.flushed(0.01), DEADLINE)
    assert came == [2, 3]
    assert hub.counts()["lost"] == 1
    assert spoke.fate(1) == "lost"
    assert spoke.send_fragment(ARRAYS, version=(1, 0), crc=0, steps=1)
    assert until(lambda: settled(hub) == [] and spoke.fate(4) == "settled", DEADLINE)
