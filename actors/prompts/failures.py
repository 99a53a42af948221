"""Why a call failed, whether another try can help, and whether its failure says anything about the template.

A call that fails through the *candidate* (a context that is too long, a content filter, an answer that never began) is
a measurement: its trial is a reward of 0. A call that fails through its *surroundings* (an account without credit, an
outage) measures nothing: its trial is missing, and `Missing` names what failed.

Invariant: pure. What an endpoint said is judged by its status and its words, never by when it said so.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Missing = Literal["account", "endpoint", "time", "agent", "grader"]
"""What failed where a trial is missing: the account has no credit, the endpoint cannot answer, the time was over, the
user's agent raised, or the user's grader gave no reward."""
Verdict = Literal["again", "candidate", "account", "endpoint", "key", "request"]
"""Try again; a measurement; two faults of the surroundings; a wrong key; a request that is wrong for every prompt."""

ACCOUNT = re.compile(
    r"insufficient[ _](quota|balance|credit|funds)|billing[ _](hard[ _]limit|not[ _]active)|credit balance is too low"
    r"|account[ _](deactivated|suspended|overdue)|out of credits",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"context[ _](length|window|size)|maximum context|string_above_max"
    r"|(prompt|input|request|message)s? (is |are )?too l(ong|arge)",
    re.IGNORECASE,
)
FILTERED = re.compile(
    r"content[ _]?(filter|policy|management)|moderation|flagged|safety|responsible ?ai", re.IGNORECASE
)
EVENT_STREAM = "event_stream"
"""The code of a fault that the endpoint streams its answer, which was not asked for."""
STATUS_OF_CODE = {
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "insufficient_quota": 402,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "server_error": 500,
}
"""Statuses of errors that come under status 200 with a word in place of a number."""


class CallFailed(Exception):  # noqa: N818 - reads as what happened
    """A chat completion that could not be had; its text is the reason. `missing`: None if it is a measurement."""

    def __init__(self, reason: str, missing: Missing | None = "endpoint") -> None:
        super().__init__(reason)
        self.missing = missing


class PermanentFailure(CallFailed):
    """Another try would fail alike."""


class TransientFailure(CallFailed):
    """Another try may succeed, after `after` seconds if the endpoint said so."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class ConnectionFailed(TransientFailure):
    """No process listens at the address: nothing was sent."""


class Fault(NamedTuple):
    """What an endpoint said in place of a completion. `status` is None for an error without one, under status 200."""

    status: int | None
    message: str
    code: str = ""
    """Its error code and type, as words."""


def verdict(fault: Fault, *, served: bool) -> Verdict:
    """What follows from a fault. `served`: whether this endpoint has answered a request before."""
    status, words = fault.status, f"{fault.code} {fault.message}"
    if status == 401:
        return "key"
    if status == 402 or ACCOUNT.search(words):
        return "account"
    if status in {408, 409, 425, 429}:
        return "again"
    if status == 413 or TOO_LONG.search(words):
        return "candidate"
    if fault.code == EVENT_STREAM or status in {501, 505}:
        return "endpoint"
    if status is None or status >= 500:
        return "again"
    if FILTERED.search(words):
        return "candidate"
    if status < 400 or status in {403, 404, 405, 410}:
        return "endpoint" if served else "request"
    # Any other refusal is of what was sent, if the endpoint answers other requests.
    return "candidate" if served else "endpoint"
