"""The pool as people see it: the section of the standings.

Invariant: its cost does not grow with the pool. Sums and ranks are kept as outcomes come; labels are at most 4,096; and
it is made at most once a second.
"""

from __future__ import annotations

import heapq
from itertools import islice
from typing import Any

from tracker.curriculum.entry import SCALE, Entry
from tracker.curriculum.gini import Histogram, gini
from tracker.curriculum.pool import Curriculum

LISTED = 20
"""Labels that are shown: those with the most draws."""
ENDS = 5
"""Tasks that are shown from the top and from the bottom."""
REFRESH = 1.0
"""Seconds for which a section is shown again before it is made anew."""


def section(pool: Curriculum) -> dict[str, Any] | None:
    """The section, or None for a run without a pool. Ratios are of 1; `gini_most` is the maximum for so many."""
    settings, urn = pool.settings, pool.urn
    if settings is None or urn is None:
        return None
    ranking = urn.ranking
    counts = pool.counts
    eligible = len(ranking)
    shown = heapq.nlargest(LISTED, pool.labels.items(), key=lambda item: (item[1].draws, item[1].tasks))
    labels = {
        label: {
            "tasks": tally.tasks,
            "minted": tally.minted,
            "draws": tally.draws,
            "returned": tally.returned,
            "outcomes": tally.outcomes,
            "score_mean": tally.total / tally.outcomes if tally.outcomes else None,
            "progress_mean": tally.levels / SCALE / tally.tasks if tally.tasks else None,
            "transient": tally.transient,
            "permanent": tally.permanent,
            "evicted": tally.evicted,
        }
        for label, tally in shown
    }
    return {
        "scorer": settings.scorer,
        "capacity": settings.capacity,
        "tasks": len(pool.entries),
        "drawable": len(urn.all),
        "few_samples": len(urn.few),
        "eligible": eligible,
        "resting": len(pool.entries) - len(urn.all),
        "open": len(pool.presentations.open),
        "progress_mean": ranking.total / SCALE / eligible if eligible else None,
        "without_progress": ranking.still,
        "labels_total": len(pool.labels),
        "labels": labels,
        "counts": counts.plain(),
        "evictions": dict(pool.evictions),
        "epoch": pool.epochs.since(counts, pool.evictions),
        "gini": {
            "draws_per_task": _gini(pool.draws_histogram),
            "draws_per_label": _gini(Histogram(tally.draws for tally in pool.labels.values())),
            "evictions_per_label": _gini(Histogram(tally.evicted for tally in pool.labels.values())),
        },
        "top": _ends(pool, best=True),
        "bottom": _ends(pool, best=False),
        "generation": {
            "open": len(pool.presentations.generating),
            "failures_in_a_row": pool.streak,
            "exhausted": pool.exhausted,
        },
    }


def _gini(histogram: Histogram) -> dict[str, float]:
    n = sum(histogram.of.values())
    return {"gini": gini(histogram.of), "gini_most": (n - 1) / n if n else 0.0}


def _ends(pool: Curriculum, *, best: bool) -> list[dict[str, Any]]:
    """Up to five tasks; of a large group that counts as equal (to 1/4096), any."""
    assert pool.urn is not None
    found: list[Entry] = []
    for group in pool.urn.ranking.best_first() if best else pool.urn.ranking.worst_first():
        found += islice(group, 64)
        if len(found) >= ENDS:
            break
    found.sort(key=lambda entry: (-entry.raw if best else entry.raw, entry.order))
    return [
        {
            "task": entry.name,
            "label": entry.label,
            "progress": entry.raw,
            "score_mean": entry.mean,
            "outcomes": entry.count,
            "draws": entry.draws,
        }
        for entry in found[:ENDS]
    ]


class Section:
    """The section, made anew at most once a second."""

    def __init__(self) -> None:
        self._made: dict[str, Any] | None = None
        self._at = float("-inf")

    def read(self, pool: Curriculum, now: float) -> dict[str, Any] | None:
        """The section at `now` (monotonic seconds)."""
        if now - self._at >= REFRESH:
            self._made, self._at = section(pool), now
        return self._made
