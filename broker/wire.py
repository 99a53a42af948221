"""Messages and frames, both ways.

    to a hub     [header] [payload] ...
    to a spoke   [topic] [header] [payload]

A header is a MAC (16 bytes), the run's public id (8 bytes) and one msgpack array: protocol version, sender, its
incarnation, recipient, the hub incarnation that is addressed, kind, fields, digest of the payload. The MAC is keyed
with the run token, which never travels, and is checked before anything parses the bytes that it covers. A payload is
there only where the kind has one; several fragments may bring one each. Invariant: `decode` returns a message only when
the MAC, the protocol, the recipient, every field, the sizes and the digest are right; everything else is a WireError
whose `reason` is counted.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgpack
from pydantic import TypeAdapter, ValidationError

from broker.errors import WireError
from broker.messages import Message, to_hub, to_spoke
from broker.names import RESERVED
from broker.sending import Payload

PROTOCOL = 2
MAX_HEADER = 8 * 1024 * 1024
MAX_PAYLOAD = 1024 * 1024 * 1024
WITH_PAYLOAD = frozenset({"fragments", "parameters", "chunk", "standings"})
MAC_SIZE = 16
RUN_ID_SIZE = 8
_BODY = MAC_SIZE + RUN_ID_SIZE
_SENDER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_INCARNATION = re.compile(r"[0-9a-f]{32}")
_UP, _DOWN = b"headrace up", b"headrace down"
"""BLAKE2b personalisations: a frame to a spoke is no frame to a hub, though one token keys both."""


class Envelope(NamedTuple):
    """A message that was believed, who sent it, and its payload."""

    sender: str
    incarnation: str
    message: Any
    payload: Payload
    more: tuple[Payload, ...] = ()
    """The payloads of further fragments, where each came in a frame of its own."""
    hub: str | None = None
    """To a hub: the incarnation of the hub that the sender addressed; None from one that has not heard the hub yet."""


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


def payload_digest(payload: Payload) -> bytes:
    """Hash a payload. Its header carries the hash, so that the header's MAC vouches for the payload."""
    return blake2b(payload, digest_size=16).digest()


class Codec:
    """Encodes what one role says and decodes what is said to it."""

    def __init__(self, identity: Identity, side: Literal["hub", "spoke"]) -> None:
        self.identity = identity
        self._run_id = run_id(identity.token)
        says, hears = (_DOWN, _UP) if side == "hub" else (_UP, _DOWN)
        self._says, self._hears = self._keyed(says), self._keyed(hears)
        self._models: dict[str, TypeAdapter[Any]] = to_hub if side == "hub" else to_spoke

    def _keyed(self, direction: bytes) -> blake2b:
        """The MAC's state after the key and the run id: copying it costs half of keying again."""
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

    def _authentic(self, header: Payload) -> memoryview:
        """The body of a header whose MAC is right. WireError for any other header."""
        frame = memoryview(header)
        if frame[MAC_SIZE:_BODY] != self._run_id:
            raise WireError("foreign", "another run's, or no frame of this protocol")
        mac = self._hears.copy()
        mac.update(frame[_BODY:])
        if not hmac.compare_digest(frame[:MAC_SIZE], mac.digest()):
            raise WireError("foreign", "names this run, but its MAC is wrong: the sender does not have the run token")
        return frame[_BODY:]

    def decode(
        self, header: Payload, payload: Payload | None, recipients: tuple[str, ...], more: tuple[Payload, ...] = ()
    ) -> Envelope:
        """What the frames say to one of `recipients`; `more` came after the first payload. WireError otherwise."""
        if len(header) > MAX_HEADER:
            raise WireError("oversized", f"header of {len(header)} bytes")
        body = self._authentic(header)
        try:
            parts = msgpack.unpackb(body, use_list=False, strict_map_key=True)
        except Exception as error:  # msgpack raises five kinds, none of which share more than Exception
            raise WireError("malformed", "the header is not msgpack") from error
        if not isinstance(parts, tuple) or len(parts) != 8:
            raise WireError("malformed", "the header has not eight parts")
        protocol, sender, incarnation, recipient, hub, kind, fields, digest = parts
        if type(protocol) is not int or protocol != PROTOCOL:
            raise WireError("protocol", f"version {str(protocol)[:20]}; this is version {PROTOCOL}")
        if not isinstance(sender, str) or not _SENDER.fullmatch(sender) or sender in RESERVED:
            raise WireError("malformed", "no sender")
        if not isinstance(incarnation, str) or not _INCARNATION.fullmatch(incarnation):
            raise WireError("malformed", "no incarnation")
        if hub is not None and (not isinstance(hub, str) or not _INCARNATION.fullmatch(hub)):
            raise WireError("malformed", "no incarnation of a hub")
        if recipient not in recipients:
            raise WireError("misdirected", f"for {str(recipient)[:64]!r}")
        if not isinstance(fields, dict):
            raise WireError("malformed", "fields are not a map")
        model = self._models.get(kind) if isinstance(kind, str) else None
        if model is None:
            raise WireError("invalid", f"{str(kind)[:40]!r} is no kind of message in this direction")
        try:
            message = model.validate_python(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise WireError("invalid", f"{str(kind)[:40]}: {where}: {first['msg']}"[:300]) from error
        if kind in WITH_PAYLOAD:
            if payload is None:
                raise WireError("malformed", f"{kind} without a payload")
            size = len(payload) + sum(map(len, more))
            if size > MAX_PAYLOAD:
                raise WireError("oversized", f"payload of {size} bytes")
            if kind != "fragments" and payload_digest(payload) != digest:
                raise WireError("checksum", f"the payload of {kind} is not the one that its header vouches for")
        elif payload is not None:
            raise WireError("malformed", f"{kind} takes no payload")
        if more and (kind != "fragments" or len(message.items) != 1 + len(more)):
            raise WireError("malformed", f"{len(more)} frames too many")
        return Envelope(sender, incarnation, message, payload if payload is not None else b"", more, hub)
