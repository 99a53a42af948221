"""Trees of arrays and one payload, both ways, without pickle.

A tree (`broker.layouts`) travels as its layout and a *payload*: the arrays' bytes, each at a 64-byte offset. Invariant:
`unpack` touches no byte before the layout's size was found equal to the payload's; arrays it gives are read-only views
of the payload.

A single flat fragment is unpacked as one record, and a batch column by column: both are several times what one array at
a time costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from broker.errors import WireError
from broker.layouts import ARRAY, BFloat16, Layout, Leaf, Tree, described, padded, read_layout
from broker.sending import OWNED, fresh

__all__ = ["BFloat16", "Draft", "Tree", "draft", "fill", "from_bytes", "pack", "to_bytes", "unpack", "unpack_all"]

HELD = 1024 * 1024
"""Arrays up to this size (bytes) are copied without letting go of the interpreter lock, which numpy would do for each:
getting it back from the reactor's thread takes longer than the copy."""


def fill(layout: Layout, leaves: list[Leaf], buffer: memoryview) -> None:
    """Copy the arrays to their places in `buffer` (of `layout.size` bytes, from `fresh`)."""
    for (dtype, shape, offset, brain), leaf in zip(layout.entries, leaves, strict=True):
        source: Any = leaf.bits if brain else leaf  # type: ignore[union-attr]
        size = source.nbytes
        if 0 < size <= HELD and source.flags.c_contiguous:
            buffer[offset : offset + size] = source.data.cast("B")
        else:
            np.ndarray(shape, dtype, buffer, offset)[...] = source
    _clear_padding(layout, buffer)


def _clear_padding(layout: Layout, buffer: memoryview) -> None:
    """Clear what lies between the arrays where `fresh` did not.

    It would show memory of this process to the receiver, and give equal trees different checksums.
    """
    if layout.size > OWNED:
        for dtype, shape, offset, _ in layout.entries:
            end = offset + math.prod(shape) * dtype.itemsize
            buffer[end : padded(end)] = bytes(padded(end) - end)


@dataclass(frozen=True)
class Draft:
    """A payload and the arrays in it: filled in place, sent without a copy, and never touched again by its maker."""

    layout: Layout
    payload: memoryview
    arrays: dict[str, np.ndarray[Any, Any]]


def draft(forms: Mapping[str, tuple[tuple[int, ...], np.dtype[Any] | str]]) -> Draft:
    """A fresh draft with an array of each (shape, dtype) by name; what the arrays contain is undefined."""
    empty = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, (shape, dtype) in forms.items()}
    layout, _ = described(empty)
    payload = fresh(layout.size)
    _clear_padding(layout, payload)
    arrays = {
        name: np.ndarray(shape, dtype, payload, offset)
        for name, (dtype, shape, offset, _) in zip(forms, layout.entries, strict=True)
    }
    return Draft(layout, payload, arrays)


def pack(tree: Tree) -> tuple[Layout, memoryview]:
    """Pack a tree into its layout and a payload in a new buffer, to which there is no other reference."""
    layout, leaves = described(tree)
    buffer = fresh(layout.size)
    fill(layout, leaves, buffer)
    return layout, buffer


def unpack(layout: Layout, payload: memoryview | bytes) -> Tree:
    """The tree, its arrays read-only views of `payload`. WireError when the sizes differ."""
    return unpack_all(layout, payload, 1)[0]


def unpack_all(layout: Layout, payload: memoryview | bytes, count: int) -> list[Tree]:
    """`count` trees of one layout that lie one after another, like `unpack`. WireError if the sizes differ."""
    view = memoryview(payload).toreadonly()
    if view.nbytes != layout.size * count:
        raise WireError("size", f"payload of {view.nbytes} bytes, layout of {count} x {layout.size}")
    if count == 1:
        return [_unpack_one(layout, view)]
    columns: list[list[Any]] = []
    for dtype, shape, offset, brain in layout.entries:
        strides = [dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        rows = np.ndarray((count, *shape), dtype, view, offset, (layout.size, *strides))
        column: list[Any] = list(rows) if shape else [rows[index, ...] for index in range(count)]
        columns.append([BFloat16(array) for array in column] if brain else column)
    if not columns:
        return [_grow(layout, ()) for _ in range(count)]
    return [_grow(layout, arrays) for arrays in zip(*columns, strict=True)]


def _unpack_one(layout: Layout, view: memoryview) -> Tree:
    if layout.record is not None and layout.keys is not None:
        whole: np.ndarray[Any, Any] = np.ndarray((), layout.record, view)
        return {key: whole[key] for key in layout.keys}
    arrays: list[Any] = []
    for dtype, shape, offset, brain in layout.entries:
        array = np.ndarray(shape, dtype, view, offset)
        arrays.append(BFloat16(array) if brain else array)
    return _grow(layout, arrays)


def _grow(layout: Layout, arrays: Sequence[Any]) -> Tree:
    return dict(zip(layout.keys, arrays, strict=True)) if layout.keys is not None else build(layout.plain[0], arrays)


def build(skeleton: Any, arrays: Sequence[Any]) -> Tree:
    """The tree of a skeleton, with the arrays in their places."""
    if isinstance(skeleton, dict):
        if ARRAY in skeleton:
            return arrays[skeleton[ARRAY]]
        return {key: build(node, arrays) for key, node in skeleton.items()}
    if isinstance(skeleton, list | tuple):
        return [build(node, arrays) for node in skeleton]
    return skeleton


def to_bytes(tree: Tree) -> bytes:
    """A tree as one self-describing text of bytes (the form of a checkpoint)."""
    layout, payload = pack(tree)
    head: bytes = msgpack.packb(layout.plain)
    start = padded(16 + len(head))
    return b"".join(
        (b"HEADRACE", len(head).to_bytes(8, "little"), head, b"\0" * (start - 16 - len(head)), payload),
    )


def from_bytes(content: bytes | memoryview) -> Tree:
    """The tree of `to_bytes`. WireError when it is damaged."""
    view = memoryview(content)
    if view.nbytes < 16 or bytes(view[:8]) != b"HEADRACE":
        raise WireError("checkpoint", "does not begin as a checkpoint does")
    length = int.from_bytes(view[8:16], "little")
    if padded(16 + length) > view.nbytes:
        raise WireError("checkpoint", "shorter than it says")
    try:
        plain = msgpack.unpackb(view[16 : 16 + length], use_list=True, strict_map_key=True)
    except ValueError as error:
        raise WireError("checkpoint", "its head cannot be read") from error
    return unpack(read_layout(plain), view[padded(16 + length) :])
