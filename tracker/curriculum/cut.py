"""The entries of a pool as they were at one moment, written down bit by bit while the pool goes on.

Invariants: whoever changes an entry keeps it first, so that what is written is of the moment of the cut; `columns` and
`unpacked` keep every number bit for bit.
"""

from __future__ import annotations

import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from tracker.curriculum.entry import Entry

_forms = {"float": "d", "float | None": "d", "int": "q"}
_names = [field.name for field in fields(Entry)]
_numbers = {field.name: _forms[str(field.type)] for field in fields(Entry) if field.type in _forms}
"""Fields that are kept as numbers of 8 bytes, by their form in `struct`."""
SLOTS = 20_000
"""Of an order, in one part."""
_values = attrgetter(*_names)


class Cut:
    """The entries of one moment, in their order. Copies only those that change before they are written."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = list(entries)
        self._changed: dict[int, tuple[Any, ...]] = {}
        self._written = 0
        """Entries up to this `order` are written: they stand in the order in which they were accepted."""
        self._last = self._entries[-1].order if self._entries else 0

    def keep(self, entry: Entry) -> None:
        """An entry is about to change."""
        if self._written < entry.order <= self._last and entry.order not in self._changed:
            self._changed[entry.order] = _values(entry)

    def columns(self, most: int) -> Iterator[dict[str, Any]]:
        """All entries as plain JSON values, `most` at a time: a column for each field.

        Numbers are base64 of little-endian doubles and integers: as JSON text they would take most of the time. A
        baseline that is not there is NaN.
        """
        changed = self._changed
        for first in range(0, len(self._entries), most):
            entries = self._entries[first : first + most]
            rows = [changed.pop(entry.order) if entry.order in changed else _values(entry) for entry in entries]
            self._written = entries[-1].order
            yield {name: _column(name, values) for name, values in zip(_names, zip(*rows, strict=True), strict=True)}


def _column(name: str, values: Sequence[Any]) -> Any:
    form = _numbers.get(name)
    if form is None:
        return list(values)
    if name == "baseline":
        values = [math.nan if value is None else value for value in values]
    return b64encode(struct.pack(f"<{len(values)}{form}", *values)).decode("ascii")


def unpacked(columns: dict[str, Any]) -> list[Entry]:
    """Entries from one piece of `Cut.columns`."""
    whole: list[Iterable[Any]] = []
    for name in _names:
        values: Iterable[Any] = columns[name]
        form = _numbers.get(name)
        if form is not None:
            values = _numbers_of(form, columns[name])
        if name == "baseline":
            values = [None if math.isnan(value) else value for value in values]
        whole.append(values)
    return [Entry(*row) for row in zip(*whole, strict=True)]


def packed_slots(entries: Sequence[Entry]) -> Iterator[str]:
    """The slots of entries, which never change, some thousands to a text."""
    for first in range(0, len(entries), SLOTS):
        slots = [entry.slot for entry in entries[first : first + SLOTS]]
        yield b64encode(struct.pack(f"<{len(slots)}q", *slots)).decode("ascii")


def unpacked_slots(texts: Iterable[str], slots: Mapping[int, Entry]) -> list[Entry]:
    """From `packed_slots`, and the entries by slot."""
    return [slots[slot] for text in texts for slot in _numbers_of("q", text)]


def _numbers_of(form: str, text: str) -> tuple[Any, ...]:
    content = b64decode(text)
    return struct.unpack(f"<{len(content) // 8}{form}", content)
