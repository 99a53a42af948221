"""What a hub or a spoke does not believe over real sockets: counted with a reason, and nobody is disturbed."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from broker import messages as m
from broker import wire
from broker.addresses import publisher
from broker.errors import RequestError
from broker.hub import Hub
from broker.hubstate import Arrived
from broker.names import new_incarnation, new_token
from broker.policy_spoke import PolicySpoke
from broker.reactor import until
from broker.wire import Codec, Identity, payload_digest
from tests.flow.wiring import (
    DEADLINE,
    TOKEN,
    Reactors,
    Sockets,
    fragments,
    identity,
    policy_hub,
    send,
    spoke_to,
    weights,
)


def test_strays_are_counted_with_a_reason_and_disturb_nobody(reactors: Reactors, sockets: Sockets) -> None:
    hub = policy_hub(reactors(), max_payload=100_000)
    spoke = spoke_to(reactors(), hub, window=4)
    assert spoke.wait_for_credit(DEADLINE)
    mine = Codec(identity("actor-9"), "spoke")
    foreign = Codec(Identity(new_token(), "actor-9", new_incarnation()), "spoke")
    hello = m.Hello(role="actor", pid=1)
    item = m.FragmentItem(sequence=1, version=(1, 1), crc=0, steps=1)
    bomb = m.Fragments(layout="0" * 32, define=[{}, [["float64", [2**39, 9]]]], items=(item,))
    named = {"layout": "0" * 32, "items": [{"sequence": 1}]}
    there = hub.identity.incarnation
    forged = bytearray(mine.encode(hello, "learner-p"))
    forged[0] ^= 1
    stray = sockets(zmq.PUSH)
    stray.connect(hub.address)
    frames: list[tuple[str, list[bytes]]] = [
        ("foreign", [b""]),
        ("foreign", [b"GET / HTTP/1.1\r\n\r\n"]),
        ("foreign", [foreign.encode(hello, "learner-p")]),
        ("foreign", [bytes(forged)]),
        ("forbidden", [Codec(identity("stray"), "spoke").encode(hello, "learner-p")]),
        ("future", [Codec(Identity(TOKEN, "actor-9", "f" * 32), "spoke").encode(hello, "learner-p")]),
        ("foreign", [Codec(identity("learner-p"), "hub").encode(m.Pulse(phase="ended"), "learner-p")]),
        ("misdirected", [mine.encode(hello, "learner-q")]),
        ("foreign", [mine.encode(hello, "learner-p")[:-3]]),
        ("malformed", [mine.encode(hello, "learner-p"), b"", b""]),
        ("malformed", [mine.encode(hello, "learner-p"), b"payload"]),
        ("malformed", [Codec(Identity(TOKEN, "all", new_incarnation()), "spoke").encode(hello, "learner-p")]),
        ("malformed", [Codec(Identity(TOKEN, "x", "z" * 32), "spoke").encode(hello, "learner-p")]),
        ("invalid", [mine.encode_fields("hello", {"role": "king", "pid": 1}, "learner-p")]),
        ("invalid", [mine.encode_fields("pulse", {"phase": "ended"}, "learner-p")]),
        ("invalid", [mine.encode_fields("fragments", named, "learner-p"), b""]),
        ("", [mine.encode(hello, "learner-p")]),
        ("shape", [mine.encode(bomb, "learner-p", hub=there), b""]),
        ("layout", [mine.encode(bomb.model_copy(update={"define": [{}, []]}), "learner-p", hub=there), b""]),
    ]
    expected: dict[str, int] = defaultdict(int)
    for reason, parts in frames:
        stray.send_multipart(parts)
        if reason:
            expected[reason] += 1
        exchange(hub, spoke)
    assert until(lambda: dict(hub.quarantine) == dict(expected), DEADLINE), (hub.quarantine, expected)
    assert hub.counts()["quarantined"] == sum(expected.values()) == len(hub.samples)
    assert {sample.reason for sample in hub.samples} == set(expected)
    assert all(sample.text and sample.size >= len(sample.first) // 2 for sample in hub.samples)
    # A frame over the cap never gets that far: libzmq closes the connection that brought it.
    stray.send_multipart([mine.encode(hello, "learner-p"), bytes(wire.MAX_HEADER + 1)])
    stray.send_multipart([foreign.encode(hello, "learner-p")])
    for _ in range(3):
        exchange(hub, spoke)
    assert hub.counts()["lost"] == 0


def exchange(hub: Hub, spoke: PolicySpoke) -> None:
    """One fragment goes, arrives and is settled."""
    assert spoke.wait_for_credit(DEADLINE)
    assert send(spoke, 0)
    arrived: list[Arrived] = []
    assert until(lambda: bool(fragments(hub, arrived)), DEADLINE)
    for one in arrived:
        hub.settle(one.source, one.incarnation, one.sequence)


def about_to_send(hub: Hub, sockets: Sockets, size: int) -> tuple[zmq.Socket[bytes], bytes]:
    """A socket on which actor-0 has said hello, and the header of its first fragment: so many bytes named x."""
    codec = Codec(identity("actor-0"), "spoke")
    push = sockets(zmq.PUSH)
    push.connect(hub.address)
    plain = [{"x": {"\0array": 0}}, [["uint8", [size]]]]
    digest = hashlib.blake2b(msgpack.packb(plain), digest_size=16).hexdigest()
    item = m.FragmentItem(sequence=1, version=(1, 1), crc=0, steps=1)
    fragment = m.Fragments(layout=digest, define=plain, items=(item,))
    push.send(codec.encode(m.Hello(role="actor", pid=1), "learner-p"))
    return push, codec.encode(fragment, "learner-p", hub=hub.identity.incarnation)


def test_what_is_over_the_cap_only_as_a_whole_is_not_believed(reactors: Reactors, sockets: Sockets) -> None:
    hub = policy_hub(reactors(), max_payload=100)
    push, header = about_to_send(hub, sockets, 64)
    push.send_multipart([header, bytes(64), bytes(64), bytes(64)])  # the first alone would be a fragment
    push.send_multipart([header, bytes(101)])
    push.send_multipart([header, bytes(64)])
    arrived: list[Arrived] = []
    assert until(lambda: bool(fragments(hub, arrived)), DEADLINE)
    assert len(arrived) == 1
    assert dict(hub.quarantine) == {"oversized": 2}


def test_a_fragment_that_no_learner_reads_ends_with_what_to_do(reactors: Reactors) -> None:
    hub, spokes_on = policy_hub(reactors()), reactors()
    actor = identity("actor-0")
    spoke = PolicySpoke(spokes_on, actor, "learner-p", hub.address, window=2, policy="p", max_fragment=1000)
    assert spoke.wait_for_credit(DEADLINE)
    with pytest.raises(RequestError, match=r"raise learner\.max_fragment_mb"):
        spoke.send_fragment({"n": np.zeros(1000)}, version=(1, 1), crc=0, steps=1)
    assert spoke.credit == 2


def test_a_replayed_recording_is_not_delivered_twice(reactors: Reactors, sockets: Sockets) -> None:
    hub = policy_hub(reactors())
    push, header = about_to_send(hub, sockets, 3)
    for _ in range(3):
        push.send_multipart([header, b"abc" + bytes(61)])
    arrived: list[Arrived] = []

    def all_came() -> bool:
        fragments(hub, arrived)
        return hub.counts().get("dropped: replayed") == 2

    assert until(all_came, DEADLINE)
    assert [bytes(one.arrays["x"]) for one in arrived] == [b"abc"]


def test_a_spoke_does_not_believe_a_stranger_who_publishes(
    reactors: Reactors, sockets: Sockets, tmp_path: Path
) -> None:
    publish, pull = sockets(zmq.XPUB), sockets(zmq.PULL)
    pull.bind(f"ipc://{tmp_path}/h")
    publish.bind(f"ipc://{tmp_path}/h.pub")
    spoke = PolicySpoke(reactors(), identity("actor-0"), "learner-p", f"ipc://{tmp_path}/h", window=1, policy="p")
    for _ in range(2):
        assert publish.poll(DEADLINE * 1000)
        publish.recv()
    older = Codec(identity("learner-p"), "hub")
    ours = Codec(identity("learner-p"), "hub")
    other = Codec(identity("learner-q"), "hub")
    ended = m.Pulse(phase="ended")
    foreign = Codec(Identity(new_token(), "learner-p", new_incarnation()), "hub")
    upwards = Codec(identity("learner-p"), "spoke")
    payload = b"x" * 64
    right = payload_digest(payload)
    version = {"policy": "p", "version": (1, 2), "crc": 1, "layout": [{"\0array": 0}, [["int8", [9]]]]}
    for frames in (
        [b"noise"],
        [other.encode(ended, "all")],
        [ours.encode(ended, "actor-1")],
        [ours.encode(ended, "all"), b"", b""],
        [foreign.encode(ended, "all")],
        [upwards.encode_fields("pulse", {"phase": "ended"}, "all")],
        [ours.encode_fields("parameters", version, "all", right), b"y" * 64],
        [ours.encode_fields("parameters", version, "all"), payload],
        [ours.encode_fields("parameters", {**version, "policy": "q"}, "all", right), payload],
        [ours.encode_fields("parameters", version, "all", right), payload],
        [ours.encode_fields("parameters", {**version, "version": (1, 1)}, "all", right), payload],
        [older.encode_fields("parameters", {**version, "version": (1, 3)}, "all", right), payload],
        [older.encode(ended, "all")],
        [ours.encode(m.Pulse(phase="running"), "all")],
    ):
        publish.send_multipart([b"all\0", *frames])
    assert until(lambda: spoke.phase != "starting", DEADLINE)
    assert spoke.phase == "running"
    found = spoke.newest()
    assert found is not None
    assert found.version == (1, 2), "neither back, nor on by an older incarnation's word"
    assert spoke.quarantine == {"foreign": 3, "misdirected": 3, "malformed": 1, "checksum": 2}


def test_a_stranger_reads_no_token_and_speaks_in_vain(reactors: Reactors, sockets: Sockets) -> None:
    first = reactors()
    hub = policy_hub(first)
    spoke = spoke_to(reactors(), hub, window=4)
    listener = sockets(zmq.SUB)
    listener.setsockopt(zmq.SUBSCRIBE, b"")
    listener.connect(publisher(hub.address))
    heard: list[list[bytes]] = []

    def overheard(most: int) -> bool:
        while listener.poll(20):
            heard.append(listener.recv_multipart())
        return len([frames for frames in heard if len(frames) == 3]) >= most

    number = itertools.count(1)
    assert until(lambda: hub.publish_version("p", (1, next(number)), weights(1)) > 0 and overheard(2), DEADLINE)
    assert spoke.wait_for_credit(DEADLINE)
    newest = spoke.wait_for_version(DEADLINE)
    first.close()  # the hub is gone: a stranger takes its address, hears what is still sent there, and answers
    pull, publish = sockets(zmq.PULL), sockets(zmq.XPUB)
    pull.bind(hub.address)
    publish.bind(publisher(hub.address))
    caught: list[list[bytes]] = []
    send(spoke, 0)

    def both() -> bool:
        while pull.poll(20):
            caught.append(pull.recv_multipart())
        return {len(frames) for frames in caught} == {1, 2}

    assert until(both, DEADLINE)
    for frame in itertools.chain(*heard, *caught):
        assert bytes.fromhex(TOKEN) not in frame
        assert TOKEN.encode() not in frame
    invented = Codec(Identity("0" * 32, "learner-p", new_incarnation()), "hub").encode(m.Pulse(phase="ended"), "all")
    poisoned = [[topic, header, bytes(len(payload))] for topic, header, payload in (f for f in heard if len(f) == 3)]
    assert publish.poll(DEADLINE * 1000)
    assert until(
        lambda: (
            [publish.send_multipart(frames) for frames in ([b"all\0", invented], *poisoned)] != []
            and spoke.quarantine.keys() >= {"foreign", "checksum"}
        ),
        DEADLINE,
    )
    assert spoke.phase == "starting"
    assert spoke.newest() is newest
    again = policy_hub(reactors())
    replay = sockets(zmq.PUSH)
    replay.connect(again.address)
    for frames in caught:
        replay.send_multipart(frames)
    assert until(lambda: again.counts().get("dropped: another hub", 0) > 0, DEADLINE)
    assert not any(isinstance(item, Arrived) for item in again.take())


@pytest.mark.parametrize(
    "wrong",
    [
        {"arrays": {"n": 2**70}},
        {"arrays": {"n": object()}},
        {"note": {"score": np.float32(1)}},
        {"note": {"score": 2**70}},
        {"note": {"text": "x" * 2_000_000}},
        {"note": {"text": "\ud800"}},
        {"note": {1: 2}},
    ],
    ids=["large integer", "object", "numpy score", "large score", "long text", "surrogate", "key"],
)
def test_what_cannot_travel_is_the_roles_own_error_and_takes_no_credit(
    reactors: Reactors, wrong: dict[str, Any]
) -> None:
    hub = policy_hub(reactors())
    spoke = spoke_to(reactors(), hub)
    assert spoke.wait_for_credit(DEADLINE)
    with pytest.raises((TypeError, ValueError), match=r"travel|note"):
        spoke.send_fragment(**{"arrays": {"n": 1}, "version": (1, 1), "crc": 0, "steps": 1, **wrong})  # type: ignore[arg-type]
    assert spoke.credit == 2
    assert send(spoke, 1)
    assert until(lambda: any(isinstance(item, Arrived) for item in hub.take(0.05)), DEADLINE)
