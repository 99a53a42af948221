from __future__ import annotations

import contextlib
import hashlib
import typing

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker import messages as m
from broker import wire
from broker.errors import WireError
from broker.wire import WITH_PAYLOAD, Codec, payload_digest, run_id
from tests.broker.draws import OTHER_TOKEN, TO_HUB, TO_SPOKE, TOKEN, identity, incarnation, quick

ACTOR = Codec(identity("actor-0"), "spoke")
HUB = Codec(identity("hub", 5), "hub")
FAREWELL = {"reason": "done"}


def payload_for(kind: str) -> bytes | None:
    return b"bytes" if kind in WITH_PAYLOAD else None


def sealed(body: bytes, token: str = TOKEN, direction: bytes = b"headrace up", named: bytes | None = None) -> bytes:
    """The frame whose MAC vouches for `body`, made without the codec."""
    run = run_id(token) if named is None else named
    mac = hashlib.blake2b(run + body, key=bytes.fromhex(token), digest_size=16, person=direction)
    return mac.digest() + run + body


def body(
    fields: object = FAREWELL,
    *,
    kind: object = "farewell",
    protocol: object = 2,
    sender: object = "actor-0",
    age: object = incarnation(1),
    recipient: object = "hub",
    hub: object = incarnation(5),
    digest: object = None,
) -> bytes:
    packed: bytes = msgpack.packb([protocol, sender, age, recipient, hub, kind, fields, digest])
    return packed


def header(*args: object, **parts: object) -> bytes:
    return sealed(body(*args, **parts))


def reason_of(frame: bytes, payload: bytes | None = None) -> str:
    with pytest.raises(WireError) as refused:
        HUB.decode(frame, payload, ("hub",))
    return refused.value.reason


def test_every_message_of_the_union_is_drawn() -> None:
    for union, drawn in ((m.ToHub, TO_HUB), (m.ToSpoke, TO_SPOKE)):
        assert set(typing.get_args(typing.get_args(union)[0])) == set(drawn)


@pytest.mark.parametrize("model", TO_HUB, ids=lambda model: model.__name__)
def test_what_a_spoke_says_is_what_the_hub_reads(model: type[m.Message]) -> None:
    @quick
    @given(TO_HUB[model])
    def check(message: m.Message) -> None:
        payload = payload_for(message.kind)  # type: ignore[attr-defined]
        envelope = HUB.decode(ACTOR.encode(message, "hub", payload, hub=incarnation(5)), payload, ("hub",))
        assert envelope.message == message
        assert (envelope.sender, envelope.incarnation, envelope.hub) == ("actor-0", incarnation(1), incarnation(5))
        assert envelope.payload == (payload or b"")

    check()


@pytest.mark.parametrize("model", TO_SPOKE, ids=lambda model: model.__name__)
def test_what_a_hub_says_is_what_the_spoke_reads(model: type[m.Message]) -> None:
    @quick
    @given(TO_SPOKE[model])
    def check(message: m.Message) -> None:
        payload = payload_for(message.kind)  # type: ignore[attr-defined]
        envelope = ACTOR.decode(HUB.encode(message, "all", payload), payload, ("all", "actor-0"))
        assert envelope.message == message
        assert (envelope.sender, envelope.incarnation) == ("hub", incarnation(5))

    check()


def test_a_hub_does_not_take_what_only_a_hub_may_say() -> None:
    pulse = m.Pulse(phase="running")
    assert reason_of(Codec(identity("other"), "spoke").encode(pulse, "hub")) == "invalid"
    assert reason_of(Codec(identity("other"), "hub").encode(pulse, "hub")) == "foreign", "a hub's own frame, sent back"


@pytest.mark.parametrize(
    ("frame", "payload", "reason"),
    [
        (header(), None, None),
        (sealed(body(), OTHER_TOKEN), None, "foreign"),
        (sealed(body(), OTHER_TOKEN, named=run_id(TOKEN)), None, "foreign"),
        (sealed(body(), direction=b"headrace down"), None, "foreign"),
        (bytes(16) + header()[16:], None, "foreign"),
        (header()[:23], None, "foreign"),
        (header()[:24], None, "foreign"),
        (b"", None, "foreign"),
        (header(hub="x"), None, "malformed"),
        (header(hub=["x"]), None, "malformed"),
        (header(protocol=1), None, "protocol"),
        (header(protocol=True), None, "protocol"),
        (header(protocol="2"), None, "protocol"),
        (header(recipient="other"), None, "misdirected"),
        (header(recipient=["hub"]), None, "misdirected"),
        (header(sender=""), None, "malformed"),
        (header(sender="x" * 65), None, "malformed"),
        (header(sender="actor-0\n"), None, "malformed"),
        (header(sender="\u00e9"), None, "malformed"),
        (header(sender="all"), None, "malformed"),
        (header(sender="standings"), None, "malformed"),
        (header(sender=b"actor-0"), None, "malformed"),
        (header(age="z" * 32), None, "malformed"),
        (header(age=incarnation(1) + "\n"), None, "malformed"),
        (header(age="A" * 32), None, "malformed"),
        (header(age=1), None, "malformed"),
        (header()[:-1], None, "foreign"),
        (header() + b"\0", None, "foreign"),
        (sealed(body()[:-1]), None, "malformed"),
        (sealed(body() + b"\0"), None, "malformed"),
        (sealed(b""), None, "malformed"),
        (sealed(msgpack.packb([2, 1])), None, "malformed"),
        (header([]), None, "malformed"),
        (header(kind="nothing"), None, "invalid"),
        (header(kind=["farewell"]), None, "invalid"),
        (header(kind=b"farewell"), None, "invalid"),
        (header({"reason": 1}), None, "invalid"),
        (header({"reason": "x" * 4097}), None, "invalid"),
        (header({"sent_through": -1}), None, "invalid"),
        (header({"sent_through": 2**63}), None, "invalid"),
        (header({"sent_through": True}), None, "invalid"),
        (header({"sent_through": 1.0}), None, "invalid"),
        (header({"sent_through": float("nan")}), None, "invalid"),
        (header({"unknown": 1}), None, "invalid"),
        (header({b"reason": "x"}), None, "invalid"),
        (header({"items": ()}, kind="fragments"), b"", "invalid"),
        (header({"items": (), "first": 0}, kind="facts"), None, "invalid"),
        (header(), b"", "malformed"),
        (header({"offer": 1, "index": 0}, kind="chunk"), None, "malformed"),
        (header({"offer": 1, "index": 0}, kind="chunk"), b"x", "checksum"),
        (header({"offer": 1, "index": 0}, kind="chunk", digest=payload_digest(b"x")), b"y", "checksum"),
        (header({"offer": 1, "index": 0}, kind="chunk", digest=payload_digest(b"x")), b"x", None),
    ],
)
def test_what_is_not_believed_and_why(frame: bytes, payload: bytes | None, reason: str | None) -> None:
    if reason is None:
        HUB.decode(frame, payload, ("hub",))
    else:
        assert reason_of(frame, payload) == reason


def test_a_header_over_the_cap_is_neither_sent_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_HEADER", 1000)
    with pytest.raises(WireError, match="oversized"):
        ACTOR.encode(m.Farewell(reason="x" * 1000), "hub")
    assert reason_of(header({"reason": "x" * 1000})) == "oversized"


def test_a_payload_over_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_PAYLOAD", 10)
    chunk = ACTOR.encode(m.Chunk(offer=1, index=0), "hub", bytes(10))
    assert reason_of(chunk, bytes(11)) == "oversized"
    assert HUB.decode(chunk, bytes(10), ("hub",)).payload == bytes(10)


def fragments(count: int) -> bytes:
    items = tuple(m.FragmentItem(sequence=n, version=(1, 1), crc=0, steps=1) for n in range(1, count + 1))
    return ACTOR.encode(m.Fragments(layout="a" * 32, items=items), "hub")


def test_fragments_bring_one_payload_frame_or_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HUB.decode(fragments(3), b"all", ("hub",)).more == ()
    assert HUB.decode(fragments(3), b"1", ("hub",), (b"2", b"3")).more == (b"2", b"3")
    chunk = ACTOR.encode(m.Chunk(offer=1, index=0), "hub", b"1")
    for frame, more in ((fragments(3), (b"2",)), (fragments(2), (b"2", b"3")), (chunk, (b"2",))):
        with pytest.raises(WireError, match="frames too many") as refused:
            HUB.decode(frame, b"1", ("hub",), more)
        assert refused.value.reason == "malformed"
    monkeypatch.setattr(wire, "MAX_PAYLOAD", 10)
    with pytest.raises(WireError, match="payload of 11 bytes"):
        HUB.decode(fragments(2), b"12345", ("hub",), (b"123456",))


@quick
@given(st.binary(max_size=200), st.none() | st.binary(max_size=10))
def test_random_bytes_are_a_wire_error(noise: bytes, payload: bytes | None) -> None:
    for frame in (noise, sealed(noise)):
        with pytest.raises(WireError):
            HUB.decode(frame, payload, ("hub",))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
kinds = st.sampled_from([model.model_fields["kind"].default for model in TO_HUB])
fields = st.sampled_from(sorted({name for model in TO_HUB for name in model.model_fields}))


@quick
@given(kinds | anything, st.dictionaries(fields, anything, max_size=5) | anything, st.none() | st.binary(max_size=10))
def test_a_wrong_header_of_the_right_run_is_a_wire_error_or_a_message(
    kind: object, wrong: object, payload: bytes | None
) -> None:
    digest = None if payload is None else payload_digest(payload)
    with contextlib.suppress(WireError):
        envelope = HUB.decode(header(wrong, kind=kind, digest=digest), payload, ("hub",))
        assert isinstance(envelope.message, m.Message)


@quick
@given(st.sampled_from(sorted(TO_HUB, key=lambda model: model.__name__)), st.data())
def test_a_damaged_header_is_foreign_wherever_it_is_damaged(model: type[m.Message], data: st.DataObject) -> None:
    message = data.draw(TO_HUB[model])
    payload = payload_for(message.kind)  # type: ignore[attr-defined]
    frame = bytearray(ACTOR.encode(message, "hub", payload))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    assert reason_of(bytes(frame), payload) == "foreign"


@quick
@given(st.sampled_from(sorted(TO_HUB, key=lambda model: model.__name__)), st.data())
def test_a_damaged_body_is_a_wire_error_or_a_message(model: type[m.Message], data: st.DataObject) -> None:
    message = data.draw(TO_HUB[model])
    payload = payload_for(message.kind)  # type: ignore[attr-defined]
    damaged = bytearray(ACTOR.encode(message, "hub", payload)[24:])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        HUB.decode(sealed(bytes(damaged)), payload, ("hub",))


def test_the_token_is_in_no_frame_and_in_no_repr() -> None:
    key = bytes.fromhex(TOKEN)
    for frame in (ACTOR.encode(m.Farewell(), "hub"), HUB.encode(m.Pulse(phase="running"), "all")):
        assert key not in frame
        assert TOKEN.encode() not in frame
    assert TOKEN not in repr(ACTOR.identity)


def test_a_message_is_frozen_and_closed() -> None:
    farewell = m.Farewell()
    with pytest.raises(ValidationError):
        farewell.reason = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        m.Farewell(nothing=1)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        m.Hello(role="actor", pid="7")  # type: ignore[arg-type]
