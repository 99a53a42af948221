"""The sections `[prompts]` and `[endpoints.*]` of the run file.

Invariant: a key is never in a run file: only the name of an environment variable, or the path of a file. What reads
these settings needs no client library.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue

SCRIPTED = "scripted"
"""The `url` of the simulation that the launcher starts."""
DEFAULT_AGENT = "actors.prompts.agent:answer"
DEFAULT_GRADER = "actors.scoring.grading:exact"

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Prompts(_Section):
    """What is asked, how, and what an answer is worth."""

    template: str | None = None
    """The first template; it holds at least one placeholder."""
    template_file: str | None = None
    """The file that holds it instead; the resolved run file has its text under `template`."""
    agent: str = DEFAULT_AGENT
    """`async def answer(task, template, chat) -> str`, or a class with this method."""
    grader: str = DEFAULT_GRADER
    """`grade(task, answer) -> reward | (reward, reason)`, or a class with this method."""
    solution: Annotated[str, Field(max_length=256)] = "answer"
    """The field of a task with its solution: the default grader compares with it, and no template may contain it."""
    training: str
    """A file of JSON lines, one task a line, or of one JSON list of tasks."""
    validation: str
    training_items: Count | None = None
    """Only the first so many; none: all."""
    validation_items: Count | None = None
    training_sha256: Sha256 | None = None
    """Of the file; none: as it is when the run is started. In the resolved run file it is always there."""
    validation_sha256: Sha256 | None = None
    rollout_seconds: Seconds = 50.0
    """What takes longer, retries and waits among it, has failed. Under the lease, so that nothing is paid for twice."""
    max_missing_share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """If a larger share of all trials is missing, because of faults of the surroundings, the run fails."""


class Endpoint(_Section):
    """One OpenAI-compatible endpoint."""

    url: Annotated[str, Field(min_length=1, max_length=1024)]
    """`scripted`, or the base URL that ends before `/chat/completions`."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    key_env: str | None = None
    """The environment variable that holds the key."""
    key_file: str | None = None
    """The file that holds it."""
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 16
    """Calls under way at once, over all runners, for one URL and key."""
    timeout_seconds: Seconds = 30.0
    """For one try."""
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    """Further tries after 429, 5xx, a timeout, a lost connection or half a response."""
    backoff_seconds: Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)] = 0.5
    """The first wait is about this long; it doubles. A `Retry-After` that is longer is kept."""
    price_in: Price = 0.0
    """Of a million tokens."""
    price_out: Price = 0.0
    options: dict[str, JsonValue] = {}
    """More of the request: temperature, max_tokens and the like."""


class Endpoints(_Section):
    """Who answers, criticises and edits; the last two are `answer` where they are left out."""

    answer: Endpoint
    critique: Endpoint | None = None
    edit: Endpoint | None = None


RESERVED_OPTIONS = frozenset(
    {"model", "messages", "stream", "n", "timeout", "extra_headers", "extra_query", "extra_body", "api_key"}
)
"""What `options` may not hold: the client's own, and what could carry a key."""


def endpoint_name(endpoints: Mapping[str, Any], role: str) -> str:
    """Which section serves a role; RequestError is the caller's, for a role that nobody may ask for."""
    return role if endpoints.get(role) else "answer"


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine alone: no proxy of the environment's is asked to fetch it."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def share(concurrency: int, runners: int, index: int) -> int:
    """How many calls runner `index` of `runners` may have under way; all shares together are `concurrency`."""
    return concurrency // runners + (index < concurrency % runners)
