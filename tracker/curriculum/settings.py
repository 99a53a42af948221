"""The `[curriculum]` section of the run file, and what of it a resumed run may change.

Invariant: what shapes the pool (`SHAPING`) is the same in every life of a run, unless the run file names how it is to
be migrated; what tunes it may change, and every difference becomes part of a fact. Nothing is mixed in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.errors import RequestError

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
ScorerName = Literal["learning_progress", "variance", "replay", "uniform"]


class Migrations(BaseModel):
    """How a shaping setting that changed is carried over, by its name; one that is not named here must match."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    capacity: Literal["fit"] | None = None
    """`fit`: there is room for more, or the worst tasks go until the rest fits."""
    form: Literal["keep", "evict"] | None = Field(default=None, alias="schema")
    """`keep`: tasks of the old schema stay as they are; `evict`: they go."""
    scorer: Literal["reset"] | None = None
    """`reset`: scores and counts stay, what the old scorer derived from them begins afresh."""


class CurriculumSettings(BaseModel):
    """The `[curriculum]` section. Its presence gives the run a pool."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    capacity: Annotated[int, Field(ge=1, le=2_000_000)] = 1000
    """Most tasks in the pool."""
    form: Annotated[int, Field(ge=1, lt=2**31)] = Field(default=1, alias="schema")
    """Your own number for what tasks' bodies look like: another number is another kind of task."""
    scorer: ScorerName = "learning_progress"
    """What tells a task that teaches; see `tracker.curriculum.scorers`."""
    epsilon: Share = 0.1
    """Share of the draws that goes to all tasks alike."""
    kappa: Share = 0.2
    """Share that goes to tasks with fewer than `min_samples` outcomes."""
    min_samples: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Outcomes before a task has a baseline and a score."""
    min_presentations: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Outcomes before a task may be evicted for its score; never under `min_samples`."""
    alpha: Rate = 0.1
    """How much one outcome weighs in the running averages."""
    theta: Rate = 0.1
    """Reweighting of learning progress: smaller looks closer at tasks that are seldom solved."""
    least_progress: Share = 1e-6
    """A raw score at or below this is no progress."""
    temperature: Positive = 0.1
    """`replay`: of the ranks; smaller prefers the first ranks more."""
    staleness: Share = 0.1
    """`replay`: share of its draws that goes by staleness."""
    evict_share: Share = 0.05
    """Most of the pool that an epoch's end evicts for their score."""
    worst_share: Share = 0.25
    """Only tasks among this share, the worst by score, are evicted for it."""
    keep_share: Share = 0.5
    """Eviction for the score never takes the pool under this share of its capacity."""
    failures: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Transient failures in a row (with rests between them) before a task is evicted."""
    permanent_failures: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Permanent failures before a task is evicted."""
    backoff_seconds: Positive = 1.0
    """Rest after a first failure; it doubles with each in a row, up to 300 s."""
    generate: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most tasks that one piece of generation work asks for."""
    generating: Annotated[int, Field(ge=0, le=4096)] = 1
    """Most pieces of generation work at once; 0: tasks are minted unasked only."""
    generate_seconds: Positive = 60.0
    """The deadline of one piece of generation work."""
    epoch_outcomes: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    """Outcomes that close an epoch, besides `tracker.epoch_steps`."""
    migrate: Migrations = Migrations()
    """For a resumed run: what becomes of a shaping setting that changed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epsilon + self.kappa > 1:
            raise ValueError(f"epsilon + kappa is {self.epsilon + self.kappa:g}: it is a share of the draws, at most 1")
        if self.min_presentations < self.min_samples:
            raise ValueError(
                f"min_presentations ({self.min_presentations}) is under min_samples ({self.min_samples}): tasks would "
                "be evicted before they have a score"
            )
        return self

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> CurriculumSettings:
        """From a resolved `[curriculum]`; the keys that are the actors' business are passed over."""
        known = {field.alias or name for name, field in CurriculumSettings.model_fields.items()}
        return CurriculumSettings.model_validate({key: section[key] for key in known & section.keys()})

    def to_plain(self) -> dict[str, Any]:
        """As JSON values, by the names of the run file, without `migrate`: an instruction, not a state."""
        return self.model_dump(mode="json", by_alias=True, exclude={"migrate"})


SHAPING = ("capacity", "schema", "scorer")
"""Settings that shape the pool; all others tune it."""


def differences(
    stored: Mapping[str, Any], asked: CurriculumSettings
) -> tuple[dict[str, tuple[Any, Any]], dict[str, str]]:
    """What changed since `stored` (a `to_plain`): name -> (stored, asked), and the migrations that this calls for.

    RequestError names every shaping setting that changed and is not migrated.
    """
    after = asked.to_plain()
    ways = asked.migrate.model_dump(by_alias=True, exclude_none=True)
    changed = {
        name: (stored.get(name), after.get(name))
        for name in sorted(stored.keys() | after.keys())
        if stored.get(name) != after.get(name)
    }
    refused = [name for name in SHAPING if name in changed and name not in ways]
    if refused:
        told = "\n".join(f"  curriculum.{name}: {changed[name][0]!r} -> {changed[name][1]!r}" for name in refused)
        example = {"capacity": "fit", "schema": "evict", "scorer": "reset"}[refused[0]]
        raise RequestError(
            f"these settings shape the pool of a run that has begun, and must stay:\n{told}\n"
            f'migrate them by name (curriculum.migrate.{refused[0]} = "{example}"), or start a new run'
        )
    return changed, {name: ways[name] for name in SHAPING if name in changed and name in ways}
