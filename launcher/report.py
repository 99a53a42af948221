"""What a run has learned, for the end of `headrace run` and for `headrace summary`; and the table of an evaluation.

Invariant: pure, and no summary makes it raise; what a summary lacks is left out or drawn as a dash.
"""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher import pool, words
from launcher.drawing import chart
from launcher.prompt_report import render_search

MOST_LOSSES = 8
"""Policies whose last losses are told; `summary --json` has them all."""


def render_summary(summary: dict[str, Any]) -> RenderableType:
    """How the run ended, what each policy learned, and what the ledger and the launcher counted."""
    parts: list[RenderableType] = [_verdict(summary)]
    parts.append(_counts(summary))
    policies = words.mapping(summary.get("policies"))
    searched = bool(words.mapping(summary.get("prompts"))) and not words.number(summary.get("episodes"))
    if searched:  # it has no returns, and what it has instead is told below
        policies = {}
    elif policies:
        note = "returns: means of the first and last 100 episodes; stale: median/p95, versions"
        parts += ["", _policies(policies), Text(note, style="grey58"), ""]
    else:
        parts.append(Text("No policy reported anything.", style="grey58"))
    parts += _refusals(policies)
    parts += _losses(policies)
    parts += render_search(summary)
    parts.append(_books(summary))
    parts += _alarms(summary)
    if directory := words.text(summary.get("directory")):
        line = Text("kept in ", style="grey58")
        line.append(directory, style="cyan")
        parts.append(line)
    return Group(*parts)


def is_failed(summary: dict[str, Any]) -> bool:
    """Whether the summary is of a run that failed."""
    return bool(summary.get("failed")) or words.text(summary.get("state")) == "failed"


def _verdict(summary: dict[str, Any]) -> Text:
    failed = is_failed(summary)
    line = Text()
    line.append("✖ " if failed else "● ", style="bold red" if failed else "bold green")
    line.append(words.text(summary.get("run"), "run"), style="bold")
    state = words.text(summary.get("state"), "ended")
    line.append(f" {'failed' if failed else state}", style="bold red" if failed else "bold green")
    if number := words.number(summary.get("seconds")):
        line.append(f" after {words.clock(number)}")
    if reason := words.text(summary.get("reason")):
        line.append(f": {reason}")
    if summary.get("simulation"):
        line.append("  SIMULATION ", style="bold black on yellow")
    return line


def _counts(summary: dict[str, Any]) -> Text:
    told = []
    seconds = words.number(summary.get("seconds"))
    for key, word in (("env_steps", "env steps"), ("agent_steps", "agent steps"), ("episodes", "episodes")):
        done = words.number(summary.get(key))
        if done:
            pace = f" ({words.rate(round(done / seconds))})" if seconds and key != "episodes" else ""
            told.append(f"{words.count(done)} {word}{pace}")
    tasks = words.mapping(summary.get("tasks"))
    if words.number(tasks.get("minted")):
        told.append(f"{words.count(tasks.get('done'))} of {words.count(tasks.get('minted'))} tasks done")
    if pooled := pool.told(words.mapping(summary.get("pool"))):
        told.append(pooled)
    return Text("  " + (" · ".join(told) or "nothing was done"), style="grey58")


def _policies(policies: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="grey58", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("policy", style="bold cyan", no_wrap=True, overflow="ellipsis")
    for title in ("version", "return first → last", "episodes", "stale", "used", "late/lost"):
        table.add_column(title, justify="right", no_wrap=True, overflow="ellipsis")
    table.add_column("trend", style="cyan", no_wrap=True, overflow="ellipsis")
    for name, value in policies.items():
        policy = words.mapping(value)
        first, last = words.number(policy.get("return_first")), words.number(policy.get("return_mean"))
        better = first is not None and last is not None and last > first
        staleness, fragments = words.mapping(policy.get("staleness")), words.mapping(policy.get("fragments"))
        table.add_row(
            Text(words.text(name)),
            Text(words.version(policy.get("version"))),
            Text(f"{words.decimal(first)} → {words.decimal(last)}", style="bold green" if better else "bold"),
            Text(words.count(policy.get("episodes"))),
            Text(f"{words.short(staleness.get('median'))}/{words.short(staleness.get('p95'))}"),
            Text(words.short(fragments.get("consumed"))),
            Text(f"{words.short(fragments.get('stale'))}/{words.short(fragments.get('lost'))}"),
            Text(chart([words.number(mean) for mean in words.listing(policy.get("returns"))], 14, 1)[0]),
        )
    return table


def _refusals(policies: dict[str, Any]) -> list[RenderableType]:
    """Experience that a learner could not use is lost work, and the reason is the user's to mend."""
    lines: list[RenderableType] = []
    for name, value in list(policies.items())[:MOST_LOSSES]:
        policy = words.mapping(value)
        fragments = words.mapping(policy.get("fragments"))
        if refused := words.number(fragments.get("refused")):
            of = refused + (words.number(fragments.get("consumed")) or 0.0)
            told = f"! {words.text(name)} refused {refused:,.0f} of {of:,.0f} fragments"
            reason = words.text(policy.get("refusal"))
            lines.append(Text(told + (f": {reason}" if reason else ""), style="bold red"))
    return lines


def _losses(policies: dict[str, Any]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for name, value in list(policies.items())[:MOST_LOSSES]:
        losses = words.mapping(words.mapping(value).get("losses"))
        if losses:
            told = " · ".join(f"{words.text(term)} {words.decimal(loss, 3)}" for term, loss in losses.items())
            lines.append(Text.assemble(("last loss  ", "grey58"), (f"{words.text(name)}  ", "bold cyan"), told))
    return lines


def _books(summary: dict[str, Any]) -> Text:
    facts = words.mapping(summary.get("facts"))
    line = Text.assemble(
        ("facts      ", "grey58"), f"{words.count(facts.get('stored'))} stored", ("  ", ""),
        f"{words.count(facts.get('duplicates'))} duplicates",
    )  # fmt: skip
    for key in ("refused", "quarantined"):
        some = words.number(facts.get(key) if key in facts else summary.get(key))
        if some:
            line.append(f"  {some:,.0f} {key}", style="bold red")
    tasks = {key: value for key, value in words.mapping(summary.get("tasks")).items() if words.number(value)}
    if tasks:
        line.append("\ntasks      ", style="grey58")
        line.append(", ".join(f"{words.count(value)} {words.text(key)}" for key, value in tasks.items()))
    restarts = {key: value for key, value in words.mapping(summary.get("restarts")).items() if words.number(value)}
    line.append("\nrestarts   ", style="grey58")
    told = ", ".join(f"{words.text(role)} {words.count(number)}" for role, number in restarts.items())
    line.append(told or "none", style="yellow" if told else "")
    return line


def _alarms(summary: dict[str, Any]) -> list[RenderableType]:
    return [Text(f"! {words.text(alarm)}", style="bold red") for alarm in words.listing(summary.get("alarms")) if alarm]


def render_evaluation(result: dict[str, Any]) -> RenderableType:
    """The returns of an evaluation, per policy (or agent), with their interval.

    Reads `{"policies": {name: {"return_mean", "interval": [low, high], "episodes", ...}}}`; one object without
    `policies` is taken as the only row. `tasks` (of a run with a curriculum) are told by label.
    """
    rows = words.mapping(result.get("policies")) or {words.text(result.get("policy"), "all"): result}
    table = Table(box=SIMPLE_HEAD, header_style="grey58", pad_edge=False, padding=(0, 1))
    table.add_column("policy", style="bold cyan", no_wrap=True)
    for title in ("episodes", "return", "95% interval", "lowest", "highest"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, value in rows.items():
        row = words.mapping(value)
        low, high = [*words.listing(row.get("interval")), None, None][:2]
        table.add_row(
            Text(words.text(name)),
            Text(words.count(row.get("episodes", result.get("episodes")))),
            Text(words.decimal(row.get("return_mean")), style="bold"),
            Text(f"{words.decimal(low)} … {words.decimal(high)}"),
            Text(words.decimal(row.get("return_min"))),
            Text(words.decimal(row.get("return_max"))),
        )
    tasks = words.mapping(result.get("tasks"))
    return Group(table, "", *_played_tasks(tasks)) if tasks else table


def _played_tasks(tasks: dict[str, Any]) -> list[RenderableType]:
    """Scores of the tasks that were played in an evaluation."""
    table = Table(box=SIMPLE_HEAD, header_style="grey58", pad_edge=False, padding=(0, 1))
    table.add_column("tasks", style="bold cyan", no_wrap=True)
    for title in ("episodes", "score", "failed"):
        table.add_column(title, justify="right", no_wrap=True)
    for label, value in words.mapping(tasks.get("labels")).items():
        row = words.mapping(value)
        score = Text(words.decimal(row.get("score_mean")), style="bold")
        table.add_row(Text(words.text(label)), words.count(row.get("episodes")), score, words.count(row.get("failed")))
    low, high = [*words.listing(tasks.get("interval")), None, None][:2]
    line = Text(f"score {words.decimal(tasks.get('score_mean'))}", style="bold")
    line.append(f"  {words.decimal(low)} … {words.decimal(high)}; {words.count(tasks.get('pool'))} tasks in the pool")
    told: list[RenderableType] = [table, line]
    if trouble := words.text(tasks.get("trouble")):
        told.append(Text(f"the last one that failed: {trouble}", style="yellow"))
    return told
