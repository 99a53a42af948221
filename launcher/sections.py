"""The parts of the dashboard's screen that are running text: header, alarms, ledger and waits, events.

A section is asked for a number of rows and never gives more; its title stands in the frame's divider.

Invariant: no section raises, whatever is missing in the document; what was left out for want of room is counted.
"""

from __future__ import annotations

from typing import Any

from launcher import prompt_board, words
from launcher.drawing import LABEL, Line, bar, flow, labelled, title, width_of

PHASES = {
    "starting": "cyan",
    "running": "bold green",
    "stopping": "yellow",
    "ended": "bold green",
    "interrupted": "bold yellow",
}
SILENCE = 3.0
"""Seconds without standings after which the header says so."""


def name_plate(document: dict[str, Any]) -> tuple[Line, Line]:
    """What stands in the frame's top: the run on the left; seed and phase on the right."""
    failed = bool(document.get("failed"))
    phase = words.text(document.get("phase"), "waiting for the tracker")
    style = "bold red" if failed else PHASES.get(phase, "")
    left: Line = [(" headrace ", "bold cyan"), (f"{words.text(document.get('run'), words.DASH)} ", "bold")]
    if document.get("simulation"):
        left.append((" SIMULATION ", "bold black on yellow"))
        left.append((" ", ""))
    seed = "" if words.number(document.get("seed")) is None else f" seed {document['seed']} "
    right: Line = [(seed, LABEL), (f" ● {phase}{' · failed' if failed and phase != 'failed' else ''} ", style)]
    return left, right


def header(document: dict[str, Any], width: int, now: float) -> list[Line]:
    """Two lines: the time with its bar (or why the run ended), and the run's counts."""
    stop = words.mapping(document.get("stop"))
    seconds = words.clock(document.get("seconds"))
    left = words.number(document.get("seconds_left"))
    share = words.progress(document)
    heard = words.number(document.get("time"))
    silent = heard is not None and now - heard > SILENCE
    reason = words.text(document.get("reason"))
    phase = document.get("phase")
    if silent and heard is not None and phase not in ("ended", "interrupted"):
        tail: Line = [(f"no news of the tracker for {words.span(now - heard)}", "bold yellow")]
    elif phase in ("stopping", "ended", "interrupted") and reason:
        tail = [(reason, "bold red" if document.get("failed") else "")]
    elif left is not None:
        limit = words.number(stop.get("seconds"))
        tail = [(f"{words.clock(left)} left", "bold"), (f" of {words.clock(limit)}" if limit else "", LABEL)]
    elif share is not None:
        tail = [(f"{share:.0%}", "bold"), (f" of {words.count(stop.get('env_steps'))} env steps", LABEL)]
    else:
        tail = [("no limit", LABEL)]
    room = width - width_of(tail) - len(seconds) - 2
    first: Line = [(seconds, "bold")]
    if room >= 8 and share is not None:
        tint = "red" if document.get("failed") else "cyan" if phase != "ended" else "green"
        first += [(" ", ""), *bar(share, room, tint), (" ", "")]
    else:
        first += [(" · ", LABEL)]
    counts = [
        labelled(
            "env steps", words.count(document.get("env_steps")), "", words.rate(document.get("env_steps_per_second"))
        ),
        labelled("agent steps", words.rate(document.get("agent_steps_per_second")), "bold"),
        labelled("return", words.decimal(document.get("return_mean")), "bold"),
        labelled("episodes", words.count(document.get("episodes"))),
        labelled("agent steps in all", words.count(document.get("agent_steps"))),
        labelled("epoch", words.count(document.get("epoch"))),
    ]
    if prompt_board.wanted(document):
        counts = prompt_board.counts(document)
    elif stop.get("return") is not None:
        counts.insert(3, labelled("of", words.decimal(stop.get("return"))))
    return [first + tail, flow(counts, width)]


def alarms(document: dict[str, Any], rows: int) -> list[Line]:
    """The newest alarms, red."""
    found = [words.text(alarm) for alarm in words.listing(document.get("alarms")) if alarm]
    if len(found) > rows > 0:
        found = [f"{len(found) - rows + 1} more alarms", *found[len(found) - rows + 1 :]]
    return [[(" ! ", "bold white on red"), (f" {alarm}", "bold red")] for alarm in found[:rows]]


def ledger(document: dict[str, Any], width: int, rows: int) -> tuple[Line, list[Line]]:
    """A title; what the tracker stored; and who waits for whom, the longest wait first."""
    facts = words.mapping(document.get("facts"))
    saved = {
        name: words.mapping(policy).get("checkpoint")
        for name, policy in words.mapping(document.get("policies")).items()
    }
    done = [words.version(version).split(" ")[0] for version in saved.values() if version]
    told = f"{len(done)} of {len(saved)} policies" if len(done) > 4 or not done else " ".join(done)
    items = [
        labelled("facts", words.count(facts.get("stored")), "bold", words.rate(facts.get("per_second"))),
        labelled("checkpoints", told),
        _bad("refused", facts.get("refused")),
        _bad("quarantined", document.get("quarantined")),
        labelled("duplicates", words.short(facts.get("duplicates"))),
    ]
    tasks = words.mapping(document.get("tasks"))
    if any(words.number(value) for value in tasks.values()):
        counts = [f"{words.short(tasks.get(key))} {key}" for key in ("waiting", "leased", "done", "returned", "late")]
        items.insert(1, labelled("tasks", " ".join(counts)))
    lines = [flow(items, width, "  " if width < 90 else "   ")]
    waiting = words.waits(document)
    room = max(0, rows - 1)
    for who, whom, what, seconds in waiting[: room if len(waiting) <= room else max(1, room - 1)]:
        style = "bold yellow" if seconds >= 5 else "yellow" if seconds >= 1 else ""
        lines.append(
            [
                (who, "bold"),
                (" waits ", LABEL),
                (words.span(seconds), style),
                (" for ", LABEL),
                (whom, "bold"),
                (f"  {what}", ""),
            ]
        )
    if len(waiting) > room > 0:
        rest = len(waiting) - max(1, room - 1)
        if room == 1:
            lines[-1].append((f"   and {rest} more wait", LABEL))
        else:
            lines.append([(f"… {rest} more wait", LABEL)])
    if not waiting:
        lines.append([("nobody waits", LABEL)])
    return title(width, name="ledger and waits"), lines[:rows]


def _bad(label: str, value: Any) -> Line:
    return labelled(label, words.short(value), "bold red" if words.number(value) else "")


def events(document: dict[str, Any], width: int, rows: int) -> tuple[Line, list[Line]]:
    """A title and the last events, the newest at the bottom."""
    found = words.objects(document.get("events"))
    newest = found[max(0, len(found) - rows) :] if rows > 0 else []
    longest = min(max((len(words.text(event.get("source"))) for event in newest), default=0), 20)
    lines: list[Line] = [
        [
            (words.time_of_day(event.get("time")), LABEL),
            (f"  {words.text(event.get('source'), words.DASH):<{longest}}  ", "cyan"),
            (words.text(event.get("text")), ""),
        ]
        for event in newest
    ]
    if not found:
        lines.append([("nothing has happened yet", LABEL)])
    return title(width, name="events"), lines[: max(0, rows)]
