"""The `[scripted]` section: how the simulated endpoint behaves.

Invariant: rates are shares of the requests, drawn from the seed, the messages and the attempt: never from the order in
which requests come.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
MODEL = "scripted-1"
"""The one model that it serves."""


class Scripted(BaseModel):
    """The `[scripted]` section."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    latency_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 0.02
    """How long it takes to answer."""
    latency_spread: Share = 0.0
    """Share by which one answer may be faster or slower than another."""
    rate_429: Share = 0.0
    rate_500: Share = 0.0
    rate_timeout: Share = 0.0
    """Requests that are never answered."""
    rate_half: Share = 0.0
    """Requests whose answer breaks off in the middle."""
    rate_empty: Share = 0.0
    """Critiques that are empty."""
    rate_broken_edit: Share = 0.05
    """Edits that break the template's placeholders."""
    retry_after_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 0.05
    """What a 429 asks for."""
    concurrency: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Requests that it serves at once; more get a 429. 0: no limit."""
    journal: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A file to which each request adds a line before it is answered: what was asked for, however the server ends."""
