"""Facts and checkpoints reach the tracker whole, whoever dies: real sockets, and once a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from broker import delivery, transfer
from broker import messages as m
from broker.errors import Superseded, Unreachable
from broker.hub import Hub
from broker.hubstate import Said
from broker.liveness import Liveness
from broker.reactor import until
from broker.tracker_spoke import TrackerSpoke
from tests.flow.wiring import (
    DEADLINE,
    TOKEN,
    Ledger,
    Reactors,
    identity,
)


def test_facts_are_stored_once_and_in_order_though_the_tracker_dies_under_load(
    address: str, reactors: Reactors
) -> None:
    disk: dict[tuple[str, str], list[str]] = {}
    ledger = Ledger(address, disk)
    bound, spokes_on, each = ledger.hub.address, reactors(), 400
    spokes = [TrackerSpoke(spokes_on, identity(f"actor-{n}"), "actor", bound) for n in range(3)]

    def produce(spoke: TrackerSpoke) -> None:
        for number in range(each):
            spoke.fact("n", {"n": number}, DEADLINE)

    producers = [threading.Thread(target=produce, args=(spoke,)) for spoke in spokes]
    for producer in producers:
        producer.start()
    for share in (1, 2, 3):
        assert until(lambda at=share: sum(map(len, disk.values())) >= at * each // 2, DEADLINE)  # type: ignore[misc]
        ledger.end()
        ledger = Ledger(bound, disk)
    for producer in producers:
        producer.join(DEADLINE)
    assert all(spoke.flush(DEADLINE) for spoke in spokes)
    wanted = [json.dumps({"n": number}, separators=(",", ":")) for number in range(each)]
    assert disk == {(spoke.identity.name, spoke.identity.incarnation): wanted for spoke in spokes}
    ledger.end()


def test_what_the_dead_tracker_had_not_written_is_sent_again_though_nothing_new_is_said(reactors: Reactors) -> None:
    first_on = reactors()
    first = Hub(first_on, identity("tracker"), "tcp://127.0.0.1:0")
    spoke = TrackerSpoke(reactors(), identity("actor-0"), "actor", first.address)
    for number in range(10):
        spoke.fact("n", {"n": number})
    assert until(lambda: spoke._outbox.received == 10, DEADLINE)
    first_on.close()
    disk: dict[tuple[str, str], list[str]] = {}
    ledger = Ledger(first.address, disk)
    assert spoke.flush(DEADLINE)
    assert [len(texts) for texts in disk.values()] == [10]
    ledger.end()


def test_a_source_without_a_tracker_holds_so_much_and_then_says_for_whom_it_waits(
    reactors: Reactors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_FACTS", 5)
    spoke = TrackerSpoke(reactors(), identity("actor-0"), "actor", "tcp://127.0.0.1:9")
    for number in range(5):
        spoke.fact("n", {"n": number})
    with pytest.raises(Unreachable, match="the tracker took no facts"):
        spoke.fact("n", {}, timeout=0.1)
    assert spoke.unacknowledged == 5
    assert not spoke.flush(0.05)
    assert spoke.hub_life == "unknown"


def test_a_superseded_source_of_facts_does_not_wait_for_ever(
    reactors: Reactors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_FACTS", 1)
    hub = Hub(reactors(), identity("tracker"), "tcp://127.0.0.1:0")
    old = TrackerSpoke(reactors(), identity("actor-0"), "actor", hub.address)
    old.fact("n", {})
    assert until(lambda: old.incarnation is not None, DEADLINE)
    TrackerSpoke(reactors(), identity("actor-0"), "actor", hub.address)
    with pytest.raises(Superseded):
        old.fact("n", {}, DEADLINE)


def test_a_farewell_is_heard_and_silence_is_noticed(reactors: Reactors, address: str) -> None:
    ledger = Ledger(address, {}, liveness=Liveness(1.5, 2.5))
    leaves_on, dies_on = reactors(), reactors()
    leaves = TrackerSpoke(leaves_on, identity("actor-1"), "actor", ledger.hub.address)
    dies = TrackerSpoke(dies_on, identity("actor-2"), "actor", ledger.hub.address)
    assert until(lambda: len(ledger.hub.present()) == 2, DEADLINE)
    leaves.fact("last", {})
    assert leaves.flush(DEADLINE)
    assert leaves.farewell("done", DEADLINE)
    assert until(lambda: ledger.hub.present() == {"actor-1": "left", "actor-2": "alive"}, DEADLINE)
    leaves_on.close()
    dies_on.close()
    assert dies.incarnation is not None
    assert until(lambda: ledger.hub.present()["actor-2"] == "lost", DEADLINE)
    assert until(lambda: ledger.changes("actor-2")[-1:] == ["lost"], DEADLINE)
    assert ledger.changes("actor-1")[-1:] == ["left"]
    ledger.end()


def test_a_checkpoint_goes_up_in_chunks_and_comes_down_again(
    reactors: Reactors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "CHUNK", 1000)
    content = np.random.default_rng(0).bytes(25_500)
    hub = Hub(reactors(), identity("tracker"), "tcp://127.0.0.1:0", queue=256)
    spoke = TrackerSpoke(reactors(), identity("learner-p"), "learner", hub.address, policy="p")
    stored: list[bytes] = []
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            for item in hub.take(0.02):
                if isinstance(item, Said):
                    answer(item)

    def answer(item: Said) -> None:
        match item.message:
            case m.CheckpointOffer() as offer:
                assert offer.size == len(content)
                hub.offer(item.source, offer.offer, len(stored), "fetching")
            case m.Chunk() as chunk if chunk.index == len(stored):
                stored.append(bytes(item.payload))
                state = "durable" if len(stored) == transfer.chunks_of(len(content)) else "fetching"
                hub.offer(item.source, chunk.offer, len(stored), state)
            case m.RestoreRequest(index=None):
                point = m.RestorePoint(policy="p", incarnation=item.incarnation, life=2, position=7, size=len(content))
                hub.publish(item.source, point)
            case m.RestoreRequest() as request:
                piece = stored[request.index]
                hub.publish(item.source, m.Chunk(offer=7, index=request.index), piece)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    spoke.offer_checkpoint("p", (1, 3), content)
    assert spoke.wait_durable(DEADLINE)
    assert b"".join(stored) == content
    point, again = spoke.restore("p", DEADLINE)
    assert (point.life, again) == (2, content)
    ending.set()
    server.join(DEADLINE)


CHILD = """
import sys
from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity

address, token_file, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
reactor = Reactor()
spoke = TrackerSpoke(reactor, Identity(open(token_file).read(), "actor-0", new_incarnation()), "actor", address)
number = 0
while last < 0 or number < last:
    spoke.fact("n", {"n": number}, 30)
    number += 1
assert spoke.flush(30)
assert spoke.farewell("done", 30)
reactor.close()
"""


def test_a_child_delivers_all_and_a_killed_one_a_prefix_and_another_takes_its_place(tmp_path: Path) -> None:
    disk: dict[tuple[str, str], list[str]] = {}
    ledger = Ledger(f"ipc://{tmp_path}/t", disk)
    token = tmp_path / "token"
    token.write_text(TOKEN)
    command = [sys.executable, "-c", CHILD, ledger.hub.address, str(token)]
    killed = subprocess.Popen([*command, "-1"])
    try:
        assert until(lambda: sum(map(len, disk.values())) > 500, DEADLINE)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait(DEADLINE)
    subprocess.run([*command, "200"], check=True, timeout=DEADLINE)
    assert until(lambda: ledger.hub.present() == {"actor-0": "left"}, DEADLINE)
    (_, first), (_, second) = sorted(disk.items())
    assert [json.loads(text)["n"] for text in first] == list(range(len(first)))
    assert [json.loads(text)["n"] for text in second] == list(range(200))
    assert until(lambda: ledger.changes("actor-0")[-1:] == ["left"], DEADLINE)
    silences = ("suspect", "lost", "returned")  # on a busy machine, while a process starts
    changes = [change for change in ledger.changes("actor-0") if change not in silences]
    assert changes == ["alive", "superseded", "alive", "left"]
    ledger.end()
