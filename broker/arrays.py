"""Trees of arrays and one payload frame, both ways, without pickle.

A tree is a nesting of dicts (text keys), lists, plain values (None, bool, int, float, str) and arrays. It travels as a
*layout* (plain: the skeleton of the tree, and each array's dtype and shape) and a *payload* (the arrays' bytes, each at
a 64-byte offset). Invariant: `unpack` touches no byte before the layout's bounds were checked and its size was found
equal to the payload's; arrays it gives are read-only views of the payload.

Experience is a stream of trees of one form, most of them a flat dict of small arrays. What that form decides is found
once (`described`), and a batch is unpacked column by column: both are several times what one tree at a time costs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from broker.errors import WireError
from broker.sending import fresh

ALIGNMENT = 64
ARRAY = "\0array"
"""The skeleton's mark for the n-th array; no key of a tree may begin with a zero byte."""
MAX_DEPTH = 16
MAX_NODES = 100_000
REMEMBERED = 256
HELD = 1024 * 1024
"""Arrays up to this size (bytes) are copied without letting go of the interpreter lock, which numpy would do for each:
getting it back from the reactor's thread takes longer than the copy."""

_NUMPY = ["bool", "complex64", "complex128"]
_NUMPY += [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_NUMPY += [f"float{bits}" for bits in (16, 32, 64)]
DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in _NUMPY} | {"bfloat16": np.dtype("uint16")}

type_names = {dtype: name for name, dtype in DTYPES.items() if name != "bfloat16"}

Tree = Any
"""None, bool, int, float, str, an array, or a dict (text keys) or list of trees."""


@dataclass(frozen=True, eq=False)
class BFloat16:
    """An array of bfloat16, which numpy lacks, as the 16 bits of each element (uint16)."""

    bits: np.ndarray[Any, Any]

    def __post_init__(self) -> None:
        if self.bits.dtype != np.uint16:
            raise TypeError(f"BFloat16 holds uint16 bits, not {self.bits.dtype}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat16) and np.array_equal(self.bits, other.bits)

    __hash__ = None  # type: ignore[assignment]


Leaf = np.ndarray[Any, Any] | BFloat16
_leaf_types = (np.ndarray, BFloat16)


@dataclass(frozen=True)
class Layout:
    """What a payload holds. `plain` is what travels; `digest` names it; `size` is the payload's length in bytes."""

    plain: Any
    digest: str
    entries: tuple[tuple[np.dtype[Any], tuple[int, ...], int, bool], ...]
    """For each array: dtype, shape, offset, whether it is a bfloat16."""
    size: int
    keys: tuple[str, ...] | None = None
    """Where the tree is a flat dict of arrays in order: its keys."""


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def flatten(tree: Tree) -> tuple[Any, list[Leaf]]:
    """The skeleton of a tree and its arrays in order. TypeError names what cannot travel."""
    leaves: list[Leaf] = []

    def walk(node: Tree, path: str) -> Any:
        if isinstance(node, np.generic):
            node = np.asarray(node)
        if isinstance(node, _leaf_types):
            leaves.append(node)
            return {ARRAY: len(leaves) - 1}
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str) or key.startswith("\0"):
                    raise TypeError(f"{path or 'tree'}: key {key!r} must be text that does not begin with a zero byte")
            return {key: walk(value, f"{path}/{key}") for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [walk(value, f"{path}/{index}") for index, value in enumerate(node)]
        raise TypeError(f"{path or 'tree'}: {type(node).__name__} cannot travel; use arrays and plain values")

    return walk(tree, ""), leaves


def layout_of(skeleton: Any, leaves: list[Leaf]) -> Layout:
    """The layout of a flattened tree."""
    described = []
    for leaf in leaves:
        if isinstance(leaf, BFloat16):
            described.append(["bfloat16", list(leaf.bits.shape)])
            continue
        name = type_names.get(leaf.dtype)
        if name is None:
            raise TypeError(f"arrays of dtype {leaf.dtype} cannot travel; allowed are {', '.join(DTYPES)}")
        described.append([name, list(leaf.shape)])
    try:
        return read_layout([skeleton, described])
    except WireError as error:
        raise TypeError(f"the tree cannot travel: {error}") from error


_remembered: dict[tuple[Any, ...], Layout] = {}


def described(tree: Tree) -> tuple[Layout, list[Leaf]]:
    """A tree's layout and its arrays in order. The layouts of flat dicts of arrays are remembered."""
    if type(tree) is not dict:
        skeleton, leaves = flatten(tree)
        return layout_of(skeleton, leaves), leaves
    form = tuple([(key, leaf.dtype, leaf.shape) for key, leaf in tree.items() if type(leaf) is np.ndarray])
    layout = _remembered.get(form) if len(form) == len(tree) else None
    if layout is not None:
        return layout, list(tree.values())
    skeleton, leaves = flatten(tree)
    layout = layout_of(skeleton, leaves)
    if len(form) == len(tree):
        if len(_remembered) >= REMEMBERED:
            _remembered.clear()
        _remembered[form] = layout
    return layout, leaves


def read_layout(plain: Any) -> Layout:
    """A layout from what travelled, every bound checked. WireError says what is wrong with it."""
    if not (isinstance(plain, list | tuple) and len(plain) == 2 and isinstance(plain[1], list | tuple)):
        raise WireError("layout", "not a pair of skeleton and arrays")
    entries = []
    offset = 0
    for item in plain[1]:
        if not (isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], list | tuple)):
            raise WireError("layout", "an array is described by its dtype and shape")
        name, shape = item
        if not isinstance(name, str) or name not in DTYPES:
            raise WireError("dtype", f"{str(name)[:40]!r} is not allowed")
        if len(shape) > MAX_DEPTH or any(type(n) is not int or not 0 <= n < 2**40 for n in shape):
            raise WireError("shape", str(shape)[:80])
        dtype = DTYPES[name]
        entries.append((dtype, tuple(shape), offset, name == "bfloat16"))
        offset += _padded(math.prod(shape) * dtype.itemsize)
        # an axis of 0 makes the array empty, but numpy still multiplies the others
        if offset > 2**40 or math.prod(n or 1 for n in shape) > 2**40:
            raise WireError("shape", "larger than any payload")
    _check_skeleton(plain[0], len(entries))
    try:
        packed = msgpack.packb(plain)
    except (ValueError, OverflowError) as error:
        raise WireError("layout", f"a plain value cannot travel: {error}"[:200]) from error
    digest = hashlib.blake2b(packed, digest_size=16).hexdigest()
    return Layout(plain, digest, tuple(entries), offset, _flat(plain[0]))


def _flat(skeleton: Any) -> tuple[str, ...] | None:
    flat = isinstance(skeleton, dict) and list(skeleton.values()) == [{ARRAY: n} for n in range(len(skeleton))]
    return tuple(skeleton) if flat and ARRAY not in skeleton else None


def _check_skeleton(skeleton: Any, arrays: int) -> None:
    budget = MAX_NODES
    seen = [False] * arrays
    stack: list[tuple[Any, int]] = [(skeleton, 0)]
    while stack:
        node, depth = stack.pop()
        budget -= 1
        if budget < 0 or depth > MAX_DEPTH:
            raise WireError("layout", "skeleton too large or too deep")
        if isinstance(node, dict):
            if ARRAY in node:
                index = node[ARRAY]
                if len(node) != 1 or type(index) is not int or not 0 <= index < arrays or seen[index]:
                    raise WireError("layout", "skeleton names an array that is not there")
                seen[index] = True
                continue
            if any(not isinstance(key, str) or key.startswith("\0") for key in node):
                raise WireError("layout", "a key is not text, or begins with a zero byte")
            stack.extend((value, depth + 1) for value in node.values())
        elif isinstance(node, list | tuple):
            stack.extend((value, depth + 1) for value in node)
        elif not (node is None or isinstance(node, bool | int | float | str)):
            raise WireError("layout", "skeleton holds something that is not plain")
    if not all(seen):
        raise WireError("layout", "an array has no place in the skeleton")


def fill(layout: Layout, leaves: list[Leaf], buffer: memoryview) -> None:
    """Copy the arrays to their places in `buffer` (of `layout.size` bytes)."""
    for (dtype, shape, offset, brain), leaf in zip(layout.entries, leaves, strict=True):
        source: Any = leaf.bits if brain else leaf  # type: ignore[union-attr]
        size = source.nbytes
        if 0 < size <= HELD and source.flags.c_contiguous:
            buffer[offset : offset + size] = source.data.cast("B")
        else:
            np.ndarray(shape, dtype, buffer, offset)[...] = source


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
    arrays = {
        name: np.ndarray(shape, dtype, payload, offset)
        for name, (dtype, shape, offset, _) in zip(forms, layout.entries, strict=True)
    }
    return Draft(layout, payload, arrays)


def pack(tree: Tree) -> tuple[Layout, memoryview]:
    """A tree as its layout and a payload in a fresh buffer, which nobody else holds."""
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
    start = _padded(16 + len(head))
    return b"".join(
        (b"HEADRACE", len(head).to_bytes(8, "little"), head, b"\0" * (start - 16 - len(head)), payload),
    )


def from_bytes(content: bytes | memoryview) -> Tree:
    """The tree of `to_bytes`. WireError when it is damaged."""
    view = memoryview(content)
    if view.nbytes < 16 or bytes(view[:8]) != b"HEADRACE":
        raise WireError("checkpoint", "does not begin as a checkpoint does")
    length = int.from_bytes(view[8:16], "little")
    if _padded(16 + length) > view.nbytes:
        raise WireError("checkpoint", "shorter than it says")
    try:
        plain = msgpack.unpackb(view[16 : 16 + length], use_list=True, strict_map_key=True)
    except ValueError as error:
        raise WireError("checkpoint", "its head cannot be read") from error
    return unpack(read_layout(plain), view[_padded(16 + length) :])
