"""Which environment a run plays: the part of a run file that an environment needs, and nothing else.

Invariant: frozen, checked and JSON-able, so that it is all that travels; every process builds its own environment from
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field


class EnvironmentSettings(BaseModel):
    """An environment's id, its constructor's arguments, and how it is to be run.

    `id` is a Gymnasium id ("CartPole-v1"), a PettingZoo module ("mpe2:simple_spread_v3", or with dots), or
    "package.module:callable". `normalise` names what is scaled by running statistics (by the policy's owner: the
    environment itself gives raw values). `vector` asks for the environment's own vector form. `actions` says how a
    policy's actions reach a Box with finite bounds: -1 to 1 are mapped to the bounds ("rescale"), or only clipped to
    them ("clip").
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    settings: dict[str, Any] = {}
    normalise: tuple[Literal["observation", "reward"], ...] = ()
    vector: bool = False
    actions: Literal["rescale", "clip"] = "rescale"

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self:
        """Read them from a resolved run file that has an `[environment]`."""
        environment = run["environment"]
        return cls(
            id=environment["id"],
            settings=environment["settings"],
            normalise=tuple(environment["normalise"]),
            vector=run["actors"]["vector"],
            actions=run["policies"]["actions"],
        )

    @property
    def rescale(self) -> bool:
        """Whether actions are rescaled."""
        return self.actions == "rescale"
