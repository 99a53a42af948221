"""One task of the pool, and all that is known of it.

Invariant: `packed` and `unpacked` keep every number bit for bit, so that a restored task goes on exactly as it would
have.
"""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

SCALE = 2**40
"""Raw scores are summed as multiples of 2^-40: integer sums are exact and never drift."""


@dataclass(slots=True, eq=False)
class Entry:
    """A task that may be drawn. Statistics of scorers that the run does not use stay as they began."""

    name: str
    order: int
    """The place of its acceptance among all tasks ever."""
    slot: int
    """A small number of its own while it is in the pool."""
    label: str
    policy: str | None
    body: str
    """JSON text, as its minter wrote it."""
    form: int
    """The `schema` setting under which it was accepted."""
    count: int = 0
    """Outcomes."""
    total: float = 0.0
    """Sum of their scores."""
    raw: float = 0.0
    """What the scorer says: in [0, 1], more is better to draw."""
    baseline: float | None = None
    initialised: bool = False
    fast: float = 0.0
    slow: float = 0.0
    average: float = 0.0
    spread: float = 0.0
    draws: int = 0
    drawn_at: int = 0
    """The number of its last draw, or how many draws there had been when it came."""
    returned: int = 0
    """Draws that ended without an outcome: the actor was lost, or the lease ran out."""
    transient: int = 0
    permanent: int = 0
    strikes: int = 0
    """Rests in a row, without an outcome between them."""
    resting: bool = False
    """It failed, and is not drawn for a while."""
    until: int = 0
    """When its rest ends (the tracker's wall clock, ns); 0 while that is not decided."""

    @property
    def level(self) -> int:
        """`raw` in units of 1 / SCALE."""
        return int(self.raw * SCALE)

    @property
    def mean(self) -> float | None:
        """Of its scores."""
        return self.total / self.count if self.count else None


_forms = {"float": "d", "float | None": "d", "int": "q"}
_numbers = {field.name: _forms[str(field.type)] for field in fields(Entry) if field.type in _forms}
"""Fields that are kept as numbers of 8 bytes, by their form in `struct`."""


def packed(entries: Collection[Entry]) -> dict[str, Any]:
    """All entries as plain JSON values, a column for each field.

    Numbers are base64 of little-endian doubles and integers: as JSON text they would take most of the time that a
    snapshot of 100,000 tasks takes, in which the tracker does nothing else. A baseline that is not there is NaN.
    """
    columns: dict[str, Any] = {}
    for field in fields(Entry):
        values = list(map(attrgetter(field.name), entries))
        if field.name == "baseline":
            values = [math.nan if value is None else value for value in values]
        form = _numbers.get(field.name)
        if form is None:
            columns[field.name] = values
        else:
            columns[field.name] = b64encode(struct.pack(f"<{len(values)}{form}", *values)).decode("ascii")
    return columns


def unpacked(columns: dict[str, Any]) -> list[Entry]:
    """From `packed`."""
    whole: list[Iterable[Any]] = []
    for field in fields(Entry):
        values: Iterable[Any] = columns[field.name]
        form = _numbers.get(field.name)
        if form is not None:
            content = b64decode(columns[field.name])
            values = struct.unpack(f"<{len(content) // 8}{form}", content)
        if field.name == "baseline":
            values = [None if math.isnan(value) else value for value in values]
        whole.append(values)
    return [Entry(*row) for row in zip(*whole, strict=True)]
