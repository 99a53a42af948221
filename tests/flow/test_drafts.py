"""Fragments that are filled in the buffer they leave in, over real sockets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from broker.arrays import draft
from broker.hub import Hub
from broker.hubstate import Arrived
from broker.names import new_incarnation, new_token
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor, until
from broker.sending import OWNED, ZERO_COPY, fresh
from broker.wire import Identity

DEADLINE = 30.0
COUNT = 40


@pytest.mark.parametrize("size", [ZERO_COPY // 4, ZERO_COPY, 4 * ZERO_COPY, 2 * OWNED])
def test_what_was_drafted_arrives_as_it_was_whatever_the_memory_it_was_made_in(size: int, tmp_path: Path) -> None:
    token, address = new_token(), f"ipc://{tmp_path}/hub"
    hub_reactor, spoke_reactor = Reactor("hub"), Reactor("spoke")
    try:
        hub = Hub(hub_reactor, Identity(token, "learner-p", new_incarnation()), address)
        me = Identity(token, "actor-0", new_incarnation())
        spoke = PolicySpoke(spoke_reactor, me, "learner-p", address, window=COUNT, policy="p")
        assert until(lambda: spoke.open_for_more, DEADLINE)
        for number in range(1, COUNT + 1):
            made = draft({"x": ((size // 4 - 16,), np.dtype(np.int32)), "n": ((), np.dtype(np.int64))})
            made.arrays["x"][...] = np.arange(size // 4 - 16) * number
            made.arrays["n"][...] = number
            assert spoke.send_fragment(made, version=(1, 1), crc=0, steps=1)
            del made
        arrived: list[Arrived] = []

        def all_there() -> bool:
            arrived.extend(one for one in hub.take(0.05) if isinstance(one, Arrived))
            return len(arrived) >= COUNT

        assert until(all_there, DEADLINE)
        assert [one.sequence for one in arrived] == [*range(1, COUNT + 1)]
        for one in arrived:
            assert int(one.arrays["n"]) == one.sequence
            assert np.array_equal(one.arrays["x"], np.arange(size // 4 - 16) * one.sequence)
            assert not one.arrays["x"].flags.writeable
        assert hub.counts()["lost"] == hub.counts()["quarantined"] == 0
    finally:
        spoke_reactor.close()
        hub_reactor.close()


@pytest.mark.parametrize("size", [0, 64, ZERO_COPY, OWNED, OWNED + 64])
def test_a_buffer_is_of_its_size_and_held_by_nobody_else(size: int) -> None:
    one, other = fresh(size), fresh(size)
    assert len(one) == len(other) == size
    one[:] = b"\1" * size
    other[:] = b"\2" * size
    assert bytes(one) == b"\1" * size
