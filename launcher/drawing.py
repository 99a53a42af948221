"""Drawing on a grid of terminal cells: spans, lines, columns, bars, charts and one frame.

A line is a list of spans (text, style). Lines are cut and padded by cells, not characters, so that a wide sign never
pushes the frame out. Written on segments rather than on rich's tables because a screen of 40 rows is drawn in two or
three milliseconds so, and because the height of every part is known before it is drawn.

Invariant: `fit` gives exactly the width asked for; a `Canvas` gives exactly its lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style

Span = tuple[str, str]
Line = list[Span]

LABEL = "grey58"
FRAME = "grey42"
BLOCKS = " ▁▂▃▄▅▆▇█"


def width_of(line: Line) -> int:
    """Cells that a line takes."""
    return sum(cell_len(words) for words, _ in line)


def fit(line: Line, width: int) -> Line:
    """The line in exactly `width` cells: padded with spaces, or cut and ended with `…`."""
    room, fitted = width, []
    for index, (words, style) in enumerate(line):
        cells = cell_len(words)
        # The mark needs a cell: a span that fills the room is cut too when anything but blanks follows it.
        if cells > room or (cells == room and any(rest.strip() for rest, _ in line[index + 1 :])):
            if room > 0:
                fitted.append((set_cell_size(words, room - 1) + "…", style))
            return fitted
        fitted.append((words, style))
        room -= cells
    if room > 0:
        fitted.append((" " * room, ""))
    return fitted


def flow(items: Iterable[Line], width: int, separator: str = "   ") -> Line:
    """The items one after another, as many from the front as fit whole (the first one always)."""
    line: Line = []
    for item in items:
        if line and width_of(line) + len(separator) + width_of(item) > width:
            break
        line = [*line, (separator, LABEL), *item] if line else list(item)
    return line


@dataclass(frozen=True)
class Column:
    """One column of a table: `rank` 0 always stands; the highest rank goes first when there is no room."""

    title: str
    width: int
    right: bool = False
    rank: int = 0


def columns_that_fit(columns: Sequence[Column], width: int, gap: int) -> list[int]:
    """The indices of the columns that stand in `width` cells, in order."""
    kept = list(range(len(columns)))
    while kept and sum(columns[index].width + gap for index in kept) - gap > width:
        droppable = [index for index in kept if columns[index].rank]
        if not droppable:
            break
        kept.remove(max(droppable, key=lambda index: (columns[index].rank, index)))
    return kept


def cells(columns: Sequence[Column], kept: Sequence[int], values: Sequence[Span], gap: int) -> Line:
    """One row of a table."""
    line: Line = []
    for position, index in enumerate(kept):
        words, style = values[index]
        column = columns[index]
        length = cell_len(words)
        if length > column.width:
            words, length = set_cell_size(words, max(0, column.width - 1)) + "…", column.width
        if position:
            line.append((" " * gap, ""))
        blank = " " * (column.width - length)
        line.append((blank + words if column.right else words + blank, style))
    return line


def bar(share: float, width: int, style: str) -> Line:
    """A bar of `width` cells, `share` (0 to 1) of it done, to half a cell."""
    halves = round(max(0.0, min(1.0, share)) * width * 2)
    full, half = divmod(halves, 2)
    return [("━" * full + "╸" * half, style), ("─" * (width - full - half), FRAME)]


def chart(values: Sequence[float | None], width: int, height: int) -> list[str]:
    """`height` rows of `width` block signs from the top row down; None leaves a blank column, few values leave room.

    The scale is the values' own; the highest stops an eighth below the top, so that charts above one another part.
    """
    points = _resampled(values, width)
    known = [point for point in points if point is not None]
    if not known or height < 1:
        return [" " * width] * max(0, height)
    low, high = min(known), max(known)
    steps = 8 * height - 2
    levels = [
        0 if point is None else 1 + round((point - low) / (high - low) * steps) if high > low else 4 * height
        for point in points
    ]
    rows = ["".join(BLOCKS[max(0, min(8, level - 8 * row))] for level in levels) for row in reversed(range(height))]
    return [row + " " * (width - len(row)) for row in rows]


def _resampled(values: Sequence[float | None], width: int) -> list[float | None]:
    """At most `width` points: means of neighbours where there are more; each twice, thrice.. where there is room."""
    if width < 1 or not values:
        return []
    if len(values) <= width:
        return [value for value in values for _ in range(width // len(values) if len(values) >= 8 else 1)]
    points: list[float | None] = []
    for index in range(width):
        part = values[index * len(values) // width : (index + 1) * len(values) // width]
        known = [value for value in part if value is not None]
        points.append(sum(known) / len(known) if known else None)
    return points


def rule(width: int, ends: str, left: Line | None = None, right: Line | None = None) -> Line:
    """A line of the frame: `ends` are its two corners, words stand in it left and right (right gives way)."""
    inner = max(0, width - 2)
    head: Line = [("─", FRAME), *left] if left else []
    if width_of(head) > inner:
        head = fit(head, inner)
    tail: Line = [*right, ("─", FRAME)] if right else []
    if width_of(head) + width_of(tail) > inner:
        tail = []
    return [(ends[0], FRAME), *head, ("─" * (inner - width_of(head) - width_of(tail)), FRAME), *tail, (ends[1], FRAME)]


def framed(line: Line, width: int) -> Line:
    """A line of content between the frame's sides."""
    return [("│ ", FRAME), *fit(line, max(0, width - 4)), (" │", FRAME)]


def title(width: int, columns: Sequence[Column] = (), kept: Sequence[int] = (), gap: int = 1, name: str = "") -> Line:
    """A divider of `width` + 2 cells: the columns' titles stand above their columns, the first is the section's."""
    signs = ["─"] * (width + 2)
    named = [False] * (width + 2)

    def place(label: str, at: int) -> None:
        for offset, sign in enumerate(f" {label} "):
            where = at + offset - 1
            if 0 <= where < len(signs) and (sign != " " or signs[where] == "─"):
                signs[where], named[where] = sign, True

    at = 1
    if not kept:
        place(name, at)
    for index in kept:
        column = columns[index]
        if column.title:
            place(column.title, at + max(0, column.width - len(column.title)) if column.right else at)
        at += column.width + gap
    line: Line = []
    section = columns[kept[0]].title if kept else name
    for where, (sign, is_name) in enumerate(zip(signs, named, strict=True)):
        style = ("bold" if where <= len(section) else LABEL) if is_name else FRAME
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + sign, style)
        else:
            line.append((sign, style))
    return line


def labelled(label: str, value: str, style: str = "", after: str = "") -> Line:
    """`label value after`, the label and what comes after it dim."""
    return [(f"{label} ", LABEL), (value, style), *([(f" {after}", LABEL)] if after else [])]


class Canvas:
    """Finished lines as something rich can print: exactly these, none wrapped."""

    def __init__(self, lines: Sequence[Line], width: int) -> None:
        self.lines = lines
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines:
            for words, style in fit(line, self.width):
                yield Segment(words, Style.parse(style) if style else None)
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self.width, self.width)

    def __str__(self) -> str:
        return "\n".join("".join(words for words, _ in fit(line, self.width)) for line in self.lines)
