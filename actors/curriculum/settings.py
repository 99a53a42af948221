"""What a run file says of a curriculum's source and of its scores: the part of `[curriculum]` that actors read.

Invariant: frozen, closed and checked, without code of the user's own; exactly one source is named. The part that the
tracker reads is `tracker.curriculum.settings`, and neither knows of the other: `launcher.curriculum` joins them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_serializer, field_validator, model_validator

Finite = Annotated[float, Field(allow_inf_nan=False)]
Body = dict[str, JsonValue]
REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
MOST_SEEDS = 1_000_000
SOURCES = ("tasks", "generator", "levels")


class Closed(BaseModel):
    """What all parts share: closed, frozen, strict."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ListedTask(Closed):
    """One task of a list."""

    label: Annotated[str, Field(min_length=1, max_length=256)]
    body: Body = {}


class Levels(Closed):
    """The levels of the environment: those that it lists itself, or a grid of parameters and seeds."""

    attribute: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Attribute or method of the environment (unwrapped) that gives its levels, as (label, body) pairs."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(strict=False)] = ()
    """[1, 2, 3], or how many: 100 is 0 to 99."""
    options: dict[str, Annotated[tuple[JsonValue, ...], Field(strict=False, min_length=1)]] = {}
    """For `reset(options=)`: for each name its values."""
    settings: dict[str, Annotated[tuple[JsonValue, ...], Field(strict=False, min_length=1)]] = {}
    """For the constructor, over `environment.settings`: for each name its values."""
    label: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A template, `{name}` stands for a parameter's value; none: `name=value` of every parameter."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, given: Any) -> Any:
        """A number of seeds is the seeds from 0 on."""
        whole = isinstance(given, int) and not isinstance(given, bool)
        return tuple(range(given)) if whole and 0 < given <= MOST_SEEDS else given

    @field_serializer("seeds")
    def _recounted(self, seeds: tuple[int, ...]) -> int | list[int]:
        """As few words as they were given in: the resolved run file is a fact too."""
        return len(seeds) if len(seeds) > 1 and seeds == tuple(range(len(seeds))) else list(seeds)

    @property
    def size(self) -> int:
        """How many levels the grid has; 0: there is none."""
        if not (self.seeds or self.options or self.settings):
            return 0
        return max(1, len(self.seeds)) * math.prod(map(len, [*self.options.values(), *self.settings.values()]))

    def grid(self) -> list[tuple[str, Body]]:
        """Every combination as (label, body). KeyError, ValueError or IndexError: `label` is no such template."""
        found: list[tuple[str, Body]] = []
        names = [("options", name) for name in self.options] + [("settings", name) for name in self.settings]
        values = [*self.options.values(), *self.settings.values()]
        for chosen in product(*values):
            body: dict[str, dict[str, JsonValue]] = {}
            for (part, name), value in zip(names, chosen, strict=True):
                body.setdefault(part, {})[name] = value
            told = {name: value for (_, name), value in zip(names, chosen, strict=True)}
            for seed in self.seeds or (None,):
                label = " ".join(f"{name}={value}" for name, value in told.items()) or "levels"
                if self.label is not None:
                    label = self.label.format(**told, seed=seed)
                plain: Body = {**body}
                found.append((label, plain if seed is None else {**plain, "seed": seed}))
        return found

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.attribute is not None and self.size:
            raise ValueError("levels are listed by the environment (attribute) or made of seeds and parameters")
        if self.attribute is None and not self.size:
            raise ValueError("give attribute, or a grid of seeds, options and settings")
        twice = self.options.keys() & self.settings.keys()
        if twice:
            raise ValueError(f"options and settings both have {', '.join(sorted(twice))}")
        return self


class DrawingSettings(Closed):
    """Where tasks come from, and how an episode of one becomes a score."""

    tasks: Annotated[tuple[ListedTask, ...], Field(strict=False)] | str | None = None
    """A list, or the path of a JSON-lines file of the same."""
    generator: Annotated[str, Field(pattern=REFERENCE)] | None = None
    """`package.module:callable`, called with how many and a `numpy.random.Generator`; gives (label, body) pairs."""
    levels: Levels | None = None
    score: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """`return`, a key of the last `info`, or `package.module:callable`."""
    score_low: Finite | None = None
    """The return that is a score of 0."""
    score_high: Finite | None = None
    """The return that is a score of 1."""
    wait_seconds: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 120.0
    """How long an actor may wait without a task before it ends the run."""

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> Self:
        """From a resolved `[curriculum]`; the tracker's keys are passed over."""
        return cls.model_validate({name: section[name] for name in cls.model_fields if name in section})

    @property
    def sources(self) -> list[str]:
        """The sources that are named."""
        return [name for name in SOURCES if getattr(self, name) is not None]
