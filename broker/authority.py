"""Authorisation: one table of the message kinds that each role may send to each hub, checked before a hub acts on one.

A process that has the run token can use any name, so the table limits what a faulty or hostile process of one role can
do: an actor offers no checkpoint, and a learner asks only about its own policy. `tracker.facts` says which kinds of
facts each role may write. Invariants: a name has one role; a message that its sender may not send is a WireError.
"""

from __future__ import annotations

from functools import lru_cache

from broker import messages as m
from broker.clock import born, now
from broker.errors import WireError
from broker.names import policy_of, role_of
from broker.wire import Envelope

MAX_AHEAD = 5 * 10**9
"""Nanoseconds by which an incarnation may be ahead of the hub's clock. An incarnation from the future would keep its
name until that time, and every process that is started in its place would count as older."""

_everyone = frozenset({"hello", "status", "farewell"})
SAYS: dict[str, dict[str, frozenset[str]]] = {
    "tracker": {
        "launcher": _everyone | {"facts"},
        "learner": _everyone | {"facts", "checkpoint_offer", "chunk", "restore_request"},
        "actor": _everyone | {"facts", "task_request"},
        "endpoint": _everyone | {"facts"},
        "dashboard": _everyone,
    },
    "learner": {
        "actor": frozenset({"hello", "fragments", "farewell"}),
    },
}
"""Kinds of messages, by the role of the hub and the role of the sender."""
SERVES = frozenset({"learner", "endpoint"})
"""Roles that accept connections. Only they announce an address."""
_names_a_policy = frozenset({"checkpoint_offer", "restore_request"})


@lru_cache(4096)
def may_send(hub: str, sender: str, kind: str) -> bool:
    """Whether the table lets the role of this sender send messages of this kind to this hub."""
    return kind in SAYS.get(role_of(hub) or "", {}).get(role_of(sender) or "", ())


def check(hub: str, envelope: Envelope, clock: int) -> None:
    """Raise a WireError unless the sender may send this message to this hub; `clock` sets the run's clock."""
    sender, message = envelope.sender, envelope.message
    kind = message.kind
    if not may_send(hub, sender, kind):
        raise WireError("forbidden", f"{sender} may not send {kind} to {hub}")
    if kind == "hello":
        _check_hello(sender, message)
        # Only a Hello introduces an incarnation, so no other message needs this check.
        if born(envelope.incarnation) > now(clock) + MAX_AHEAD:
            raise WireError("future", f"the incarnation of {sender} is ahead of this hub's clock")
    elif kind in _names_a_policy and message.policy != policy_of(sender):
        raise WireError("forbidden", f"{sender} may not send {kind} for policy {message.policy}")


def _check_hello(sender: str, hello: m.Hello) -> None:
    role = role_of(sender)
    if hello.role != role:
        raise WireError("forbidden", f"{sender} says that its role is {hello.role}")
    if role == "learner" and hello.policy != policy_of(sender):
        raise WireError("forbidden", f"{sender} is not the learner of {hello.policy}")
    if hello.address is not None and role not in SERVES:
        raise WireError("forbidden", f"{sender} announces an address, but its role accepts no connections")
