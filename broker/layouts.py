"""What a payload holds: the form of a tree of arrays, apart from its bytes.

A tree is a nesting of dicts (text keys), lists, plain values (None, bool, int, float, str) and arrays. Its *layout* is
plain: the skeleton of the tree, and each array's dtype and shape. Invariant: a layout that `read_layout` gave has every
bound checked, whoever wrote it.

Experience is a stream of trees of one form, most of them a flat dict of small arrays. What that form decides is found
once (`described`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from broker.errors import WireError, brief

ALIGNMENT = 64
ARRAY = "\0array"
"""The skeleton's mark for the n-th array; no key of a tree may begin with a zero byte."""
MAX_DEPTH = 16
MAX_NODES = 100_000
REMEMBERED = 256
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
    record: np.dtype[Any] | None = None
    """Such a dict as one structured dtype, where numpy has one: its fields are found in half the time of arrays."""


def padded(size: int) -> int:
    """`size` rounded up to the alignment, in bytes."""
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
            raise WireError("dtype", f"{brief(name)} is not allowed")
        if len(shape) > MAX_DEPTH or any(type(n) is not int or not 0 <= n < 2**40 for n in shape):
            raise WireError("shape", ", ".join(map(brief, shape[:4])))
        dtype = DTYPES[name]
        entries.append((dtype, tuple(shape), offset, name == "bfloat16"))
        offset += padded(math.prod(shape) * dtype.itemsize)
        # an axis of 0 makes the array empty, but numpy still multiplies the others
        if offset > 2**40 or math.prod(n or 1 for n in shape) > 2**40:
            raise WireError("shape", "larger than any payload")
    _check_skeleton(plain[0], len(entries))
    try:
        packed = msgpack.packb(plain)
    except (ValueError, OverflowError) as error:
        raise WireError("layout", f"a plain value cannot travel: {error}"[:200]) from error
    digest = hashlib.blake2b(packed, digest_size=16).hexdigest()
    keys = _flat(plain[0])
    return Layout(plain, digest, tuple(entries), offset, keys, _record(keys, entries, offset))


def _flat(skeleton: Any) -> tuple[str, ...] | None:
    flat = isinstance(skeleton, dict) and list(skeleton.values()) == [{ARRAY: n} for n in range(len(skeleton))]
    return tuple(skeleton) if flat and ARRAY not in skeleton else None


def _record(keys: tuple[str, ...] | None, entries: Sequence[Any], size: int) -> np.dtype[Any] | None:
    if not keys or "" in keys or size >= 2**31 or any(brain for *_, brain in entries):
        return None
    forms = [(dtype, shape) for dtype, shape, _, _ in entries]
    offsets = [offset for _, _, offset, _ in entries]
    try:
        return np.dtype({"names": list(keys), "formats": forms, "offsets": offsets, "itemsize": size})
    except (TypeError, ValueError):  # an axis that numpy's fields cannot have
        return None


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
