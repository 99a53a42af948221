"""What a fact is in the tracker, and what each kind's body must look like.

Invariant: a body reaches a fold only after it passed the model of its kind, so that folds need not check; one that does
not pass is stored in its place as kind `refused`. Parsing and checking are one pass in Rust (`pydantic_core`): 1.7 µs
for an episode of three agents, where `json.loads` alone takes 3.5.

Every text, list, map and number of a model has a bound. A body as a whole has at most `broker.delivery.MAX_BODY`
characters and is nested at most 200 deep (the parser's own limit), which bounds what a model leaves open: `config`,
`result`, a task's `body`, and fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict

from broker.delivery import MAX_LONG_TEXT
from broker.messages import MAX_ITEMS, MAX_TEXT, Name, Version

TRACKER = "tracker"

Row = tuple[str, str, int, int, str, str]
"""(source, incarnation, sequence, time in ns, kind, body as JSON text): a fact before it has a position."""


class Fact(NamedTuple):
    """A fact as a fold reads it: its place in the ledger, and its body as plain values."""

    position: int
    source: str
    incarnation: str
    sequence: int
    time: int
    kind: str
    body: Any


_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
_hot = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""Of what comes by the thousands a second: what else a source says is in the ledger, and is not built for the folds."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that identifies something. It fits SQLite's integers and msgpack's."""
Amount = Annotated[int, Field(ge=0, le=2**40)]
"""A number that is summed. 8 million facts of the largest amount stay below 2^63; the sums themselves are Python's."""
Number = Annotated[float, Field(ge=-1e300, le=1e300)] | None
"""None where the source had a number that was not finite. The bound keeps sums finite."""
Id = Annotated[str, Field(max_length=256)]
"""The name of an agent, a policy, a role, a task, a loss."""
Reason = Annotated[str, Field(max_length=MAX_TEXT)]
LongText = Annotated[str, Field(max_length=MAX_LONG_TEXT)]
"""A traceback, or what a process wrote last. Sources send the end of a longer one (`broker.delivery.ending`)."""
Staleness = Annotated[dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Amount], Field(max_length=MAX_ITEMS)]
Amounts = Annotated[dict[Id, Amount], Field(max_length=MAX_ITEMS)]
Numbers = Annotated[dict[Id, Number], Field(max_length=MAX_ITEMS)]


@with_config(_config)
class Run(TypedDict):  # noqa: D101 - the specification's words are in docs/protocol.md
    name: Id
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    life: Count
    resumed: bool
    config: dict[str, Any]


@with_config(_config)
class Spawned(TypedDict):  # noqa: D101
    role: Id
    kind: Id
    pid: Count
    attempt: Count


@with_config(_config)
class Exited(TypedDict):  # noqa: D101
    role: Id
    pid: Count
    attempt: Count
    status: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None
    signal: Id | None
    expected: bool
    last_words: LongText


@with_config(_config)
class StopRequest(TypedDict):  # noqa: D101
    reason: Reason
    failed: bool


@with_config(_config)
class Alarm(TypedDict):  # noqa: D101
    text: Reason


@with_config(_hot)
class Episode(TypedDict):  # noqa: D101
    length: Amount
    returns: Numbers
    policies: Annotated[dict[Id, Id], Field(max_length=MAX_ITEMS)]
    lengths: NotRequired[Amounts]
    seconds: NotRequired[Number]


@with_config(_hot)
class Progress(TypedDict):  # noqa: D101
    env_steps: Amount
    agent_steps: Amounts
    dropped: NotRequired[Amounts]


@with_config(_config)
class EnvironmentRaised(TypedDict):  # noqa: D101
    traceback: LongText


@with_config(_config)
class Outcome(TypedDict):  # noqa: D101
    task: Id
    score: Number
    policy: NotRequired[Id | None]
    draw: NotRequired[Count | None]
    result: NotRequired[dict[str, Any] | None]
    missing: NotRequired[bool]


@with_config(_config)
class Delivered(TypedDict):  # noqa: D101
    task: Id
    given_up: NotRequired[bool]


@with_config(_config)
class RolloutError(TypedDict):  # noqa: D101
    task: Id
    traceback: LongText
    permanent: bool
    draw: NotRequired[Count | None]
    tell: NotRequired[bool]


@with_config(_config)
class Update(TypedDict):  # noqa: D101
    policy: Id
    version: Version
    agent_steps: Amount
    staleness: Staleness
    losses: Numbers
    consumed: Amount
    stale: Amount
    refused: Amount
    lost: Amount
    seconds: NotRequired[Number]


@with_config(_config)
class Finished(TypedDict):  # noqa: D101
    policy: Id
    reason: Reason
    failed: NotRequired[bool]


@with_config(_config)
class Fragments(TypedDict):  # noqa: D101
    policy: Id
    agent_steps: Amount
    staleness: Staleness
    consumed: Amount
    stale: Amount
    refused: Amount
    lost: Amount


@with_config(_config)
class Quarantine(TypedDict):  # noqa: D101
    source: Id
    reason: Reason
    count: Amount


@with_config(_config)
class MintedTask(TypedDict):  # noqa: D101
    task: Annotated[str, Field(min_length=1, max_length=256)]
    body: dict[str, Any]
    label: NotRequired[Any]
    """Judged task by task, as the pool accepts or declines it: a wrong one does not cost the others."""


@with_config(_config)
class Mint(TypedDict):  # noqa: D101
    policy: NotRequired[Name | None]
    tasks: Annotated[list[MintedTask], Field(max_length=16_384)]
    version: NotRequired[Version | None]
    generation: NotRequired[Id | None]
    last: NotRequired[bool]


@with_config(_config)
class GenerationFailed(TypedDict):  # noqa: D101
    generation: Id
    reason: Reason
    permanent: NotRequired[bool]
    last_words: NotRequired[LongText]


# "from" is a word of the language, hence the functional form.
Refusal = TypedDict("Refusal", {"policy": Id, "from": Id, "reason": Reason, "steps": Amount})
Refusal.__pydantic_config__ = _config  # type: ignore[attr-defined]
Resumed = TypedDict(
    "Resumed", {"policy": Id, "from": NotRequired[Version | None], "life": Count, "updates_lost": Count | None}
)
Resumed.__pydantic_config__ = _config  # type: ignore[attr-defined]


_of_sources: dict[str, Any] = {
    "run": Run,
    "spawned": Spawned,
    "exited": Exited,
    "stop_request": StopRequest,
    "alarm": Alarm,
    "episode": Episode,
    "progress": Progress,
    "environment_error": EnvironmentRaised,
    "outcome": Outcome,
    "delivered": Delivered,
    "rollout_error": RolloutError,
    "update": Update,
    "finished": Finished,
    "fragments": Fragments,
    "refusal": Refusal,
    "quarantine": Quarantine,
    "mint": Mint,
    "generation_failed": GenerationFailed,
    "resumed": Resumed,
}
OF_THE_TRACKER = frozenset(
    [
        "phase",
        "epoch",
        "clock",
        "life",
        "assign",
        "lease_returned",
        "late_outcome",
        "duplicate_task",
        "evict",
        "given_up",
        "curriculum",
        "pool_accept",
        "pool_rest",
        "pool_ready",
        "pool_evict",
        "draw",
        "draw_returned",
        "outcome_refused",
        "generate",
        "generation_ended",
        "checkpoint",
        "checkpoint_skipped",
        "liveness",
        "status_sample",
        "refused",
    ]
)
"""Kinds that only the tracker may write: they are its decisions, and others believe them."""

_any: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any], config=ConfigDict(allow_inf_nan=False))
_models = {kind: TypeAdapter(model).validator.validate_json for kind, model in _of_sources.items()}
_plain = _any.validator.validate_json


class Unfit(ValueError):  # noqa: N818 - failures are named as in broker.errors
    """A body that is not what its kind asks for; the text says where."""


def parser(kind: str) -> Callable[[str], Any]:
    """What decodes and checks bodies of this kind that were stored, and so were found fit once; ValueError if not."""
    return _models.get(kind, _plain)


def decode(kind: str, text: str) -> Any:
    """The body as plain values, checked against its kind's model (a JSON object, for a kind that has none).

    Raises Unfit, in one line that names the first wrong field.
    """
    try:
        # The models' parser takes both, though neither is JSON. A letter is sought in a fifth of the time of a word.
        if ("N" in text and "NaN" in text) or ("I" in text and "Infinity" in text):
            from_json(text, allow_inf_nan=False)
        return _models.get(kind, _plain)(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unfit(f"{where}: {first['msg']}"[:MAX_TEXT] if where else first["msg"]) from None
    except (ValueError, TypeError) as error:
        raise Unfit(f"Invalid JSON: {error}") from None
