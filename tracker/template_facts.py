"""What a prompt search says of itself: the bodies of `template`, `refused_template` and `round`.

These words are not kept for it: an algorithm of a user's own may say a `round` of another form. So they have no model
in `tracker.facts`, which would refuse them.

Invariant: `fitting` gives a body only if it is a search's; whatever else bears such a name is left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from broker.messages import Name, Version
from broker.names import policy_of
from tracker.bounds import Amount, Count, Id, Ids, Number, Reason, Text
from tracker.facts import Fact

_config = ConfigDict(extra="allow", allow_inf_nan=False)


@with_config(_config)
class Template(TypedDict):
    """A template that is tested, and where it comes from."""

    policy: Name
    template: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    text: Text
    parent: Id | None
    critique: Text
    round: Count
    candidate: Count
    version: NotRequired[Version | None]
    placeholders: Ids


@with_config(_config)
class RefusedTemplate(TypedDict):
    """A candidate that came to nothing, and why."""

    policy: Name
    text: Text
    parent: Id | None
    round: Count
    candidate: Count
    reason: Reason


@with_config(_config)
class Round(TypedDict):
    """The end of a round: what is kept, who led, the best so far, and what was spent up to here."""

    policy: Name
    round: Count
    rounds: NotRequired[Count]
    beam: Ids
    leader: Id
    leader_mean: NotRequired[Number]
    best: Id
    best_mean: Number
    calls: Amount
    tokens: Amount
    cost: Number


OF_SEARCHES: dict[str, Any] = {"template": Template, "refused_template": RefusedTemplate, "round": Round}
_models: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(model) for kind, model in OF_SEARCHES.items()}


def fitting(fact: Fact) -> dict[str, Any] | None:
    """Return the fields of a search's fact as plain values; None if the fact does not fit, or is not from the learner
    of its policy.
    """
    try:
        body = _models[fact.kind].validate_python(fact.body)
    except ValidationError:
        return None
    if body["policy"] != policy_of(fact.source):
        return None
    return {key: body[key] for key in OF_SEARCHES[fact.kind].__annotations__ if key in body}
