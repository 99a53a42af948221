"""The live dashboard: one fixed screen, drawn from one standings document.

`screen` is pure: the same document, size and time give the same screen, so that a test (and `watch --once`) needs no
terminal. `Dashboard` is the thin shell around it that owns the terminal.

Invariant: the screen is exactly `width` x `height` cells; no document makes it raise. Room is given in the order of
what a user must not miss: alarms, roles in trouble, each policy's row, the last events, then detail.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live

from launcher import pool, prompt_board, sections, tables, words
from launcher.drawing import FRAME, LABEL, Canvas, Line, fit, framed, rule

WIDE = 160
"""From this many columns on, policies and roles stand side by side."""


def screen(document: dict[str, Any], width: int, height: int, now: float, hint: str = "") -> RenderableType:
    """The whole screen, `width` x `height` cells.

    `now` is the time in unix seconds; a document with a `time` (when it was heard) older than 3 s is said to be old.
    `hint` stands in the bottom of the frame. Missing and null fields are drawn as dashes.
    """
    width, height = max(1, width), max(1, height)
    left, right = sections.name_plate(document)
    inner = max(1, width - 4)
    top = rule(width, "╭╮", left, right)
    bottom = rule(width, "╰╯", [(f" {hint} ", LABEL)] if hint else None)
    body: list[Line] = [framed(line, width) for line in sections.header(document, inner, now)]
    room = max(0, height - 2 - len(body))
    found = len(words.listing(document.get("alarms")))
    shouts = sections.alarms(document, min(found, 1 if room < 8 else 2 if room < 30 else 4))
    body += [framed(line, width) for line in shouts]
    room = max(0, room - len(shouts))
    body += _wide(document, width, room) if width >= WIDE else _stacked(document, width, room)
    body = body[: max(0, height - 2)]
    body += [framed([], width)] * (height - 2 - len(body))
    return Canvas([fit(line, width) for line in ([top, *body, bottom] if height >= 2 else [top])], width)


def _divider(title: Line, ends: str = "├┤") -> Line:
    return [(ends[0], FRAME), *title, (ends[1], FRAME)]


def _shares(room: int, wants: dict[str, list[int]], order: list[str]) -> dict[str, int]:
    """Rows for each part. `order` names parts in turn; each turn lifts a part to the next of its `wants`.

    A turn that finds less room than it wants takes what is left, if the part can use single rows.
    """
    given = dict.fromkeys(wants, 0)
    steps = {part: iter(sizes) for part, sizes in wants.items()}
    for part in order:
        size = next(steps[part], None)
        if size is None or size <= given[part]:
            continue
        more = size - given[part]
        if more > room and part == "policies" and given[part]:
            continue  # another line for some of the policies only would look torn
        more = min(more, room)
        given[part] += more
        room -= more
    return given


def _stacked(document: dict[str, Any], width: int, room: int) -> list[Line]:
    """Everything below one another; each section begins with its divider."""
    inner = max(1, width - 4)
    count = max(1, len(words.mapping(document.get("policies"))))
    crew = max(1, len(words.objects(document.get("roles"))))
    waiting = max(1, len(words.waits(document)))
    board = prompt_board if prompt_board.wanted(document) else pool
    pooled = board.wanted(document)
    dividers = 5 if pooled else 4
    room = max(0, room - dividers)
    wants = {
        "pool": pooled,
        "policies": [min(count, 4), count, 2 * count, 3 * count, 4 * count, 5 * count, 6 * count],
        "roles": [min(crew, 4), min(crew, 6), crew],
        "ledger": [2, 1 + min(waiting, 2), 1 + min(waiting, 4)],
        "events": [1, 2, 4, 6, 8, 50],
    }
    if board is prompt_board:  # its policy has no returns to draw
        wants["policies"] = wants["policies"][:3]
    order = "policies pool roles ledger events roles policies pool events roles policies pool ledger events policies "
    order += "events policies ledger events pool policies policies events pool"
    rows = _shares(room, wants, order.split())
    depth = max(1, rows["policies"] // count)
    lines: list[Line] = []
    for part, (title, content) in {
        "policies": tables.policies(document, inner, rows["policies"], depth),
        "pool": board.panel(document, inner, rows["pool"]),
        "roles": tables.roles(document, inner, rows["roles"]),
        "ledger": sections.ledger(document, inner, rows["ledger"]),
    }.items():
        if rows[part]:
            lines += [_divider(title), *(framed(line, width) for line in content)]
    rest = room + dividers - len(lines) - 1
    if rest > 0:
        title, content = sections.events(document, inner, rest)
        lines += [_divider(title), *(framed(line, width) for line in content)]
    return lines


def _wide(document: dict[str, Any], width: int, room: int) -> list[Line]:
    """Two columns: what is learned and stored on the left, who does it and what happened on the right."""
    count = max(1, len(words.mapping(document.get("policies"))))
    crew = max(1, len(words.objects(document.get("roles"))))
    waiting = 1 + max(1, min(len(words.waits(document)), 6))
    left = (width - 7) * 53 // 100
    right = width - 7 - left
    board = prompt_board if prompt_board.wanted(document) else pool
    pooled = board.wanted(document)
    most_held = room * 2 // 3 if board is prompt_board else room // 3
    held = max((size for size in pooled if size <= max(1, most_held)), default=0)
    most = max(1, room - 2 - waiting - (held + 1 if held else 0))
    depth = max(1, min(14, most // count))
    parts = [tables.policies(document, left, most, depth)]
    parts += [board.panel(document, left, held)] if held else []
    parts.append(sections.ledger(document, left, waiting))
    others = [tables.roles(document, right, max(1, min(crew, room - 2 - min(room // 4, 12))))]
    others.append(sections.events(document, right, max(0, room - 2 - len(others[0][1]))))
    near, far = _column(parts, left, room), _column(others, right, room)
    lines: list[Line] = []
    for row, ((left_divides, one), (right_divides, two)) in enumerate(zip(near, far, strict=True)):
        wall = {(0, 0): "│", (1, 0): "┤", (0, 1): "├", (1, 1): "┼" if row else "┬"}[left_divides, right_divides]
        head: Line = [("├", FRAME), *one] if left_divides else [("│ ", FRAME), *one, (" ", "")]
        tail: Line = [*two, ("┤", FRAME)] if right_divides else [(" ", ""), *two, (" │", FRAME)]
        lines.append([*head, (wall, FRAME), *tail])
    return lines


def _column(parts: list[tuple[Line, list[Line]]], width: int, rows: int) -> list[tuple[int, Line]]:
    """Parts below one another in exactly `rows` rows: (1, divider) or (0, line)."""
    found: list[tuple[int, Line]] = []
    for divider, content in parts:
        found += [(1, divider), *((0, fit(line, width)) for line in content)]
    return [*found[:rows], *((0, fit([], width)) for _ in range(rows - len(found)))]


class Screen:
    """The newest document as something rich draws at whatever size the terminal has just then."""

    def __init__(self, hint: str, clock: Callable[[], float]) -> None:
        self.document: dict[str, Any] = {}
        self.hint = hint
        self.clock = clock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        yield screen(self.document, options.max_width, height, self.clock(), self.hint)


class Dashboard:
    """The terminal's alternate screen while a run lasts; what was there before comes back at the end.

    Draws when a document arrives, at most ten times a second, and on `tick` once a second: the clock and the age of
    the news move even if the tracker is silent. A context manager; `show` and `tick` never raise for a document.
    """

    def __init__(
        self,
        console: Console | None = None,
        hint: str = "Ctrl-C stops the run in order",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = Screen(hint, clock)
        self._clock = clock
        self._drawn = 0.0
        self._live = Live(self._screen, console=console or Console(), screen=True, auto_refresh=False)

    def __enter__(self) -> Dashboard:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, document: dict[str, Any]) -> None:
        """Draw a new standings document."""
        now = self._clock()
        self._screen.document = {"time": now, **document}
        if now - self._drawn >= 0.1:
            self._draw(now)

    def tick(self) -> None:
        """Draw again if a second has gone by: to be called often by whoever waits for documents."""
        now = self._clock()
        if now - self._drawn >= 1.0:
            self._draw(now)

    def close(self) -> None:
        """Leave the alternate screen. May be called twice."""
        self._live.stop()

    def _draw(self, now: float) -> None:
        self._drawn = now
        self._live.refresh()
