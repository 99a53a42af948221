"""Messages and frames, both ways.

    to a hub     [header] [payload] ...
    to a spoke   [topic] [header] [payload]

The header is one msgpack array: run token, protocol version, sender, its incarnation, recipient, kind, fields. The
payload is there only where the kind has one; several fragments may bring one each. Invariant: `decode` gives a message
only when the token, the protocol, the recipient, every field and the sizes are right; everything else is a WireError
whose `reason` is counted.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgpack
from pydantic import TypeAdapter, ValidationError

from broker.errors import WireError
from broker.messages import Message, to_hub, to_spoke
from broker.names import RESERVED
from broker.sending import Payload

PROTOCOL = 1
MAX_HEADER = 8 * 1024 * 1024
MAX_PAYLOAD = 1024 * 1024 * 1024
WITH_PAYLOAD = frozenset({"fragments", "parameters", "chunk", "standings"})
_SENDER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_INCARNATION = re.compile(r"[0-9a-f]{32}")
_TOKEN_AT = 3  # after the array's head and the two bytes that begin a binary of 16


class Envelope(NamedTuple):
    """A message that was believed, who sent it, and its payload."""

    sender: str
    incarnation: str
    message: Any
    payload: Payload
    more: tuple[Payload, ...] = ()
    """The payloads of further fragments, where each came in a frame of its own."""


@dataclass(frozen=True)
class Identity:
    """Who speaks: the run's token (32 hex digits), the role's name and its incarnation."""

    token: str
    name: str
    incarnation: str

    @property
    def key(self) -> bytes:
        """The token's 16 bytes."""
        return bytes.fromhex(self.token)


class Codec:
    """Encodes what one role says and decodes what is said to it."""

    def __init__(self, identity: Identity, side: Literal["hub", "spoke"]) -> None:
        self.identity = identity
        self._key = identity.key
        self._models: dict[str, TypeAdapter[Any]] = to_hub if side == "hub" else to_spoke

    def encode(self, message: Message, recipient: str) -> bytes:
        """The header frame of a message. WireError when it is larger than any receiver would accept."""
        fields = message.model_dump(exclude_defaults=True)
        return self.encode_fields(message.kind, fields, recipient)  # type: ignore[attr-defined]

    def encode_fields(self, kind: str, fields: dict[str, Any], recipient: str) -> bytes:
        """The header frame from fields that need no further check (hot paths)."""
        me = self.identity
        header: bytes = msgpack.packb([self._key, PROTOCOL, me.name, me.incarnation, recipient, kind, fields])
        if len(header) > MAX_HEADER:
            raise WireError("oversized", f"a header of {len(header)} bytes; at most {MAX_HEADER}")
        return header

    def decode(
        self, header: Payload, payload: Payload | None, recipients: tuple[str, ...], more: tuple[Payload, ...] = ()
    ) -> Envelope:
        """What the frames say to one of `recipients`; `more` came after the first payload. WireError otherwise."""
        if len(header) > MAX_HEADER:
            raise WireError("oversized", f"header of {len(header)} bytes")
        if not hmac.compare_digest(bytes(header[_TOKEN_AT : _TOKEN_AT + 16]), self._key):
            raise WireError("foreign", "another run's token, or none")
        try:
            parts = msgpack.unpackb(header, use_list=False, strict_map_key=True)
        except Exception as error:  # msgpack raises five kinds, none of which share more than Exception
            raise WireError("malformed", "the header is not msgpack") from error
        if not isinstance(parts, tuple) or len(parts) != 7:
            raise WireError("malformed", "the header has not seven parts")
        _, protocol, sender, incarnation, recipient, kind, fields = parts
        if type(protocol) is not int or protocol != PROTOCOL:
            raise WireError("protocol", f"version {str(protocol)[:20]}; this is version {PROTOCOL}")
        if not isinstance(sender, str) or not _SENDER.fullmatch(sender) or sender in RESERVED:
            raise WireError("malformed", "no sender")
        if not isinstance(incarnation, str) or not _INCARNATION.fullmatch(incarnation):
            raise WireError("malformed", "no incarnation")
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
        elif payload is not None:
            raise WireError("malformed", f"{kind} takes no payload")
        if more and (kind != "fragments" or len(message.items) != 1 + len(more)):
            raise WireError("malformed", f"{len(more)} frames too many")
        return Envelope(sender, incarnation, message, payload if payload is not None else b"", more)
