"""Classification of failed calls: whether a retry can help, and whether the failure says anything about the template.

A call that fails because of the *candidate* (its context is too long, a content filter removes the answer, the answer
never begins) is a measurement: its trial has a reward of 0. A call that fails because of its *surroundings* (an account
without credit, an outage) measures nothing: its trial is missing, and `Missing` names the cause.

Invariant: pure. A fault is classified by its status and its words, never by its time.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Missing = Literal["account", "endpoint", "time", "agent", "grader"]
"""Why a trial is missing: the account has no credit, the endpoint cannot answer, the time limit passed, the user's
agent raised, or the user's grader returned no reward."""
Verdict = Literal["again", "candidate", "account", "endpoint", "key", "request"]
"""What to do about a fault: retry; count a measurement; count a missing trial (its account or endpoint failed); end the
run (a wrong key, or a request that is wrong for every prompt)."""

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
"""The code of the fault that the endpoint streams an answer although no stream was requested."""
STATUS_OF_CODE = {
    "context_length_exceeded": 400,
    "invalid_api_key": 401,
    "insufficient_quota": 402,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "server_error": 500,
}
"""Statuses for error codes in words, which some endpoints send under status 200."""


class CallFailed(Exception):  # noqa: N818 - reads as what happened
    """A chat completion failed, for the reason in the text. `missing` is None if the failure is a measurement."""

    def __init__(self, reason: str, missing: Missing | None = "endpoint") -> None:
        super().__init__(reason)
        self.missing = missing


class PermanentFailure(CallFailed):
    """A retry would fail in the same way."""


class TransientFailure(CallFailed):
    """A retry may succeed, after `after` seconds if the endpoint named a delay."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class ConnectionFailed(TransientFailure):
    """No process listens at the address, so nothing was sent."""


class Fault(NamedTuple):
    """What an endpoint sent instead of a completion. `status` is None for an error under status 200 that names none."""

    status: int | None
    message: str
    code: str = ""
    """The endpoint's error code and type."""


def verdict(fault: Fault, *, served: bool) -> Verdict:
    """Classify a fault. `served` tells whether this endpoint has answered a request before."""
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
    # If the endpoint answers other requests, any other refusal is about this prompt.
    return "candidate" if served else "endpoint"
