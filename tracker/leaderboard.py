"""What is shown of a prompt search: the dashboard's part, the summary's, and the lists of the export.

Invariant: pure views of the fold `tracker.templates`; every template that was tested is in the summary and in the
export, with or without a trial, first seen first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tracker.templates import AMOUNTS, PolicyTemplates, Templates, Tested
from tracker.trials import wilson

SHOWN = 20
"""Templates of the dashboard's leaderboard."""
LINE = 160
"""Characters of a template there."""
FAILURES = 3
"""Most reasons shown for failed rollouts, and for missing ones: the most frequent of each."""


def standings_part(fold: Templates) -> dict[str, Any] | None:
    """`{policy: {...}}` for the standings document; None in a run without templates."""
    return {name: _live(own) for name, own in sorted(fold.policies.items())} or None


def _live(own: PolicyTemplates) -> dict[str, Any]:
    best = own.best()
    ranked = sorted(own.ordered(), key=lambda item: _rank(item, best))
    last = own.rounds[max(own.rounds)] if own.rounds else {}
    flying = [tested for tested in own.tested.values() if tested.open]
    missing = Counter(of for of, _ in own.missing.values())
    return {
        "round": max((tested.round for tested in own.tested.values()), default=0),
        "rounds": last.get("rounds"),
        "best": best,
        "best_mean": last.get("best_mean"),
        "templates": len(own.tested),
        "refused": len(own.refused),
        "rewards": sum(tested.trials.count() for tested in own.tested.values()),
        "in_flight": {
            "templates": len(flying),
            "rollouts": sum(tested.open for tested in flying),
            "completions": sum(role in ("critique", "edit") for role in own.open.values()),
        },
        "leaderboard": [
            {**_row(name, tested, best, last.get("beam", ())), "missing": missing[name]}
            for name, tested in ranked[:SHOWN]
        ],
        "usage": {name: dict(amounts) for name, amounts in sorted(own.usage.items())},
        "spent": _spent(own),
        "failures": _counted(own.failures)[:FAILURES],
        "failed": sum(own.failures.values()),
        "missing_reasons": _missing(own)[:FAILURES],
        "missing": len(own.missing),
    }


def _counted(reasons: Mapping[str, int]) -> list[dict[str, Any]]:
    """List reasons with their counts, the most frequent first."""
    counted = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": reason, "count": count} for reason, count in counted]


def _missing(own: PolicyTemplates) -> list[dict[str, Any]]:
    """List the reasons of missing rollouts and completions with their counts."""
    return _counted(Counter(reason for _, reason in own.missing.values()))


def _rank(item: tuple[str, Tested], best: str | None) -> tuple[Any, ...]:
    """The best first, then by the mean on validation tasks, then by that of all; first seen first of equals."""
    name, tested = item
    validated, mean = tested.trials.mean_now("validation"), tested.trials.mean_now()
    return (name != best, -1.0 if validated is None else -validated - 1.0, -(mean or 0.0), tested.order)


def _row(name: str, tested: Tested, best: str | None, beam: Any) -> dict[str, Any]:
    trials = tested.trials
    split = "validation" if trials.count("validation") else None
    mean = trials.mean_now(split)
    return {
        "template": name,
        "text": " ".join((tested.text or "").split())[:LINE],
        "parent": tested.parent,
        "round": tested.round,
        "candidate": tested.candidate,
        "mean": mean,
        "interval": None if mean is None else list(wilson(mean, trials.count(split))),
        "trials": trials.count(split),
        "failed": trials.failed,
        "open": tested.open,
        "best": name == best,
        "beam": name in beam,
    }


def _spent(own: PolicyTemplates) -> dict[str, float]:
    """What all endpoints took together."""
    summed = {key: math.fsum(amounts[key] for amounts in own.usage.values()) for key in AMOUNTS}
    whole: dict[str, float] = {key: int(value) for key, value in summed.items() if key != "cost"}
    return {**whole, "tokens": whole["tokens_in"] + whole["tokens_out"], "cost": summed["cost"]}


def template_rows(fold: Templates) -> list[dict[str, Any]]:
    """The summary's `templates`: every one that was tested, first seen first, policy after policy."""
    rows = []
    for policy, own in sorted(fold.policies.items()):
        best, missing = own.best(), Counter(of for of, _ in own.missing.values())
        rows += [
            {"policy": policy, **_tested(name, tested, best), "missing": missing[name]}
            for name, tested in own.ordered()
        ]
    return rows


def _tested(name: str, tested: Tested, best: str | None) -> dict[str, Any]:
    return {
        "template": name,
        "text": tested.text,
        **tested.trials.told(),
        "failed": tested.trials.failed,
        "validation": tested.trials.told(("validation",)),
        "training": tested.trials.told(("training",)),
        "is_best": name == best,
        "parent": tested.parent,
        "critique": tested.critique,
        "round": tested.round,
        "candidate": tested.candidate,
        "version": tested.version,
        "placeholders": list(tested.placeholders),
    }


def summary_part(fold: Templates, run_dir: str) -> dict[str, Any] | None:
    """The summary's `prompts`: by policy, the best template and how to get it, rounds, refusals, usage by endpoint."""
    several = len(fold.policies) > 1
    return {name: _search(name, own, run_dir, several) for name, own in sorted(fold.policies.items())} or None


def _search(policy: str, own: PolicyTemplates, run_dir: str, several: bool) -> dict[str, Any]:
    best = own.best()
    chosen = f" --policy {policy}" if several else ""
    refused = [
        {"round": number, "candidate": candidate, **body} for (number, candidate), body in sorted(own.refused.items())
    ]
    return {
        "best": None if best is None else _tested(best, own.tested[best], best) if best in own.tested else None,
        "how": f"headrace export {run_dir} --best{chosen}",
        "rounds": [own.rounds[number] for number in sorted(own.rounds)],
        "templates": len(own.tested),
        "refused": refused,
        "completions": {"failed": own.failed_completions, **own.completions},
        "failures": _counted(own.failures),
        "missing": {"count": len(own.missing), "reasons": _missing(own)},
        "usage": {name: dict(amounts) for name, amounts in sorted(own.usage.items())},
        "spent": _spent(own),
    }


def texts_and_rewards(fold: Templates) -> dict[str, Any] | None:
    """`{"templates": [text, ...], "rewards": {text: [reward, ...]}}`, whole texts as keys; None without templates.

    Rewards stand by split, item and attempt. A template of which only rewards are known stands under its identity.
    """
    if not fold.policies:
        return None
    rewards: dict[str, list[float]] = {}
    for _, own in sorted(fold.policies.items()):
        for name, tested in own.ordered():
            rewards.setdefault(name if tested.text is None else tested.text, []).extend(tested.trials.listed())
    return {"templates": list(rewards), "rewards": rewards}


def best_text(fold: Templates, policy: str | None) -> tuple[str | None, list[str]]:
    """The text of a policy's best template (of the only policy, if none is named), and the policies that there are."""
    known = sorted(fold.policies)
    name = policy if policy is not None else known[0] if len(known) == 1 else None
    own = fold.policies.get(name) if name is not None else None
    best = own.best() if own is not None else None
    tested = own.tested.get(best) if own is not None and best is not None else None
    return (tested.text if tested is not None else None), known
