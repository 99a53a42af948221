"""`learner.settings` of the run file, for the algorithms of prompt optimisation.

Invariant: what is let through can be run; each mistake is one line with the path of its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.errors import RequestError

Race = Literal["none", "successive_rejects", "ucb"]


class SearchSettings(BaseModel):
    """Of both algorithms, "textual_gradients" and "gepa"."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    gradient_batch: int = Field(default=4, ge=1, le=64)
    """Training questions whose transcripts one critique (or reflection) is shown."""
    validation_batch: int = Field(default=16, ge=1)
    """Validation questions on which the beam and its children are compared in a round."""
    beam: int = Field(default=4, ge=1)
    """Templates that are kept from round to round."""
    branch: int = Field(default=4, ge=1)
    """Children that each parent is asked for in a round."""
    rounds: int = Field(default=3, ge=0)
    race: Race = "none"
    """How a round compares its candidates: all on the whole batch, or fewer of them the longer it goes on."""
    race_share: float = Field(default=0.5, gt=0, le=1)
    """Of the rollouts that "none" would take, how many a race may take."""
    exploration: float = Field(default=0.5, ge=0)
    """Of "ucb": the weight of not knowing."""
    calls: int | None = Field(default=None, ge=1)
    """Budget: calls of endpoints in all, failed attempts too."""
    tokens: int | None = Field(default=None, ge=1)
    """Budget: tokens in and out."""
    money: float | None = Field(default=None, gt=0)
    """Budget: cost, in the unit of the endpoints' prices."""

    @property
    def proposals(self) -> int:
        """Children that a round asks for at most."""
        return self.beam * self.branch

    @property
    def budgeted(self) -> bool:
        """Whether there is any budget."""
        return (self.calls, self.tokens, self.money) != (None, None, None)


def checked(settings: Mapping[str, Any], algorithm: str) -> SearchSettings:
    """The settings, validated. RequestError with the path of every key that is wrong."""
    try:
        found = SearchSettings.model_validate(dict(settings))
    except ValidationError as error:
        wrong = []
        for fault in error.errors(include_url=False):
            path = ".".join(("learner", "settings", *map(str, fault["loc"])))
            known = ", ".join(SearchSettings.model_fields) if fault["type"] == "extra_forbidden" else ""
            wrong.append(f"{path}: {fault['msg']}{f'; known are {known}' if known else ''}")
        raise RequestError("\n".join(wrong)) from None
    if algorithm == "gepa" and found.race != "none":
        raise RequestError(
            f"learner.settings.race: gepa scores whom it accepts on the whole validation set and has nothing to race;"
            f' leave out race = "{found.race}", or take learner.algorithm = "textual_gradients"'
        )
    return found
