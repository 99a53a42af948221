from __future__ import annotations

import contextlib
import math

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.arrays import BFloat16, from_bytes, pack, to_bytes, unpack, unpack_all
from broker.errors import WireError
from broker.layouts import ALIGNMENT, ARRAY, DTYPES, read_layout
from tests.broker.draws import quick, trees


def same(left: object, right: object) -> bool:
    """Equal as trees: dtypes, shapes and bits; a tuple travels as a list."""
    if isinstance(left, BFloat16):
        return isinstance(right, BFloat16) and same(left.bits, right.bits)
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@quick
@given(trees)
@example({})
@example([])
@example({"a": np.zeros((0, 3), np.float32), "b": np.zeros((), bool)})
def test_a_tree_comes_back_as_it_was(tree: object) -> None:
    layout, payload = pack(tree)
    travelled = msgpack.unpackb(msgpack.packb(layout.plain), use_list=False)
    again = read_layout(travelled)
    assert again.digest == layout.digest
    assert again.size == layout.size == payload.nbytes
    assert all(offset % ALIGNMENT == 0 for _, _, offset, _ in again.entries)
    assert same(tree, unpack(again, payload))


@quick
@given(trees, st.integers(1, 4))
@example({"a": np.zeros((0, 3), np.float32), "b": np.zeros((), bool), "c": np.zeros((2, 0), np.int8)}, 3)
@example({"a": np.zeros((0,), np.float32)}, 2)
@example({}, 2)
def test_trees_of_one_layout_come_back_from_one_payload(tree: object, count: int) -> None:
    layout, payload = pack(tree)
    again = unpack_all(layout, bytes(payload) * count, count)
    assert len(again) == count
    assert all(same(tree, one) for one in again)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_type_keeps_its_name_and_bits(name: str) -> None:
    array = np.arange(6, dtype=np.uint8).astype(DTYPES[name]).reshape(2, 3)
    tree = BFloat16(array) if name == "bfloat16" else array
    layout, payload = pack({"x": tree})
    assert layout.plain[1] == [[name, [2, 3]]]
    assert same({"x": tree}, unpack(layout, payload))


def test_what_comes_is_a_read_only_view_and_what_goes_is_a_copy() -> None:
    mine = np.ones(3)
    layout, payload = pack([mine])
    mine[:] = 7
    (theirs,) = unpack(layout, payload)
    assert theirs.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        theirs[0] = 2


@pytest.mark.parametrize("change", [-1, 1, 64, -64])
def test_a_payload_of_another_size_is_refused(change: int) -> None:
    layout, payload = pack({"x": np.zeros(100, np.float32)})
    with pytest.raises(WireError) as refused:
        unpack(layout, bytes(payload.nbytes + change))
    assert refused.value.reason == "size"


@pytest.mark.parametrize(
    "tree",
    [object(), {1: 2}, {"\0array": 0}, np.array(["text"]), np.array([object()]), np.zeros(2, ">f4"), {"a": {b"b": 1}}],
)
def test_what_cannot_travel_is_a_type_error_at_home(tree: object) -> None:
    with pytest.raises(TypeError, match=r"travel|text"):
        pack(tree)


HOSTILE = {
    "not a pair": 7,
    "one thing": [{}],
    "arrays are text": [{}, "x"],
    "unknown type": [{ARRAY: 0}, [["object", [1]]]],
    "type is no text": [{ARRAY: 0}, [[["f4"], [1]]]],
    "negative": [{ARRAY: 0}, [["int8", [-1]]]],
    "huge": [{ARRAY: 0}, [["float64", [2**39, 2**39]]]],
    "huge and empty": [{ARRAY: 0}, [["float64", [0, 2**39, 2**39]]]],
    "huge together": [[{ARRAY: 0}, {ARRAY: 1}], [["int8", [2**39 + 1]], ["int8", [2**39]]]],
    "many axes": [{ARRAY: 0}, [["int8", [1] * 17]]],
    "axis is true": [{ARRAY: 0}, [["int8", [True]]]],
    "axis is a float": [{ARRAY: 0}, [["int8", [1.0]]]],
    "twice": [[{ARRAY: 0}, {ARRAY: 0}], [["int8", [1]]]],
    "absent": [{}, [["int8", [1]]]],
    "beyond": [{ARRAY: 1}, [["int8", [1]]]],
    "below": [{ARRAY: -1}, [["int8", [1]]]],
    "index is none": [{ARRAY: None}, []],
    "index is false": [{ARRAY: False}, [["int8", [1]]]],
    "index has company": [{ARRAY: 0, "x": 1}, [["int8", [1]]]],
    "key of bytes": [{b"x": 1}, []],
    "key begins with zero": [{"\0x": 1}, []],
    "leaf of bytes": [b"x", []],
    "too many": [[0] * 100_001, []],
    "integer too large": [2**70, []],
    "half a surrogate pair": ["\ud800", []],
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_layout_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        read_layout(HOSTILE[name])


def test_a_deep_skeleton_is_refused_before_anything_recurses() -> None:
    deep: object = 0
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(WireError, match="deep"):
        read_layout([deep, []])
    while isinstance(deep, list):  # taken apart here: to free it in one go would recurse
        deep = deep.pop()


rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.just(ARRAY),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.just(ARRAY) | st.text(max_size=2) | st.binary(max_size=2), inner, max_size=3)
        | st.tuples(inner, st.lists(st.tuples(st.sampled_from([*DTYPES, "object"]), st.lists(inner, max_size=3))))
    ),
    max_leaves=10,
)


@quick
@given(rubbish, st.binary(max_size=128))
def test_rubbish_is_a_wire_error_or_a_tree(layout: object, payload: bytes) -> None:
    with contextlib.suppress(WireError):
        unpack(read_layout(layout), payload)


@quick
@given(trees)
def test_a_checkpoint_comes_back_as_it_was(tree: object) -> None:
    assert same(tree, from_bytes(to_bytes(tree)))


@quick
@given(trees, st.data())
def test_a_damaged_checkpoint_is_a_wire_error_or_a_tree(tree: object, data: st.DataObject) -> None:
    content = bytearray(to_bytes(tree))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        from_bytes(bytes(content))


@quick
@given(trees, st.data())
def test_a_shortened_or_lengthened_checkpoint_is_refused(tree: object, data: st.DataObject) -> None:
    content = to_bytes(tree)
    with pytest.raises(WireError):
        from_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(WireError):
        from_bytes(content + b"\0")


@pytest.mark.parametrize("rows", [1, 30_000, 500_000])
def test_pack_shows_no_memory_between_arrays(rows: int) -> None:
    """Small payloads, frames of libzmq's and large ones; before each, freed memory of that size is left dirty."""
    tree = {"flag": np.ones(rows, np.bool_), "odd": np.ones(rows * 3, np.uint8), "one": np.array(7, np.int16)}
    layout, first = pack(tree)
    between = np.ones(layout.size, np.bool_)
    for dtype, shape, offset, _ in layout.entries:
        between[offset : offset + math.prod(shape) * dtype.itemsize] = False
    assert between.any()
    for _ in range(20):
        dirty = [np.full(layout.size, 0xAA, np.uint8) for _ in range(8)]
        del dirty
        payload = pack(tree)[1]
        assert not np.frombuffer(payload, np.uint8)[between].any()
        assert payload == first
