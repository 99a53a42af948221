"""Who may say what: one table of message kinds by hub and role, checked before a hub acts upon a message.

Whoever has the run token can name itself as it likes, so this keeps mistakes and intruders of one role from the words
of another: an actor offers no checkpoint, and a learner asks only for its own policy. Which kinds of facts a role may
write is in `tracker.facts`. Invariant: a name has one role; a message that its sender may not say is a WireError.
"""

from __future__ import annotations

from broker import messages as m
from broker.clock import born
from broker.errors import WireError
from broker.names import policy_of, role_of
from broker.wire import Envelope

MAX_AHEAD = 5 * 10**9
"""Nanoseconds by which an incarnation may be ahead of the hub's clock. One from the future would hold its name until
then, against every process that is started in its place."""

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
"""Hub -> role -> kinds of messages."""
SERVES = frozenset({"learner", "endpoint"})
"""Roles that others connect to: they alone give an address."""


def check(hub: str, envelope: Envelope, now: int) -> None:
    """WireError unless the sender may say this to the hub of this name, whose run's clock shows `now`."""
    sender, message = envelope.sender, envelope.message
    role = role_of(sender)
    if message.kind not in SAYS.get(role_of(hub) or "", {}).get(role or "", ()):
        raise WireError("forbidden", f"{sender} may not say {message.kind} to {hub}")
    if born(envelope.incarnation) > now + MAX_AHEAD:
        raise WireError("future", f"{sender} says that it began later than now")
    if isinstance(message, m.Hello):
        if message.role != role:
            raise WireError("forbidden", f"{sender} is no {message.role}")
        if role == "learner" and message.policy != policy_of(sender):
            raise WireError("forbidden", f"{sender} is not the learner of {message.policy}")
        if message.address is not None and role not in SERVES:
            raise WireError("forbidden", f"{sender} has no address: nobody connects to it")
    elif isinstance(message, m.CheckpointOffer | m.RestoreRequest) and message.policy != policy_of(sender):
        raise WireError("forbidden", f"{sender} may not say {message.kind} of {message.policy}")
