"""What a prompt search came to, for the end of `headrace run` and for `headrace summary`.

Invariant: every template that was tested has its line, first seen first; no summary makes it raise.
"""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from launcher import words
from launcher.drawing import LABEL, Column, Span, cells

LONGEST = 200
"""Cells of a template's text in its line."""
ALIKE = 12
"""Characters that a template must share with its parent before they are left out of its line."""
COLUMNS = (
    Column("", 1),
    Column("template", 8),
    Column("mean", 5, True),
    Column("interval", 9, True),
    Column("best", 5, True),
    Column("trials", 6, True),
    Column("miss.", 5, True),
    Column("val.", 5, True),
    Column("lineage", 14),
    Column("text", LONGEST),
)
TOLD = 10
"""Refused candidates, and reasons of failures, that are told; `summary --json` has them all."""


def render_search(summary: dict[str, Any]) -> list[RenderableType]:
    """The templates, the best one and how to get it, and what endpoints took; nothing for a run without templates."""
    searches = words.mapping(summary.get("prompts"))
    if not searches:
        return []
    rows = words.objects(summary.get("templates"))
    parts: list[RenderableType] = []
    for policy, value in searches.items():
        search = words.mapping(value)
        own = [row for row in rows if row.get("policy") == policy]
        parts += [Text(f"{len(own)} templates of {policy} were tested, first seen first:", style="bold"), *_table(own)]
        note = (
            "mean, interval (95%, Wilson) and best of all trials; miss.: trials that are missing;"
            " val.: mean on validation tasks; text: from where it parts from its parent's"
        )
        parts += [Text(note, style="grey58"), *_best(search), *_usage(search)]
        parts += [*_failures(search), *_refused(search), ""]
    return [Group(*parts)]


def _table(rows: list[dict[str, Any]]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    heads: list[Span] = [(column.title, LABEL) for column in COLUMNS]
    texts = {words.text(row.get("template")): _text(row) for row in rows}
    for spans in [heads, *(_row(row, texts.get(words.text(row.get("parent")), "")) for row in rows)]:
        line = cells(COLUMNS, range(len(COLUMNS)), spans, 1)
        # Cut at the terminal's edge: the text gives way, and never a number.
        lines.append(Text.assemble(*line, no_wrap=True, overflow="ellipsis"))
    return lines


def _text(row: dict[str, Any]) -> str:
    return " ".join(words.text(row.get("text")).split())


def unlike(text: str, parent: str) -> str:
    """The text from the word where it parts from its parent's: lines that all begin alike would say nothing."""
    pairs = enumerate(zip(text, parent, strict=False))
    shared = next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(text), len(parent)))
    begin = text.rfind(" ", 0, shared) + 1
    return f"… {text[begin:]}" if ALIKE <= begin < len(text) else text


def _row(row: dict[str, Any], parents: str) -> list[Span]:
    low, high = [*words.listing(row.get("interval")), None, None][:2]
    parent, best = words.text(row.get("parent")), bool(row.get("is_best"))
    place = f"{words.text(row.get('round'))}.{words.text(row.get('candidate'))}"
    return [
        ("★" if best else "", "bold green"),
        (words.text(row.get("template"))[:8], "bold green" if best else "cyan"),
        (_share(row.get("mean"), 3), "bold"),
        (words.DASH if low is None else f"{_share(low)}…{_share(high)}", ""),
        (_share(row.get("best"), 3), ""),
        (words.count(row.get("trials")), ""),
        (words.count(row.get("missing")) if words.number(row.get("missing")) else "", "yellow"),
        (_share(words.mapping(row.get("validation")).get("mean"), 3), ""),
        (f"{place} of {parent[:6]}" if parent else "the first", LABEL),
        (unlike(_text(row), parents), ""),
    ]


def _share(value: Any, places: int = 2) -> str:
    """A reward: as many places for each, so that they stand below one another."""
    found = words.number(value)
    return words.DASH if found is None else f"{found:.{places}f}"


def _best(search: dict[str, Any]) -> list[RenderableType]:
    best = words.mapping(search.get("best"))
    if not best:
        return [Text("no template has been scored yet", style="grey58")]
    validated = words.mapping(best.get("validation"))
    line = Text.assemble(("best       ", "grey58"), (words.text(best.get("template")), "bold green"))
    line.append(f"  mean {words.decimal(validated.get('mean'), 3)} of {words.count(validated.get('trials'))} trials")
    text = best.get("text")
    shown = "\n".join(words.text(part) for part in text.splitlines()) if isinstance(text, str) else words.DASH
    how = Text.assemble(("get it     ", "grey58"), (words.text(search.get("how")), "cyan"))
    return [line, Padding(Text(shown), (0, 0, 0, 4)), how]


def _usage(search: dict[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for name, value in words.mapping(search.get("usage")).items():
        amounts = words.mapping(value)
        tokens = f"{words.count(amounts.get('tokens_in'))} tokens in, {words.count(amounts.get('tokens_out'))} out"
        estimated = words.number(amounts.get("estimated"))
        tokens += f" ({words.count(estimated)} of them estimated)" if estimated else ""
        told = [
            f"{words.count(amounts.get('calls'))} calls",
            f"{words.count(amounts.get('failed'))} failed",
            f"{words.count(amounts.get('throttled'))} throttled (429)",
            f"{words.count(amounts.get('retries'))} retries",
            tokens,
            f"money {words.decimal(amounts.get('cost'))}",
        ]
        lines.append(Text.assemble(("endpoint   ", "grey58"), (f"{words.text(name)}  ", "bold cyan"), " · ".join(told)))
    return lines


def _failures(search: dict[str, Any]) -> list[RenderableType]:
    """Show reasons and counts of failed trials (rewards of 0 in the means) and of missing ones (in no mean)."""
    missing = words.mapping(search.get("missing")).get("reasons")
    lines: list[RenderableType] = []
    for label, reasons in (("failed", words.objects(search.get("failures"))), ("missing", words.objects(missing))):
        for item in reasons[:TOLD]:
            reason = f"{words.count(item.get('count'))} × {words.text(item.get('reason'), words.DASH)}"
            lines.append(Text.assemble((f"{label:11}", "grey58"), (reason, "yellow")))
        if len(reasons) > TOLD:
            lines.append(Text(f"           {len(reasons) - TOLD} more reasons", style="grey58"))
    return lines


def _refused(search: dict[str, Any]) -> list[RenderableType]:
    refused = words.objects(search.get("refused"))
    lines: list[RenderableType] = []
    for item in refused[:TOLD]:
        place = f"{words.text(item.get('round'))}.{words.text(item.get('candidate'))}"
        line = Text.assemble(("refused    ", "grey58"), f"{place}  {words.text(item.get('reason'), words.DASH)}")
        lines.append(line)
    if len(refused) > TOLD:
        lines.append(Text(f"           {len(refused) - TOLD} more", style="grey58"))
    return lines
