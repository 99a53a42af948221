"""The parts of the dashboard's screen that are tables: the policies and the roles.

A table is asked for a number of rows and never gives more. Its title carries the names of its columns and stands in
the frame's divider, so that a terminal of 24 rows still has room for what moves.

Invariant: no table raises, whatever is missing in the document; rows left out for want of room are counted, and a role
in trouble is the last to be left out.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from launcher import words
from launcher.drawing import LABEL, Column, Line, cells, chart, columns_that_fit, fit, flow, labelled, title, width_of

TINTS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")


def policies(document: dict[str, Any], width: int, rows: int, depth: int) -> tuple[Line, list[Line]]:
    """A title and, per policy, `depth` lines: a row of the table, then fragments, losses and totals; a chart beside."""
    found = words.mapping(document.get("policies"))
    gap = 1 if width < 90 else 2
    longest = max((len(words.text(name)) for name in found), default=0)
    side = 7 if width < 90 else 8
    columns = [
        Column("policies", min(max(8, longest), 12 if width < 90 else 20)),
        Column("version", 7, True),
        Column("per s", 5, True, 4),
        Column("steps/s", 7, True, 1),
        Column("return first→last" if side < 8 else "return first → last", 2 * side + 3),
        Column("stale", 5, True, 2),
        Column("queue", 5, True, 3),
        Column("credit", 6, True, 5),
        Column("saved", 6, True, 6),
    ]
    kept = columns_that_fit(columns, width - (12 if width < 90 else width // 4) - gap, gap)
    used = sum(columns[index].width + gap for index in kept)
    drawn = min(width - used, 80)
    if drawn >= 6:
        kept, columns = [*kept, len(columns)], [*columns, Column("trend" if drawn < 20 else "return over time", drawn)]
    shown = list(found.items())
    room = max(1, rows // max(1, depth))
    hidden = len(shown) - room + 1 if len(shown) > room else 0
    lines: list[Line] = []
    for place, (name, value) in enumerate(shown[: len(shown) - hidden]):
        policy = words.mapping(value)
        tint = TINTS[place % len(TINTS)]
        head = _policy_cells(words.text(name), policy, tint, side)
        beside = depth >= 3 or used >= 74
        picture = chart(_returns(policy), drawn, max(1, depth - (depth > 3)) if beside else 1) if drawn >= 6 else []
        block: list[Line] = [cells(columns, kept, [*head, (picture[0] if picture else "", tint)], gap)]
        texts = _policy_texts(policy, depth, used - gap if beside and picture else width, 7 in kept)
        for row in range(1, depth):
            line: Line = list(texts[row - 1]) if row <= len(texts) else []
            if picture and row < len(picture):
                line += [(" " * (used - width_of(line)), ""), (picture[row], tint)]
            block.append(line)
        lines += block
    if depth > 3 and not hidden:
        lines = lines[:-1]  # the gap between two policies is not wanted below the last
    if hidden:
        lines.append([(f"… {hidden} more policies", LABEL)])
    elif not found:
        lines.append([("no policy has reported yet", LABEL)])
    return title(width, columns, kept, gap), lines[:rows]


def _policy_cells(name: str, policy: dict[str, Any], tint: str, side: int) -> list[tuple[str, str]]:
    staleness = words.mapping(policy.get("staleness"))
    first, last = words.number(policy.get("return_first")), words.number(policy.get("return_mean"))
    better = first is not None and last is not None and last > first
    return [
        (name, f"bold {tint}"),
        (words.version(policy.get("version")).split(" ")[0], ""),
        (words.decimal(policy.get("versions_per_second"), 2), ""),
        (words.short(policy.get("agent_steps_per_second")), ""),
        (f"{words.decimal(first):>{side}} → {words.decimal(last):<{side}}", "bold green" if better else "bold"),
        (f"{words.short(staleness.get('median'))}/{words.short(staleness.get('p95'))}", ""),
        (words.short(policy.get("queue")), ""),
        (words.short(policy.get("credit")), ""),
        (words.version(policy.get("checkpoint")).split(" ")[0], LABEL),
    ]


def _policy_texts(policy: dict[str, Any], depth: int, width: int, shows_credit: bool) -> list[Line]:
    fragments = words.mapping(policy.get("fragments"))
    flows: Line = []
    for key, word in (("consumed", "used"), ("stale", "stale"), ("lost", "lost"), ("dropped", "dropped")):
        some = key != "consumed" and (words.number(fragments.get(key)) or 0) > 0
        flows += [
            (f"{' ' if flows else ''}{word} ", LABEL),
            (words.short(fragments.get(key)), "yellow" if some else ""),
        ]
    if words.number(fragments.get("refused")):
        flows += [(" refused ", LABEL), (words.short(fragments.get("refused")), "bold red")]
    losses: Line = []
    for name, value in words.mapping(policy.get("losses")).items():
        losses += [(f"{' ' if losses else ''}{words.text(name)} ", LABEL), (words.decimal(value, 3), "")]
    totals = flow(
        [
            labelled("agent steps", words.count(policy.get("agent_steps"))),
            labelled("episodes", words.count(policy.get("episodes"))),
            labelled("saved", words.version(policy.get("checkpoint"))),
            labelled("life", words.count((words.listing(policy.get("version")) or [None])[0])),
        ],
        width - 2,
    )
    indent = ("  ", "")
    if depth == 2:
        return [[(" ", ""), *flow([flows, losses or [("no update yet", LABEL)]], 10**6, " · ")]]
    if not shows_credit:
        flows += [(" credit ", LABEL), (words.short(policy.get("credit")), "")]
    rows = [[indent, ("fragments ", LABEL), *flows], [indent, ("loss ", LABEL), *(losses or [("none yet", LABEL)])]]
    return [fit(line, width - 1) for line in [*rows, [indent, *totals]]][: depth - 1]


def _returns(policy: dict[str, Any]) -> list[float | None]:
    return [words.number(value) for value in words.listing(policy.get("returns"))]


def roles(document: dict[str, Any], width: int, rows: int) -> tuple[Line, list[Line]]:
    """A title and a row per role; of too many the middle is one line that says how they are."""
    found = words.objects(document.get("roles"))
    gap = 1 if width < 90 else 2
    longest = max((len(words.text(role.get("name"))) for role in found), default=0)
    state_width = max((len(words.state(role.get("state"))[1]) for role in found), default=5) + 2
    columns = [
        Column("roles", min(max(8, longest), 16 if width < 90 else 24)),
        Column("state", max(7, state_width) if width < 90 else 13),
        Column("age", 6, True, 1),
        Column("restarts", 8, True, 2),
        Column("cpu", 5, True, 3),
        Column("memory", 7, True, 4),
        Column("pid", 7, True, 6),
        Column("host", 12, False, 7),
    ]
    kept = columns_that_fit(columns, width - max(12, width // 4) - gap, gap)
    used = sum(columns[index].width + gap for index in kept)
    if width - used >= 6:
        kept, columns = [*kept, len(columns)], [*columns, Column("doing", width - used)]
    visible, hidden = _visible(found, rows)
    lines: list[Line] = []
    for index, role in enumerate(found):
        if not visible:
            lines.append([(f"{len(found)} roles, {_how_they_are(found)}", "")])
            break
        if index in visible:
            lines.append(cells(columns, kept, _role_cells(role, words.mapping(document.get("restarts"))), gap))
        elif hidden:
            lines.append([(f"… {len(hidden)} more, {_how_they_are(hidden)}", LABEL)])
            hidden = []
    if not found:
        over = document.get("phase") in ("ended", "interrupted")
        lines.append([("every role has left" if over else "no role has said hello yet", LABEL)])
    return title(width, columns, kept, gap), lines[:rows]


def _visible(found: list[dict[str, Any]], rows: int) -> tuple[set[int], list[dict[str, Any]]]:
    """Which rows stand: trouble first, then from the front, and the last one; and the roles that do not."""
    if len(found) <= rows:
        return set(range(len(found))), []
    order = sorted(range(len(found)), key=lambda index: (found[index].get("state") in ("alive", "left"), index))
    calm = [index for index in order if index != len(found) - 1]
    if rows < 3:
        return set(), found
    chosen = {*calm[: rows - 2], len(found) - 1}
    return chosen, [role for index, role in enumerate(found) if index not in chosen]


def _how_they_are(hidden: list[dict[str, Any]]) -> str:
    states = Counter(words.state(role.get("state"))[1] for role in hidden)
    if len(states) == 1:
        return f"all {next(iter(states))}"
    return ", ".join(f"{number} {state}" for state, number in states.most_common())


def _role_cells(role: dict[str, Any], restarts: dict[str, Any]) -> list[tuple[str, str]]:
    sign, word, style = words.state(role.get("state"))
    again = words.number(role.get("restarts")) or words.number(restarts.get(words.text(role.get("name")))) or 0
    memory = words.number(role.get("rss_mb"))
    cpu = words.number(role.get("cpu"))
    size = words.DASH if memory is None else f"{memory:.0f} MB" if memory < 1000 else f"{memory / 1024:.1f} GB"
    return [
        (words.text(role.get("name"), "?"), "bold"),
        (f"{sign} {word}", style),
        (words.span(role.get("age")), ""),
        (f"{again:.0f}", "yellow" if again else LABEL),
        (words.DASH if cpu is None else f"{cpu:.0f}%", ""),
        (size, ""),
        (words.text(role.get("pid"), words.DASH), LABEL),
        (words.text(role.get("host"), words.DASH), LABEL),
        _doing(role),
    ]


def _doing(role: dict[str, Any]) -> tuple[str, str]:
    waits = [wait for wait in words.listing(role.get("waits")) if isinstance(wait, (list, tuple)) and len(wait) == 3]
    doing = words.text(role.get("doing"))
    if waits and not doing and role.get("state") != "suspect":
        whom, what, seconds = max(waits, key=lambda wait: words.number(wait[2]) or 0.0)
        return f"waits for {words.text(whom)}: {words.text(what)} {words.span(seconds)}", "yellow"
    if role.get("state") == "suspect" and words.number(role.get("heard")) is not None:
        return f"last heard {words.span(role['heard'])} ago", "yellow"
    rates = words.mapping(role.get("rates"))
    told = [f"{words.text(name)} {words.short(rate)}" for name, rate in rates.items() if name not in ("cpu", "rss_mb")]
    return " · ".join([doing, *told] if doing else told), ""
