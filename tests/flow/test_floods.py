"""Floods over real sockets: what a hub holds is bounded, pulses go on, and honest spokes are served."""

from __future__ import annotations

import resource
import socket
import struct
import time
from itertools import islice
from pathlib import Path

import pytest
import zmq

from broker import addresses
from broker import hub as hubs
from broker import messages as m
from broker.connections import MAX_SUBSCRIPTIONS
from broker.hub import MAX_REFUSED, Hub
from broker.hubstate import Arrived
from broker.names import topic
from broker.policy_spoke import PolicySpoke
from broker.reactor import until
from broker.station import Gauge
from broker.tracker_spoke import TrackerSpoke
from broker.wire import MAX_HEADER, Codec
from tests.broker.fuzz import Mutations
from tests.flow.wiring import (
    DEADLINE,
    Reactors,
    Sockets,
    fragments,
    identity,
    policy_hub,
    send,
    spoke_to,
)

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)


def stranger(hub: Hub, kind: bytes) -> socket.socket:
    """A raw connection that has said what ZMTP wants of a socket of this kind."""
    address = hub.address if kind == b"PUSH" else addresses.publisher(hub.address)
    connection = socket.create_connection(addresses.split(address), timeout=DEADLINE)
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    connection.sendall(GREETING + b"\x04" + bytes([len(ready)]) + ready)
    return connection


def is_closed(connection: socket.socket, piece: bytes) -> bool:
    """Whether the hub closes the connection while such pieces come."""
    connection.settimeout(0.05)
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            connection.sendall(piece)
            while connection.recv(65_536):
                pass
            return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def serves(hub: Hub, spoke: PolicySpoke) -> bool:
    """Whether a fragment goes, arrives and is settled."""
    assert spoke.wait_for_credit(DEADLINE)
    assert send(spoke, 0)
    arrived: list[Arrived] = []
    assert until(lambda: bool(fragments(hub, arrived)), DEADLINE)
    for one in arrived:
        hub.settle(one.source, one.incarnation, one.sequence)
    return spoke.flushed(DEADLINE)


def topics(*names: bytes) -> bytes:
    return b"".join(bytes([0, len(name) + 1]) + b"\1" + name for name in names)


@pytest.mark.parametrize(
    ("kind", "piece"),
    [
        (b"SUB", topics(*(b"topic %d" % n for n in range(10)))),
        (b"SUB", topics(b"same")),
        (b"SUB", b"\2" + struct.pack(">Q", 20_000_000) + b"\1long"),
        (b"PUSH", b"\2" + struct.pack(">Q", 300_000_000) + b"unfinished"),
        (b"PUSH", b"\0\x05noise" * 10),
        (b"PUSH", b"\1\0" * 10_000 + b"\0\0"),
        (b"PUSH", (b"\3" + struct.pack(">Q", 1_000_000) + bytes(1_000_000)) * 10),
    ],
    ids=[
        "topics",
        "one topic again",
        "a long topic",
        "an unfinished frame",
        "noise",
        "many frames",
        "ever more frames",
    ],
)
def test_a_connection_that_brings_too_much_is_closed(reactors: Reactors, kind: bytes, piece: bytes) -> None:
    hub = policy_hub(reactors(), max_payload=100_000)
    spoke = spoke_to(reactors(), hub)
    with stranger(hub, kind) as connection:
        assert is_closed(connection, piece)
    assert serves(hub, spoke)


def test_a_spoke_that_comes_and_goes_is_never_closed_for_it(reactors: Reactors, sockets: Sockets) -> None:
    hub = policy_hub(reactors())

    def heard(one: zmq.Socket[bytes]) -> bool:
        hub.publish("standings", m.Standings(), b"{}")
        return bool(one.poll(10))

    for _ in range(MAX_SUBSCRIPTIONS // 2):
        one = sockets(zmq.SUB)
        one.connect(addresses.publisher(hub.address))
        for name in (b"all\0", b"actor-0\0", b"standings\0"):
            one.setsockopt(zmq.SUBSCRIBE, name)
        assert until(lambda one=one: heard(one), DEADLINE)  # type: ignore[misc]
        one.close(0)
    assert serves(hub, spoke_to(reactors(), hub))


def test_a_role_that_takes_nothing_holds_its_senders_up(
    reactors: Reactors, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "MAX_QUEUED", 100)
    hub = Hub(reactors(), identity("tracker"), "tcp://127.0.0.1:0")
    push = sockets(zmq.PUSH)
    push.setsockopt(zmq.SNDHWM, 1)
    push.connect(hub.address)
    codec = Codec(identity("actor-0"), "spoke")
    push.send(codec.encode(m.Hello(role="actor", pid=1), "tracker"))
    status = codec.encode(m.Status(doing="x" * 200), "tracker", hub=hub.identity.incarnation)
    sent = 0
    while push.poll(1000, zmq.POLLOUT):
        push.send(status)
        sent += 1
    assert hub.queued <= 101 < sent, "the rest waits in the sockets"
    assert hub.present() == {"actor-0": "alive"}
    came = 0

    def all_came() -> bool:
        nonlocal came
        came += sum(not hasattr(delivery, "change") for delivery in hub.take(0.05))
        return came == sent + 1

    assert until(all_came, DEADLINE), (came, sent)


def test_an_address_that_leads_nowhere_is_counted_and_left_for_the_next(reactors: Reactors) -> None:
    hub, reactor = policy_hub(reactors()), reactors()
    spoke = spoke_to(reactor, hub)
    assert serves(hub, spoke)
    for number, nowhere in enumerate(("nonsense", "http://127.0.0.1:80", "tcp://bad host:1", "ipc://" + "x" * 200), 1):
        spoke.redirect(nowhere)
        assert until(lambda number=number: spoke.quarantine["address"] == number, DEADLINE), nowhere  # type: ignore[misc]
    assert reactor.failure is None
    spoke.redirect(hub.address)
    assert serves(hub, spoke)
    first = PolicySpoke(reactor, identity("actor-1"), "learner-p", "nonsense", window=1, policy="p")
    assert until(lambda: first.quarantine["address"] == 1, DEADLINE)


def test_mutated_frames_over_sockets_end_no_role(reactors: Reactors, sockets: Sockets) -> None:
    on, spokes_on = reactors(), reactors()
    hub = policy_hub(on)
    spoke = spoke_to(spokes_on, hub)
    tracker = TrackerSpoke(spokes_on, identity("actor-1"), "actor", hub.address, hub="learner-p", standings=True)
    assert serves(hub, spoke)
    push = sockets(zmq.PUSH)
    push.connect(hub.address)
    insider = identity("actor-2")
    for header, payload in islice(Mutations(3, insider, "learner-p", hub.identity.incarnation), 500):
        push.send_multipart([header] if payload is None else [header, payload])
    for name in ("actor-0", "actor-1"):
        for header, payload in islice(Mutations(3, hub.identity, name), 60):
            parts = (topic(name), header) if payload is None else (topic(name), header, payload)
            with hub._lock:
                hub._outbox.append(parts)
            time.sleep(0.002)  # the publisher's queue holds four
    assert until(lambda: sum(hub.quarantine.values()) > MAX_REFUSED, DEADLINE)
    assert until(lambda: min(sum(one.quarantine.values()) for one in (spoke, tracker)) > 0, DEADLINE)
    assert spoke.phase in ("starting", "running", "stopping")
    assert on.failure is spokes_on.failure is None


def test_what_a_header_makes_a_hub_hold_is_bounded(reactors: Reactors, sockets: Sockets) -> None:
    hub = policy_hub(reactors())
    spoke = spoke_to(reactors(), hub)
    push = sockets(zmq.PUSH)
    push.connect(hub.address)
    codec = Codec(identity("actor-9"), "spoke")
    push.send(codec.encode(m.Hello(role="actor", pid=1), "learner-p"))
    wrong = (
        {"rates": {f"r{n}": n for n in range(400_000)}},
        {"what": [{}] * (MAX_HEADER - 10_000)},
        {"layout": "0" * 32, "items": [{"sequence": 1, "note": [[]] * 2_000_000}]},
        {"layout": "0" * 32, "items": [{str(n): n for n in range(100_000)}]},
        {"layout": "0" * 32, "items": [{}] * 100_000},
    )
    for fields in wrong:
        kind = "fragments" if "items" in fields else "status"
        push.send(codec.encode_fields(kind, fields, "learner-p", hub=hub.identity.incarnation))
    assert until(lambda: sum(hub.quarantine.values()) == len(wrong), DEADLINE), hub.quarantine
    assert hub.quarantine == {"oversized": 3, "malformed": 2}
    assert serves(hub, spoke)


def test_a_role_without_a_descriptor_left_says_less_and_goes_on(reactors: Reactors) -> None:
    hub = policy_hub(reactors())
    spoke = spoke_to(reactors(), hub)
    gauge = Gauge()
    assert serves(hub, spoke)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open("rb") as lowest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, limits[1]))
        try:
            assert gauge.read() == {}
            with pytest.raises(OSError, match="open files"):
                Path("/dev/null").read_bytes()
            assert serves(hub, spoke)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert gauge.read()["rss_mb"]
