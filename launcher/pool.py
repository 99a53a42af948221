"""The part of the dashboard's screen that shows a curriculum's pool: labels, progress, draws, evictions, extremes.

Asked for a number of rows it never gives more; its title carries the names of its columns and stands in the divider.

Invariant: nothing here raises, whatever is missing in the document; labels left out for want of room are counted.
"""

from __future__ import annotations

from typing import Any

from launcher import words
from launcher.drawing import LABEL, Column, Line, Span, bar, cells, columns_that_fit, flow, labelled, title

SHARE = 3
"""The place of the column that shows a label's draws beside those of the label with the most, as a bar."""
ENDS = 2
"""Lines at the bottom: the tasks with most and with least progress."""


def wanted(document: dict[str, Any]) -> list[int]:
    """Rows that the panel can use, from least to most; none for a run without a pool."""
    pool = words.mapping(document.get("pool"))
    if not pool:
        return []
    labels = max(1, len(words.mapping(pool.get("labels"))))
    return [1, 1 + min(labels, 3), 1 + min(labels, 3) + ENDS, 1 + min(labels, 8) + ENDS, 1 + labels + ENDS]


def panel(document: dict[str, Any], width: int, rows: int) -> tuple[Line, list[Line]]:
    """A title; the pool's totals; a row for each label, those with the most draws first; the best and worst tasks."""
    pool = words.mapping(document.get("pool"))
    labels = words.mapping(pool.get("labels"))
    gap = 1 if width < 90 else 2
    longest = max((len(words.text(label)) for label in labels), default=0)
    columns = [
        Column("pool", min(max(12, longest), 18 if width < 90 else 30)),
        Column("tasks", 6, True, 2),
        Column("draws", 6, True),
        Column("share", 12, False, 3),
        Column("score", 6, True),
        Column("progress", 8, True),
        Column("evicted", 7, True, 1),
        Column("failed", 6, True, 4),
    ]
    kept = columns_that_fit(columns, width, gap)
    lines: list[Line] = [_totals(pool, width)]
    ends = _ends(pool, width) if rows >= 1 + ENDS + min(len(labels), 3) else []
    room = max(0, rows - 1 - len(ends))
    shown = list(labels.items())
    hidden = len(shown) - room + 1 if len(shown) > room else 0
    most = max((words.number(words.mapping(tally).get("draws")) or 0.0 for tally in labels.values()), default=0.0)
    for label, value in shown[: len(shown) - hidden]:
        tally = words.mapping(value)
        row = cells(columns, kept, _row(words.text(label), tally), gap)
        if SHARE in kept:
            draws = words.number(tally.get("draws")) or 0.0
            at = 2 * kept.index(SHARE)  # a gap stands before each column but the first
            row = [*row[:at], *bar(draws / most if most > 0 else 0.0, columns[SHARE].width, "cyan"), *row[at + 1 :]]
        lines.append(row)
    if hidden and room > 0:
        lines.append([(f"… {hidden} more labels", LABEL)])
    elif not labels:
        lines.append([("no task has come yet", LABEL)])
    return title(width, columns, kept, gap), [*lines[: max(0, rows - len(ends))], *ends][: max(0, rows)]


def told(pool: dict[str, Any]) -> str:
    """The pool in a few words, for a line of a log; empty for a run without one."""
    if not pool:
        return ""
    epoch = words.mapping(pool.get("epoch"))
    return (
        f"pool {words.count(pool.get('tasks'))} tasks, {words.count(pool.get('eligible'))} eligible,"
        f" progress {words.decimal(pool.get('progress_mean'), 2)},"
        f" draws {words.short(words.mapping(pool.get('counts')).get('draws'))},"
        f" evicted {words.short(epoch.get('evicted'))} this epoch"
    )


def _totals(pool: dict[str, Any], width: int) -> Line:
    counts, epoch = words.mapping(pool.get("counts")), words.mapping(pool.get("epoch"))
    reasons = words.mapping(epoch.get("evictions"))
    why = " ".join(f"{words.text(reason)} {words.short(count)}" for reason, count in reasons.items())
    failures = (words.number(counts.get("transient")) or 0) + (words.number(counts.get("permanent")) or 0)
    making = words.mapping(pool.get("generation"))
    items = [
        labelled("tasks", words.count(pool.get("tasks")), "bold", f"of {words.short(pool.get('capacity'))}"),
        labelled("progress", words.decimal(pool.get("progress_mean"), 2), "bold"),
        labelled("draws", words.short(counts.get("draws")), "", f"{words.short(epoch.get('draws'))} this epoch"),
        labelled("evicted", words.short(epoch.get("evicted")), "", f"this epoch{f' ({why})' if why else ''}"),
        labelled("eligible", words.count(pool.get("eligible"))),
        labelled("without progress", words.count(pool.get("without_progress"))),
        labelled("failed", words.short(failures), "yellow" if failures else ""),
        labelled("resting", words.count(pool.get("resting"))),
    ]
    if words.number(making.get("failures_in_a_row")):
        items.insert(1, labelled("making failed", words.count(making.get("failures_in_a_row")), "bold yellow"))
    return flow(items, width, "  " if width < 90 else "   ")


def _row(label: str, tally: dict[str, Any]) -> list[Span]:
    failed = (words.number(tally.get("transient")) or 0) + (words.number(tally.get("permanent")) or 0)
    return [
        (label, "cyan"),
        (words.short(tally.get("tasks")), ""),
        (words.short(tally.get("draws")), ""),
        ("", ""),
        (words.decimal(tally.get("score_mean"), 3), "bold"),
        (words.decimal(tally.get("progress_mean"), 3), ""),
        (words.short(tally.get("evicted")), ""),
        (words.short(failed), "yellow" if failed else ""),
    ]


def _ends(pool: dict[str, Any], width: int) -> list[Line]:
    lines: list[Line] = []
    for key, name in (("top", "most progress "), ("bottom", "least progress")):
        items: list[Line] = []
        for task in words.objects(pool.get(key)):
            score = f"score {words.decimal(task.get('score_mean'), 2)}"
            items.append(
                [
                    (words.text(task.get("label"), words.DASH)[:24], "cyan"),
                    (f" {words.decimal(task.get('progress'), 2)}", "bold"),
                    (f" {score}", LABEL),
                ]
            )
        lines.append([(f"{name} ", LABEL), *flow(items or [[("–", LABEL)]], max(1, width - len(name) - 1))])
    return lines
