"""Messages and frames, both ways.

    to a hub     [header] [payload] ...
    to a spoke   [topic] [header] [payload]

A header is a MAC (16 bytes), the run's public id (8 bytes) and one msgpack array: protocol version, sender, its
incarnation, recipient, the addressed incarnation of the hub, kind, fields, digest of the payload. The run token is the
key of the MAC and is in no frame; the MAC is checked before the bytes that it covers are parsed. Only some kinds have a
payload; a message of several fragments may have one for each. Invariant: `decode` returns a message only when the MAC,
the protocol, the recipient, every field, the sizes and the digest are right; everything else is a WireError
whose `reason` is counted.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgpack
from pydantic import TypeAdapter, ValidationError

from broker.errors import WireError, brief
from broker.messages import MAX_ITEMS, Message, to_hub, to_spoke
from broker.names import RESERVED
from broker.sending import Payload

PROTOCOL = 2
MAX_HEADER = 8 * 1024 * 1024
MAX_PAYLOAD = 1024 * 1024 * 1024
WITH_PAYLOAD = frozenset({"fragments", "parameters", "chunk", "standings"})
MAX_FIELDS = 32
SMALL_HEADER = 64 * 1024
"""Most bytes of a header, except for the kinds in `MAX_VALUES`."""
MAX_VALUES = {
    "facts": 20_000, "fragments": 1_500_000, "parameters": 1_500_000, "directory": 50_000, "assignment": 20_000,
    "restore_point": 1_000,
}  # fmt: skip
"""Most values in a larger header, by kind. A layout may have 100,000 arrays, with one to ten values each."""
_PARTS = 8
BEGINNING = 512
"""Bytes of a large header in which the parts before its fields end: names, incarnations and the kind are short."""
MAX_LISTED = 1_000
MAC_SIZE = 16
RUN_ID_SIZE = 8
_BODY = MAC_SIZE + RUN_ID_SIZE
_SENDER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_INCARNATION = re.compile(r"[0-9a-f]{32}")
_UP, _DOWN = b"headrace up", b"headrace down"
"""BLAKE2b personalisations: a frame to a spoke is not valid at a hub, though one token is the key of both."""


class Envelope(NamedTuple):
    """A message that was believed, who sent it, and its payload."""

    sender: str
    incarnation: str
    message: Any
    payload: Payload
    more: tuple[Payload, ...] = ()
    """The payloads of further fragments, where each came in a frame of its own."""
    hub: str | None = None
    """The addressed incarnation of the hub; None to a spoke, and from a spoke that has not heard the hub yet."""


@dataclass(frozen=True)
class Identity:
    """Who speaks: the run's token (32 hex digits), the role's name and its incarnation."""

    token: str = field(repr=False)
    name: str
    incarnation: str
    clock: int = 0
    """The run's clock (`broker.clock`), for the times of facts."""


def run_id(token: str) -> bytes:
    """Derive the public id of a run from its token. The token cannot be computed from it."""
    return blake2b(key=bytes.fromhex(token), digest_size=RUN_ID_SIZE, person=b"headrace run id").digest()


@lru_cache(4096)
def _is_name(name: str) -> bool:
    return _SENDER.fullmatch(name) is not None and name not in RESERVED


@lru_cache(4096)
def _is_incarnation(text: str) -> bool:
    return _INCARNATION.fullmatch(text) is not None


def payload_digest(payload: Payload) -> bytes:
    """Hash a payload. The header carries the hash, so that its MAC covers the payload too."""
    return blake2b(payload, digest_size=16).digest()


def _unpack(body: Payload) -> Any:
    """Unpack the plain values of an authentic header. WireError if it is not msgpack, or too large for its kind."""
    try:
        if len(body) > SMALL_HEADER:
            return _unpack_large(body)
        return msgpack.unpackb(body, use_list=False, strict_map_key=True, ext_hook=_no_extension)
    except WireError:
        raise
    except Exception as error:  # msgpack raises five classes that have only Exception in common
        raise WireError("malformed", "the header is not msgpack") from error


def _unpack_large(body: Payload) -> Any:
    """Unpack a large header with a limit on its values: one byte of msgpack can become a map of 64 bytes.

    The limit depends on the kind, so the kind is read first.
    """
    begin = msgpack.Unpacker(use_list=False, strict_map_key=True)
    begin.feed(body[:BEGINNING])
    if begin.read_array_header() != _PARTS:
        return None
    kind = [begin.unpack() for _ in range(_PARTS - 2)][-1]
    left = MAX_VALUES.get(kind, 0) if isinstance(kind, str) else 0
    if not left:
        raise WireError("oversized", f"a header of {len(body)} bytes; at most {SMALL_HEADER} of {brief(kind)}")

    def count(node: Any) -> Any:
        nonlocal left
        left -= 1 + len(node)
        if left < 0:
            raise WireError("oversized", f"the header has more values than one of {brief(kind)} may have")
        return node

    hooks = {"ext_hook": _no_extension, "object_hook": count, "list_hook": count}
    return msgpack.unpackb(body, use_list=False, strict_map_key=True, **hooks)


def _check_items(items: Any) -> None:
    """Raise a WireError for so many fragments or fields that validating each of them would take seconds."""
    if not isinstance(items, tuple) or len(items) > MAX_ITEMS:
        raise WireError("malformed", f"not 1 to {MAX_ITEMS} fragments")
    if any(isinstance(item, dict) and len(item) > MAX_FIELDS for item in items):
        raise WireError("malformed", f"a fragment has more than {MAX_FIELDS} fields")


def _no_extension(code: int, _: bytes) -> Any:
    raise WireError("malformed", f"an extension type {code} of msgpack")


def _first_of(error: ValidationError) -> str:
    """Describe the first mistake in a message. Listing a million others would cost more than reading it did."""
    if error.error_count() > MAX_LISTED:
        return f"{error.error_count()} values are wrong"
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part)[:40] for part in first['loc'])}: {first['msg']}"


class Codec:
    """Encodes what one role says and decodes what is said to it."""

    def __init__(self, identity: Identity, side: Literal["hub", "spoke"]) -> None:
        self.identity = identity
        self._run_id = run_id(identity.token)
        says, hears = (_DOWN, _UP) if side == "hub" else (_UP, _DOWN)
        self._says, self._hears = self._keyed(says), self._keyed(hears)
        self._models: dict[str, TypeAdapter[Any]] = to_hub if side == "hub" else to_spoke

    def _keyed(self, direction: bytes) -> blake2b:
        """Return the MAC's state after the key and the run id: copying it costs half as much as computing it again."""
        state = blake2b(key=bytes.fromhex(self.identity.token), digest_size=MAC_SIZE, person=direction)
        state.update(self._run_id)
        return state

    def encode(
        self, message: Message, recipient: str, payload: Payload | None = None, *, hub: str | None = None
    ) -> bytes:
        """The header frame of a message. WireError when it is larger than any receiver would accept."""
        fields = message.model_dump(exclude_defaults=True)
        digest = None if payload is None else payload_digest(payload)
        return self.encode_fields(message.kind, fields, recipient, digest, hub=hub)  # type: ignore[attr-defined]

    def encode_fields(
        self, kind: str, fields: dict[str, Any], recipient: str, digest: bytes | None = None, *, hub: str | None = None
    ) -> bytes:
        """The header frame from fields that need no further check (hot paths). Fragments need no digest."""
        me = self.identity
        body: bytes = msgpack.packb([PROTOCOL, me.name, me.incarnation, recipient, hub, kind, fields, digest])
        if len(body) > MAX_HEADER - _BODY:
            raise WireError("oversized", f"a header of {len(body) + _BODY} bytes; at most {MAX_HEADER}")
        mac = self._says.copy()
        mac.update(body)
        return b"".join((mac.digest(), self._run_id, body))

    def _authentic(self, header: Payload) -> Payload:
        """Return the body of a header whose MAC is right. WireError for any other header."""
        if header[MAC_SIZE:_BODY] != self._run_id:
            raise WireError("foreign", "it is from another run, or not a frame of this protocol")
        body = header[_BODY:]
        mac = self._hears.copy()
        mac.update(body)
        if not hmac.compare_digest(header[:MAC_SIZE], mac.digest()):
            raise WireError("foreign", "it names this run with a wrong MAC: the sender does not have the run token")
        return body

    def decode(
        self, header: Payload, payload: Payload | None, recipients: tuple[str, ...], more: tuple[Payload, ...] = ()
    ) -> Envelope:
        """What the frames say to one of `recipients`; `more` came after the first payload. WireError otherwise."""
        if len(header) > MAX_HEADER:
            raise WireError("oversized", f"header of {len(header)} bytes")
        body = self._authentic(header)
        parts = _unpack(body)
        if not isinstance(parts, tuple) or len(parts) != _PARTS:
            raise WireError("malformed", "the header does not have eight parts")
        protocol, sender, incarnation, recipient, hub, kind, fields, digest = parts
        if type(protocol) is not int or protocol != PROTOCOL:
            raise WireError("protocol", f"version {brief(protocol)}; this is version {PROTOCOL}")
        if not isinstance(sender, str) or not _is_name(sender):
            raise WireError("malformed", "no sender")
        if not isinstance(incarnation, str) or not _is_incarnation(incarnation):
            raise WireError("malformed", "no incarnation")
        if hub is not None and (not isinstance(hub, str) or not _is_incarnation(hub)):
            raise WireError("malformed", "no incarnation of a hub")
        if not isinstance(recipient, str) or recipient not in recipients:
            raise WireError("misdirected", f"for {brief(recipient, 64)}")
        if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
            raise WireError("malformed", f"fields are not a map of at most {MAX_FIELDS}")
        model = self._models.get(kind) if isinstance(kind, str) else None
        if model is None:
            raise WireError("invalid", f"{brief(kind)} is not a kind of message in this direction")
        if kind == "fragments" and len(header) > SMALL_HEADER:
            _check_items(fields.get("items"))
        try:
            message = model.validate_python(fields)
        except ValidationError as error:
            raise WireError("invalid", f"{kind}: {_first_of(error)}"[:300]) from error
        if kind in WITH_PAYLOAD:
            if payload is None:
                raise WireError("malformed", f"{kind} without a payload")
            size = len(payload) + sum(map(len, more))
            if size > MAX_PAYLOAD:
                raise WireError("oversized", f"payload of {size} bytes")
            if kind != "fragments" and payload_digest(payload) != digest:
                raise WireError("checksum", f"the payload of {kind} does not match the digest in its header")
        elif payload is not None:
            raise WireError("malformed", f"{kind} takes no payload")
        if more and (kind != "fragments" or len(message.items) != 1 + len(more)):
            raise WireError("malformed", f"{len(more)} frames too many")
        return Envelope(sender, incarnation, message, payload if payload is not None else b"", more, hub)
