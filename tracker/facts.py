"""What a fact is in the tracker, and what each kind's body must look like.

Invariant: a body reaches a fold only after it passed the model of its kind, so that folds need not check it; a fact
whose body does not pass is stored in its place as kind `refused`. Parsing and checking are one pass in Rust
(`pydantic_core`): 1.7 µs for an episode of three agents, where `json.loads` alone takes 3.5.

Every text, list, map and number of a model has a bound (`tracker.bounds`). A whole body has at most
`broker.delivery.MAX_BODY` characters and 200 levels (the parser's limit), which bounds the fields that a model leaves
open: `config`, `result`, a task's `body`, and fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict

from broker.messages import MAX_ITEMS, MAX_TEXT, Name, Version
from broker.names import policy_of, role_of
from tracker import own_facts
from tracker.bounds import FIT, HOT, Amount, Amounts, Count, Id, LongText, Number, Numbers, Reason, Staleness

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


@with_config(FIT)
class Run(TypedDict):  # noqa: D101 - the specification's words are in docs/protocol.md
    name: Id
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    life: Count
    resumed: bool
    config: dict[str, Any]


@with_config(FIT)
class Spawned(TypedDict):  # noqa: D101
    role: Id
    kind: Id
    pid: Count
    attempt: Count


@with_config(FIT)
class Exited(TypedDict):  # noqa: D101
    role: Id
    pid: Count
    attempt: Count
    status: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None
    signal: Id | None
    expected: bool
    last_words: LongText


@with_config(FIT)
class StopRequest(TypedDict):  # noqa: D101
    reason: Reason
    failed: bool


@with_config(FIT)
class Alarm(TypedDict):  # noqa: D101
    text: Reason


@with_config(HOT)
class Episode(TypedDict):  # noqa: D101
    length: Amount
    returns: Numbers
    policies: Annotated[dict[Id, Id], Field(max_length=MAX_ITEMS)]
    lengths: NotRequired[Amounts]
    seconds: NotRequired[Number]


@with_config(HOT)
class Progress(TypedDict):  # noqa: D101
    env_steps: Amount
    agent_steps: Amounts
    dropped: NotRequired[Amounts]


@with_config(FIT)
class EnvironmentRaised(TypedDict):  # noqa: D101
    traceback: LongText


@with_config(FIT)
class Outcome(TypedDict):  # noqa: D101
    task: Id
    score: Number
    policy: NotRequired[Id | None]
    draw: NotRequired[Count | None]
    result: NotRequired[dict[str, Any] | None]
    missing: NotRequired[bool]


@with_config(FIT)
class Delivered(TypedDict):  # noqa: D101
    task: Id
    given_up: NotRequired[bool]


@with_config(FIT)
class RolloutError(TypedDict):  # noqa: D101
    task: Id
    traceback: LongText
    permanent: bool
    draw: NotRequired[Count | None]
    tell: NotRequired[bool]


@with_config(FIT)
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
    fault: NotRequired[Reason]


@with_config(FIT)
class Finished(TypedDict):  # noqa: D101
    policy: Id
    reason: Reason
    failed: NotRequired[bool]


@with_config(FIT)
class Fragments(TypedDict):  # noqa: D101
    policy: Id
    agent_steps: Amount
    staleness: Staleness
    consumed: Amount
    stale: Amount
    refused: Amount
    lost: Amount


@with_config(FIT)
class Quarantine(TypedDict):  # noqa: D101
    source: Id
    reason: Reason
    count: Amount


@with_config(FIT)
class MintedTask(TypedDict):  # noqa: D101
    task: Annotated[str, Field(min_length=1, max_length=256)]
    body: dict[str, Any]
    label: NotRequired[Any]
    """Judged task by task, as the pool accepts or declines it: a wrong one does not cost the others."""


@with_config(FIT)
class Mint(TypedDict):  # noqa: D101
    policy: NotRequired[Name | None]
    tasks: Annotated[list[MintedTask], Field(max_length=16_384)]
    version: NotRequired[Version | None]
    generation: NotRequired[Id | None]
    last: NotRequired[bool]


@with_config(FIT)
class GenerationFailed(TypedDict):  # noqa: D101
    generation: Id
    reason: Reason
    permanent: NotRequired[bool]
    last_words: NotRequired[LongText]


# "from" is a word of the language, hence the functional form.
Refusal = TypedDict("Refusal", {"policy": Id, "from": Id, "reason": Reason, "steps": Amount})
Refusal.__pydantic_config__ = FIT  # type: ignore[attr-defined]
Resumed = TypedDict(
    "Resumed", {"policy": Id, "from": NotRequired[Version | None], "life": Count, "updates_lost": Count | None}
)
Resumed.__pydantic_config__ = FIT  # type: ignore[attr-defined]


_of_sources: dict[str, tuple[Any, str]] = {
    "run": (Run, "launcher"),
    "spawned": (Spawned, "launcher"),
    "exited": (Exited, "launcher"),
    "stop_request": (StopRequest, "launcher actor"),
    "alarm": (Alarm, "launcher"),
    "episode": (Episode, "actor"),
    "progress": (Progress, "actor"),
    "environment_error": (EnvironmentRaised, "actor"),
    "outcome": (Outcome, "actor"),
    "delivered": (Delivered, "actor"),
    "rollout_error": (RolloutError, "actor"),
    "update": (Update, "learner"),
    "finished": (Finished, "learner"),
    "fragments": (Fragments, "learner"),
    "refusal": (Refusal, "learner"),
    "quarantine": (Quarantine, "learner"),
    "mint": (Mint, "learner actor"),
    "generation_failed": (GenerationFailed, "actor"),
    "resumed": (Resumed, "learner"),
}
"""By kind, the model of its body and the roles that may write it. The tracker may write all of these kinds."""
OF_THE_TRACKER = frozenset(own_facts.MODELS)
"""Kinds that only the tracker may write: they are its decisions, and others believe them."""

SPEAKING = frozenset({"stop_request", "update", "finished", "fragments", "refusal", "mint", "resumed"})
"""Kinds for which the permission to write also depends on the body (`check_words`)."""

_any: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any], config=ConfigDict(allow_inf_nan=False))
_models = {
    kind: TypeAdapter(model).validator.validate_json
    for kind, model in {**{kind: model for kind, (model, _) in _of_sources.items()}, **own_facts.MODELS}.items()
}
_plain = _any.validator.validate_json


class Unfit(ValueError):  # noqa: N818 - failures are named as in broker.errors
    """A body that is not what its kind asks for; the text says where."""


@lru_cache(4096)
def forbidden_kinds(source: str, *, pooled: bool) -> frozenset[str]:
    """Return the kinds of facts that a source may not write. Unknown kinds are open to every role.

    `pooled`: the run has a curriculum. Only then may an actor ask for the end of the run, because the pool may run dry.
    """
    role = role_of(source)
    kinds = OF_THE_TRACKER | {kind for kind, (_, writers) in _of_sources.items() if role not in writers.split()}
    return kinds if pooled or role != "actor" else kinds | {"stop_request"}


def check_words(source: str, kind: str, body: Any) -> None:
    """Raise Unfit if this source may not write this body: a learner, for example, writes only about its own policy."""
    policy = policy_of(source)
    if policy is not None:
        if body.get("policy", policy) not in {policy, None}:
            raise Unfit(f"{source} may not write {kind} facts of {str(body['policy'])[:64]!r}")
    elif kind == "mint" and (body.get("policy") is not None or body.get("generation") is None):
        raise Unfit(f"{source} may mint only for the pool, as the result of generation work")
    elif kind == "stop_request" and role_of(source) == "actor" and not body["failed"]:
        raise Unfit(f"{source} may end a run only as failed")


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
