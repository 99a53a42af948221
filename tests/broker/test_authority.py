"""Who may say what to which hub, over the whole table, and from which incarnations."""

from __future__ import annotations

import typing

import pytest

from broker import authority, clock
from broker import messages as m
from broker.errors import WireError
from broker.names import role_of
from broker.wire import Envelope
from tests.broker.draws import incarnation

NOW = 10**18
SECOND = 10**9
COMMON = {"hello", "status", "farewell"}
TABLE = {
    ("launcher", "tracker"): COMMON | {"facts"},
    ("learner-p", "tracker"): COMMON | {"facts", "checkpoint_offer", "chunk", "restore_request"},
    ("actor-0", "tracker"): COMMON | {"facts", "task_request"},
    ("endpoint-web", "tracker"): COMMON | {"facts"},
    ("dashboard-x", "tracker"): COMMON,
    ("actor-0", "learner-p"): {"hello", "fragments", "farewell"},
}
NAMES = (
    "launcher", "tracker", "learner-p", "learner-q", "actor-0", "endpoint-web", "dashboard-x", "stranger", "actor",
    "actor-", "actor-x", "learner-", "launcher-1", "tracker-2", "Actor-0",
)  # fmt: skip
ITEM = m.FragmentItem(sequence=1, version=(1, 1), crc=0, steps=1)
MESSAGES = {
    "fragments": m.Fragments(layout="0" * 32, items=(ITEM,)),
    "facts": m.Facts(first=1, items=()),
    "status": m.Status(),
    "task_request": m.TaskRequest(request=1, count=1),
    "chunk": m.Chunk(offer=1, index=0),
    "farewell": m.Farewell(),
}


def message(kind: str, sender: str) -> m.Message:
    policy = sender.partition("-")[2] or "p" if sender.startswith("learner") else None
    match kind:
        case "hello":
            return m.Hello(role=typing.cast(m.RoleKind, role_of(sender) or "actor"), pid=1, policy=policy)
        case "checkpoint_offer":
            return m.CheckpointOffer(offer=1, policy=policy or "p", version=(1, 1), size=1, sha256="0" * 64)
        case "restore_request":
            return m.RestoreRequest(policy=policy or "p")
    return MESSAGES[kind]


def reason(sender: str, said: m.Message, hub: str = "tracker", age: int = 1) -> str:
    try:
        authority.check(hub, Envelope(sender, incarnation(age), said, b""), clock.begin(NOW, 0))
    except WireError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("hub", ["tracker", "learner-p", "hub"])
@pytest.mark.parametrize("sender", NAMES)
def test_a_hub_takes_from_each_role_what_the_table_says(sender: str, hub: str) -> None:
    kinds = {model.model_fields["kind"].default for model in typing.get_args(typing.get_args(m.ToHub)[0])}
    taken = {kind for kind in kinds if not reason(sender, message(kind, sender), hub)}
    row = (sender if sender != "learner-q" else "learner-p", hub)
    assert taken == TABLE.get(row, set())


@pytest.mark.parametrize(
    ("sender", "said"),
    [
        ("actor-0", m.Hello(role="launcher", pid=1)),
        ("actor-0", m.Hello(role="actor", pid=1, address="ipc:///tmp/x")),
        ("launcher", m.Hello(role="launcher", pid=1, address="ipc:///tmp/x")),
        ("learner-p", m.Hello(role="learner", pid=1, policy="q", address="ipc:///tmp/x")),
        ("learner-p", m.Hello(role="learner", pid=1)),
        ("learner-q", message("checkpoint_offer", "learner-p")),
        ("learner-q", message("restore_request", "learner-p")),
    ],
)
def test_nobody_speaks_for_another_role_or_policy(sender: str, said: m.Message) -> None:
    assert reason(sender, said) == "forbidden"


def test_an_address_is_a_learners_or_an_endpoints() -> None:
    assert not reason("learner-p", m.Hello(role="learner", pid=1, policy="p", address="ipc:///tmp/x"))
    assert not reason("endpoint-web", m.Hello(role="endpoint", pid=1, address="http://127.0.0.1:1"))


def test_an_incarnation_from_the_future_is_refused() -> None:
    hello = m.Hello(role="actor", pid=1)
    most = authority.MAX_AHEAD
    for ahead, expected in ((-(10**17), ""), (0, ""), (most, ""), (most + 60 * SECOND, "future")):
        assert reason("actor-0", hello, age=NOW + ahead) == expected
    assert reason("actor-0", hello, age=2**64 - 1) == "future"
