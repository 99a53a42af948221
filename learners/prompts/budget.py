"""What a search has spent, and how many children it can still afford.

Invariant: pure. What a stage has spent is a sum over the names that it asked for, exact whatever the order in which
their results came; so a decision taken on it at a barrier is the same in every life of a learner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from learners.prompts.requests import Answered, Result, Usage
from learners.prompts.settings import SearchSettings

Amounts = tuple[float, float, float]
"""Calls, tokens, money."""
FIRST = 8
"""Rollouts that are to tell what one takes, before more are asked for: an agent may make any number of calls."""


@dataclass(frozen=True)
class Spent:
    """Numbers of measured answers and completions, and the usage of each kind, including missing ones."""

    answers: int = 0
    answer: Usage = field(default_factory=Usage)
    completions: int = 0
    completion: Usage = field(default_factory=Usage)

    @property
    def total(self) -> Usage:
        """Both kinds together."""
        return added([self.answer, self.completion])

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.answers + other.answers,
            added([self.answer, other.answer]),
            self.completions + other.completions,
            added([self.completion, other.completion]),
        )


def added(usages: Sequence[Usage]) -> Usage:
    """Their sum; the cost's does not depend on their order."""
    calls, tokens = sum(usage.calls for usage in usages), sum(usage.tokens for usage in usages)
    return Usage(calls, tokens, math.fsum(usage.cost for usage in usages))


def spent_on(results: Iterable[Result]) -> Spent:
    """Sum up what these results took."""
    answers: list[Result] = []
    completions: list[Result] = []
    for result in results:
        (answers if isinstance(result, Answered) else completions).append(result)
    count_and_usage = [
        (sum(not result.missing for result in kind), added([result.usage for result in kind]))
        for kind in (answers, completions)
    ]
    return Spent(*count_and_usage[0], *count_and_usage[1])


def exhausted(settings: SearchSettings, usage: Usage) -> str | None:
    """Which budget this usage has reached, in words, or None."""
    for limit, has, unit in _limits(settings, usage):
        if has >= limit:
            return f"the budget of {limit:,g} {unit} is spent"
    return None


def room(settings: SearchSettings, used: Usage, answers: int, under_way: int) -> int:
    """How many further rollouts of the first template may begin, after `answers` that took `used`.

    All that are under way then end within the budgets, if they take what those before them took on average. One at
    least where nothing is under way.
    """
    if not answers:
        return FIRST - under_way
    most = min(
        (math.floor((limit - has) / (has / answers)) for limit, has, _ in _limits(settings, used) if has > 0),
        default=FIRST,
    )
    return max(most - under_way, 0 if under_way else 1)


def affordable(settings: SearchSettings, spent: Spent, most: int, work: Callable[[int], tuple[int, int]]) -> int:
    """The most children, up to `most`, whose round the budgets still bear at what things cost so far; 0 if none.

    `work(children)` gives the answers and the completions that a round with so many children takes.
    """
    answer = _mean(spent.answers, spent.answer)
    # Before the first completion: one call, and as many tokens as the transcripts that it is shown and a reply.
    guess = (1.0, *(amount * (settings.gradient_batch + 1) for amount in answer[1:]))
    completion = _mean(spent.completions, spent.completion) if spent.completions else guess

    def bears(children: int) -> bool:
        answers, completions = work(children)
        more = [answers * a + completions * c for a, c in zip(answer, completion, strict=True)]
        has = spent.total
        later = Usage(math.ceil(has.calls + more[0]), math.ceil(has.tokens + more[1]), has.cost + more[2])
        return all(needed <= limit for limit, needed, _ in _limits(settings, later))

    return next((children for children in range(most, 0, -1) if bears(children)), 0)


def _limits(settings: SearchSettings, usage: Usage) -> list[tuple[float, float, str]]:
    limits = [
        (settings.calls, usage.calls, "calls"),
        (settings.tokens, usage.tokens, "tokens"),
        (settings.money, usage.cost, "in money"),
    ]
    return [(limit, has, unit) for limit, has, unit in limits if limit is not None]


def _mean(count: int, usage: Usage) -> Amounts:
    return (usage.calls / count, usage.tokens / count, usage.cost / count) if count else (1.0, 0.0, 0.0)
