"""Deciding when too many trials are missing for a search to go on.

A missing trial measures nothing: no mean counts it, and a resumed run asks for it again. A few do no harm; with more,
candidates would be compared by which of their trials are missing.

Invariant: pure. While a search goes on, a request without a result counts as a trial that will come, and a single
missing trial does not end the search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from learners.prompts.requests import Result

RESUME = "repair that, then go on with headrace run --resume: missing trials are asked for again"


def too_many(missing: Mapping[str, Result], asked: Collection[str], share: float, *, ended: bool) -> str | None:
    """Return why the search cannot go on, or None.

    `missing`: missing results by name; `asked`: names of all requests so far; `ended`: no result is awaited any more.
    """
    if not missing:
        return None
    (reason, _), *_ = Counter(result.reason or "it did not say why" for result in missing.values()).most_common(1)
    count = f"{len(missing):,} of {len(asked):,} trials are missing"
    dry = next((result.reason for result in missing.values() if result.missing == "account"), None)
    if dry is not None:
        return f"{dry}: {count}; {RESUME}"
    if len(missing) > share * len(asked) and (ended or len(missing) > 1):
        return f"{count}, more than prompts.max_missing_share = {share:g}, most often because: {reason}; {RESUME}"
    ungraded = {_template(name) for name, result in missing.items() if result.missing == "grader"}
    if ungraded:
        ungraded -= {_template(name) for name in asked if name.startswith("answer/") and name not in missing}
    if ungraded:
        return f"the grader gave no answer of template {min(ungraded)} a reward: {reason}; {RESUME}"
    return None


def _template(name: str) -> str:
    return name.split("/")[1]
