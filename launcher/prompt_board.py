"""The part of the dashboard's screen that shows a prompt search: the round, what is in flight, what endpoints took, and
the leaderboard.

Asked for a number of rows it never gives more; its title carries the names of its columns and stands in the divider.

Invariant: nothing here raises, whatever is missing in the document; templates left out for want of room are counted.
"""

from __future__ import annotations

from typing import Any

from launcher import words
from launcher.drawing import LABEL, Column, Line, Span, cells, columns_that_fit, flow, labelled, title


def wanted(document: dict[str, Any]) -> list[int]:
    """Rows that the panel can use, from least to most; none for a run without templates."""
    search, _ = _first(document)
    if not search:
        return []
    ends = len(words.mapping(search.get("usage"))) + len(_failure(search))
    head, found = 1 + ends, len(words.objects(search.get("leaderboard")))
    return [1, 1 + min(found, 1), head + min(found, 3), head + min(found, 6), head + min(found, 12), head + found]


def panel(document: dict[str, Any], width: int, rows: int) -> tuple[Line, list[Line]]:
    """A title; the search's totals; what failed; a line for each endpoint; the leaderboard, the best first."""
    search, others = _first(document)
    gap = 1 if width < 90 else 2
    fixed = [
        Column("templates", 16),
        Column("mean", 6, True),
        Column("95% interval", 13, False, 3),
        Column("trials", 6, True, 1),
        Column("missing", 7, True, 5),
        Column("in flight", 9, True, 2),
        Column("round", 5, True, 4),
    ]
    kept = columns_that_fit(fixed, width - (16 if width < 90 else width // 3) - gap, gap)
    room = width - sum(fixed[index].width + gap for index in kept)
    columns = [*fixed, Column("text", max(1, room))]
    if room >= 8:
        kept = [*kept, len(fixed)]
    found = words.objects(search.get("leaderboard"))
    usage = words.mapping(search.get("usage"))
    lines: list[Line] = [totals(search, width, others)]
    failure = _failure(search)
    if rows >= 1 + len(failure) + min(len(found), 1):
        lines += failure
    if rows >= len(lines) + len(usage) + min(len(found), 3):
        lines += [_endpoint(words.text(name), words.mapping(amounts), width) for name, amounts in usage.items()]
    room = max(0, rows - len(lines))
    shown = found[: room if len(found) <= room else max(0, room - 1)]
    lines += [cells(columns, kept, [*_row(row), (words.text(row.get("text")), "")], gap) for row in shown]
    if len(shown) < len(found) and room > 0:
        every = max(len(found), int(words.number(search.get("templates")) or 0))
        lines.append([(f"… {every - len(shown)} more templates", LABEL)])
    elif not found:
        lines.append([("no template has been told yet", LABEL)])
    return title(width, columns, kept, gap), lines[: max(0, rows)]


def totals(search: dict[str, Any], width: int, others: int = 0) -> Line:
    """The round, the best mean, what is in flight and what was spent, in one line."""
    flying, spent = words.mapping(search.get("in_flight")), words.mapping(search.get("spent"))
    rounds = words.number(search.get("rounds"))
    throttled, retries = words.number(spent.get("throttled")), words.number(spent.get("retries"))
    rollouts, candidates = words.short(flying.get("rollouts")), words.short(flying.get("templates"))
    items = [
        labelled("round", words.count(search.get("round")), "bold", f"of {rounds:.0f}" if rounds is not None else ""),
        labelled("best", words.decimal(search.get("best_mean"), 3), "bold"),
        labelled(
            "in flight", rollouts, "bold", f"of {candidates} templates, {words.short(flying.get('completions'))} edits"
        ),
        labelled("calls", words.short(spent.get("calls"))),
        labelled("tokens", words.short(spent.get("tokens"))),
        labelled("money", words.decimal(spent.get("cost"), 3)),
        labelled("429s", words.short(throttled), "yellow" if throttled else ""),
        labelled("retries", words.short(retries), "yellow" if retries else ""),
        labelled(
            "templates", words.short(search.get("templates")), "", f"{words.short(search.get('refused'))} refused"
        ),
    ]
    if others:
        items.append([(f"{others} more searches", LABEL)])
    return flow(items, width, "  " if width < 90 else "   ")


def _failure(search: dict[str, Any]) -> list[Line]:
    """Show how many rollouts and completions failed or are missing, with the most frequent reason; a line for each."""
    lines: list[Line] = []
    for label, reason in (("failed", _failed(search)), ("missing", _missing(search))):
        lines += [[(f"{label} ", LABEL), (reason, "yellow")]] if reason else []
    return lines


def _failed(search: dict[str, Any]) -> str:
    return _most(search.get("failures"), search.get("failed"))


def _missing(search: dict[str, Any]) -> str:
    return _most(search.get("missing_reasons"), search.get("missing"))


def _most(reasons: Any, count: Any) -> str:
    """Return the count and the most frequent reason; empty without a reason."""
    counted = words.objects(reasons)
    if not counted:
        return ""
    times, first = words.count(counted[0].get("count")), words.text(counted[0].get("reason"), words.DASH)
    every = words.count(count)
    return f"{every}: {first}" if times == every else f"{every}, {times} of them: {first}"


def counts(document: dict[str, Any]) -> list[Line]:
    """What stands in the header's second line in a run with a search."""
    search, _ = _first(document)
    tasks = words.mapping(document.get("tasks"))
    done, minted = words.count(tasks.get("done")), words.count(tasks.get("minted"))
    return [
        labelled("tasks", done, "bold", f"of {minted}"),
        labelled("rewards", words.count(search.get("rewards")), "bold"),
        labelled("best", words.decimal(search.get("best_mean"), 3), "bold"),
    ]


def told(document: dict[str, Any]) -> str:
    """The search in a few words, for a line of a log; empty for a run without one."""
    search, _ = _first(document)
    if not search:
        return ""
    flying, spent = words.mapping(search.get("in_flight")), words.mapping(search.get("spent"))
    rounds = words.number(search.get("rounds"))
    failed, missing = _failed(search), _missing(search)
    return (
        f"round {words.count(search.get('round'))}{f' of {rounds:.0f}' if rounds is not None else ''},"
        f" best {words.decimal(search.get('best_mean'), 3)}, {words.short(search.get('templates'))} templates,"
        f" {words.short(flying.get('rollouts'))} in flight, {words.short(spent.get('calls'))} calls,"
        f" {words.short(spent.get('tokens'))} tokens, money {words.decimal(spent.get('cost'), 3)},"
        f" {words.short(spent.get('throttled'))} 429s, {words.short(spent.get('retries'))} retries"
        f"{f', failed {failed}' if failed else ''}{f', missing {missing}' if missing else ''}"
    )


def _first(document: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The first policy's search, and how many others there are."""
    found = [words.mapping(search) for search in words.mapping(document.get("prompts")).values()]
    searches = [search for search in found if "leaderboard" in search]
    return (searches[0], len(searches) - 1) if searches else ({}, 0)


def _endpoint(name: str, amounts: dict[str, Any], width: int) -> Line:
    tokens = f"{words.short(amounts.get('tokens_in'))} in {words.short(amounts.get('tokens_out'))} out"
    money = labelled("money", words.decimal(amounts.get("cost"), 3))
    items = [[(name, "cyan")], labelled("calls", words.short(amounts.get("calls"))), money]
    for key, label in (("throttled", "429s"), ("retries", "retries"), ("failed", "failed")):
        some = words.number(amounts.get(key))
        items.append(labelled(label, words.short(amounts.get(key)), "yellow" if some else ""))
    items.append(labelled("tokens", tokens))
    return flow(items, width, "  " if width < 90 else "   ")


def _row(row: dict[str, Any]) -> list[Span]:
    low, high = [*words.listing(row.get("interval")), None, None][:2]
    best, beam = bool(row.get("best")), bool(row.get("beam"))
    between = f"{words.decimal(low, 3)} … {words.decimal(high, 3)}" if low is not None else words.DASH
    return [
        (words.text(row.get("template"), "?"), "bold green" if best else "cyan" if beam else ""),
        (words.decimal(row.get("mean"), 3), "bold green" if best else "bold"),
        (between, LABEL),
        (words.short(row.get("trials")), ""),
        (words.short(row.get("missing")) if words.number(row.get("missing")) else "", "yellow"),
        (words.short(row.get("open")) if words.number(row.get("open")) else "", ""),
        (words.short(row.get("round")), LABEL),
    ]
