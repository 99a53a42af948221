"""Kinds of facts that only the tracker may write: its decisions, on which others rely.

A ledger that was edited by hand, or written by another version, may hold other bodies under these kinds: they are
checked like those of sources, so that folds need not check them.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from broker.messages import PhaseName, Version
from tracker.bounds import FIT, Count, Id, Ids, Number, Text

Sum = Annotated[int, Field(ge=0)]
Random = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Counts = list[Count]
_request = {"to": Id, "incarnation": Id, "request": Count, "deadline": Count}
_given_up = {"task": Id, "reason": Text, "life": NotRequired[Count]}

FIELDS: dict[str, dict[str, Any]] = {
    "phase": {"phase": PhaseName, "reason": Text, "failed": bool, "launch": NotRequired[Count]},
    "epoch": {"epoch": Count, "env_steps": Sum},
    "clock": {"seconds": Annotated[float, Field(ge=0, le=1e12)], "duplicates": NotRequired[Sum]},
    "life": {"policy": Id, "life": Count, "incarnation": Id},
    "assign": {"task": Id, **_request},
    "lease_returned": {"task": Id, "from": Id, "reason": Text},
    "late_outcome": {"task": Id, "from": Id, "of": Count},
    "duplicate_task": {"task": Id, "policy": Id, "of": Count},
    "evict": _given_up,
    "given_up": _given_up,
    "curriculum": {
        "launch": Count,
        "settings": dict[str, Any],
        "changed": dict[str, tuple[Any, Any]],
        "migrated": dict[str, str],
        "random": NotRequired[Random],
    },
    "pool_accept": {
        "of": Count,
        "accepted": Count,
        "declined": list[tuple[Count, Id, Text]],
        "until": NotRequired[Count],
    },
    "pool_rest": {"task": Id, "until": Count},
    "pool_ready": {"tasks": list[Id]},
    "pool_evict": {"task": Id, "reason": Text, "note": Text},
    "draw": {**_request, "first": Count, "tasks": Ids, "random": Random},
    "draw_returned": {"draws": Counts, "from": Id, "reason": Text},
    "outcome_refused": {"task": Id, "of": Count, "from": Id, "reason": Text},
    "generate": {"generation": Id, "most": Count, **_request},
    "generation_ended": {"generation": Id, "from": Id, "reason": Text, "failed": bool, "until": Count},
    "checkpoint": {
        "policy": Id,
        "version": Version,
        "file": Id,
        "size": Count,
        "sha256": NotRequired[Id],
        "score": Number,
        "best": bool,
    },
    "checkpoint_skipped": {"policy": Id, "file": Id, "reason": Text},
    "liveness": {"role": Id, "state": Id, "incarnation": Id},
    "status_sample": {},
    "refused": {"kind": Text, "reason": Text, "text": Text},
}
"""By kind, the fields of its body and their types. A body may have further fields."""


def _model(kind: str, fields: dict[str, Any]) -> Any:
    make: Any = TypedDict  # of fields that stand in a table
    return with_config(FIT)(make(kind, fields))


MODELS = {kind: _model(kind, fields) for kind, fields in FIELDS.items()}
