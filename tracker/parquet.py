"""Facts as Parquet: a file for each kind, a column for each field of its bodies.

Invariants: every fact is one row, in order; a column has one type, the narrowest that holds all that stands in it
(boolean, int64, double; else text, where what is not text is JSON); memory is bounded by a batch of rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 20_000
"""Rows of one kind that are written at one go."""
OWN = {"position": "int", "source": "text", "incarnation": "text", "sequence": "int", "time": "int"}
_types = {"none": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}
_wider = {frozenset({"int", "float"}): "float"}

Flat = Iterable[tuple[str, tuple[Any, ...], dict[str, Any]]]
"""(kind, (position, source, incarnation, sequence, time), body with dotted keys)"""


def write(facts: Callable[[], Flat], folder: Path) -> list[str]:
    """Write `folder/<kind>.parquet` for every kind; `facts` is read twice: for the types, then for the rows."""
    types: dict[str, dict[str, str]] = {}
    for kind, _, body in facts():
        known = types.setdefault(kind, {})
        for name, value in body.items():
            known[name] = _common(known.get(name, "none"), _type(value))
    with ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        schemas = {kind: _schema(columns) for kind, columns in types.items()}
        for kind, schema in schemas.items():
            path = folder / f"{kind}.parquet"
            writers[kind] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
        for kind, rows in _batches(facts()):
            columns = types[kind]
            own = list(zip(*(row[0] for row in rows), strict=True))
            arrays = [pa.array(values, _types[of]) for values, of in zip(own, OWN.values(), strict=True)]
            arrays += [
                pa.array([_as(of, row[1].get(name)) for row in rows], _types[of]) for name, of in columns.items()
            ]
            writers[kind].write_table(pa.Table.from_arrays(arrays, schema=schemas[kind]))
    return list(types)


def _schema(columns: dict[str, str]) -> pa.Schema:
    # A body's field may be called as one of ours is: it keeps its place under another name.
    own = [(name, _types[of]) for name, of in OWN.items()]
    return pa.schema([*own, *((f"body.{name}" if name in OWN else name, _types[of]) for name, of in columns.items())])


def _batches(facts: Flat) -> Iterator[tuple[str, list[tuple[tuple[Any, ...], dict[str, Any]]]]]:
    waiting: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
    for kind, own, body in facts:
        rows = waiting.setdefault(kind, [])
        rows.append((own, body))
        if len(rows) >= ROWS:
            yield kind, rows
            waiting[kind] = []
    yield from ((kind, rows) for kind, rows in waiting.items() if rows)


def _type(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) else "text"


def _common(one: str, other: str) -> str:
    if other in (one, "none"):
        return one
    return other if one == "none" else _wider.get(frozenset({one, other}), "text")


def _as(of: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if of == "text":
        return json.dumps(value)
    return float(value) if of == "float" else value
