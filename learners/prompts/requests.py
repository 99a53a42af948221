"""What an optimiser asks of runners, and what comes back: requests with names made of their content, and results.

Invariants: equal requests have equal names, in every life of a learner, so that what is recorded under a name is never
paid for again; a result that `read` lets through has a reward in [0, 1] and sums that are finite.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

Split = Literal["training", "validation"]
Role = Literal["critique", "edit"]
Messages = Sequence[Mapping[str, str]]

SHOWN_ANSWER = 2_000
"""Characters of an answer that are kept: as much as a critique is shown."""
SHOWN_REASON = 500
MOST = 1e15
"""Of one amount of a usage."""


class Usage(NamedTuple):
    """What a rollout or a completion took, over all of its endpoints and attempts."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class Answer:
    """Run the agent on one item of a split with a template, and grade it."""

    template: str
    split: Split
    item: int
    attempt: int = 1

    @cached_property
    def name(self) -> str:
        """Of template, split, item and attempt."""
        return f"answer/{self.template}/{self.split}/{self.item}/{self.attempt}"

    @property
    def body(self) -> dict[str, Any]:
        """The task's body."""
        own = {"template": self.template, "item": self.item, "split": self.split, "attempt": self.attempt}
        return {"do": "answer", **own}


@dataclass(frozen=True)
class Complete:
    """One chat completion. `sequence` tells apart completions of equal messages."""

    role: Role
    messages: tuple[tuple[str, str], ...]
    """(role, content) of each."""
    sequence: int

    @cached_property
    def name(self) -> str:
        """Of role, messages and sequence."""
        text = json.dumps([self.role, self.messages, self.sequence], ensure_ascii=False, separators=(",", ":"))
        return f"{self.role}/{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

    @property
    def body(self) -> dict[str, Any]:
        """The task's body."""
        messages = [{"role": role, "content": content} for role, content in self.messages]
        return {"do": "complete", "role": self.role, "messages": messages}


Request = Answer | Complete


@dataclass(frozen=True)
class Answered:
    """What came of an `Answer`: as much of it as decisions and critiques need."""

    reward: float
    failed: bool
    answer: str
    reason: str
    usage: Usage
    missing: str = ""
    """What failed, if the trial measures nothing: then the reward has no meaning."""


@dataclass(frozen=True)
class Completed:
    """What came of a `Complete`. A failed one has no text."""

    text: str
    failed: bool
    reason: str
    usage: Usage
    missing: str = ""


Result = Answered | Completed


def read(note: Mapping[str, Any] | None) -> Result:
    """A result as a runner reports it. ValueError, naming the field, for one that cannot be."""
    if not isinstance(note, Mapping):
        raise ValueError(f"a result is a mapping, not {type(note).__name__}")  # noqa: TRY004 - refused as any other
    failed = bool(note.get("failed"))
    reason = str(note.get("reason") or "")[:SHOWN_REASON]
    missing = str(note.get("missing") or "")
    usage = _usage(note.get("usage") or ())
    match note.get("do"):
        case "answer":
            reward = 0.0 if missing else note.get("reward")
            if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0.0 <= reward <= 1.0:
                raise ValueError(f"reward: {reward!r} is not a number from 0 to 1")
            answer = str(note.get("answer") or "")[:SHOWN_ANSWER]
            return Answered(0.0 if failed else float(reward), failed, answer, reason, usage, missing)
        case "complete":
            return Completed("" if failed else str(note.get("text") or ""), failed, reason, usage, missing)
        case other:
            raise ValueError(f"do: {other!r} is neither 'answer' nor 'complete'")


def given_up(name: str, reason: str) -> Result:
    """Make the missing result of a request that no actor could run."""
    if name.startswith("answer/"):
        return Answered(0.0, True, "", reason[:SHOWN_REASON], Usage(), "actor")
    return Completed("", True, reason[:SHOWN_REASON], Usage(), "actor")


def _usage(reports: Any) -> Usage:
    if not isinstance(reports, Sequence) or not all(isinstance(report, Mapping) for report in reports):
        raise ValueError("usage: is not a list of one mapping for each endpoint")

    def summed(key: str) -> float:
        values = [report.get(key) or 0 for report in reports]
        if not all(isinstance(value, int | float) and 0 <= value <= MOST for value in values):
            raise ValueError(f"usage.{key}: {values!r} are not all numbers from 0 to {MOST:g}")
        return math.fsum(values)

    return Usage(int(summed("calls")), int(summed("tokens_in") + summed("tokens_out")), summed("cost"))


def packed(result: Result) -> list[Any]:
    """Convert a result to plain JSON values. A missing one is never stored, because it is asked for again."""
    usage = list(result.usage)
    if isinstance(result, Answered):
        return ["a", result.reward, result.failed, result.answer, result.reason, usage]
    return ["c", result.text, result.failed, result.reason, usage]


def unpacked(plain: Sequence[Any]) -> Result:
    """The result that `packed` wrote."""
    if plain[0] == "a":
        _, reward, failed, answer, reason, usage = plain
        return Answered(reward, failed, answer, reason, Usage(*usage))
    _, text, failed, reason, usage = plain
    return Completed(text, failed, reason, Usage(*usage))
