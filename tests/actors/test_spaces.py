"""Spaces become plain descriptions, and what no policy takes is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from actors.spaces import ActionSpec, Leaf, ObservationSpec, action_spec, observation_spec
from broker.errors import RequestError, UnsupportedSpace

SIMPLE = st.one_of(
    st.tuples(st.integers(1, 4), st.sampled_from([np.float32, np.float64, np.uint8])).map(
        lambda drawn: spaces.Box(0, 9, (drawn[0],), drawn[1])
    ),
    st.tuples(st.integers(1, 9), st.integers(-5, 5)).map(lambda drawn: spaces.Discrete(drawn[0], start=drawn[1])),
    st.integers(1, 4).map(spaces.MultiBinary),
)
NESTED = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.dictionaries(st.text("abc_", min_size=1), inner, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=6,
)


@given(NESTED)
def test_every_supported_observation_survives_json_and_encodes_to_its_leaves(space: spaces.Space) -> None:
    spec = observation_spec(space)
    assert ObservationSpec.from_plain(json.loads(json.dumps(spec.to_plain(), allow_nan=False))) == spec
    encoded = spec.encode(space.sample())
    assert list(encoded) == [leaf.name for leaf in spec.leaves]
    for leaf in spec.leaves:
        assert encoded[leaf.name].shape == leaf.shape
        assert encoded[leaf.name].dtype == leaf.dtype
        if leaf.n is not None:
            assert 0 <= encoded[leaf.name] < leaf.n


def test_names_join_the_path_and_types_are_those_of_policies() -> None:
    space = spaces.Dict(
        {
            "arm": spaces.Tuple((spaces.Box(-1, 1, (3,), np.float64), spaces.Discrete(4, start=2))),
            "camera": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "doors": spaces.MultiBinary(5),
        }
    )
    assert observation_spec(space).leaves == (
        Leaf("arm/0", "box", (3,), "float32"),
        Leaf("arm/1", "discrete", (), "int64", 4, 2),
        Leaf("camera", "box", (8, 8, 3), "uint8"),
        Leaf("doors", "multi_binary", (5,), "int8"),
    )
    plain = observation_spec(spaces.Box(0, 1, (2,)))
    assert plain.plain
    assert plain.leaves[0].name == ""


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(3, start=-1), ActionSpec("discrete", (3,), (), start=(-1,))),
        (spaces.MultiDiscrete([2, 5]), ActionSpec("multi_discrete", (2, 5), (2,), start=(0, 0))),
        (
            spaces.Box(np.array([-1, -np.inf]), np.array([1, np.inf]), dtype=np.float64),
            ActionSpec("box", (), (2,), (-1.0, -np.inf), (1.0, np.inf)),
        ),
    ],
)
def test_actions(space: spaces.Space, expected: ActionSpec) -> None:
    spec = action_spec(space)
    assert spec == expected
    assert ActionSpec.from_plain(json.loads(json.dumps(spec.to_plain(), allow_nan=False))) == spec


def test_a_mask_is_taken_out_of_the_observation() -> None:
    space = spaces.Dict({"observation": spaces.Box(0, 1, (2,)), "action_mask": spaces.Box(0, 1, (3,), np.int8)})
    assert observation_spec(space) == observation_spec(spaces.Box(0, 1, (2,)))
    spec = action_spec(spaces.Discrete(3), "red", space)
    assert spec.masked
    assert spec.mask_size == 3
    with pytest.raises(UnsupportedSpace, match=r"red.*does not name the 4 choices"):
        action_spec(spaces.Discrete(4), "red", space)


@pytest.mark.parametrize("space", [spaces.Text(4), spaces.Dict({}), spaces.Dict({"a/b": spaces.Discrete(2)})])
def test_an_unsupported_observation_is_named(space: spaces.Space) -> None:
    with pytest.raises(UnsupportedSpace, match=r"agent 'red': observation space .*supported: Box, Discrete") as caught:
        observation_spec(space, "red")
    assert str(space) in str(caught.value)
    assert isinstance(caught.value, RequestError)


@pytest.mark.parametrize("space", [spaces.MultiBinary(3), spaces.Box(0, 5, (2,), np.int32), spaces.Text(3)])
def test_an_unsupported_action_is_named(space: spaces.Space) -> None:
    with pytest.raises(UnsupportedSpace, match=r"agent 'red': action space .*supported: Discrete, MultiDiscrete"):
        action_spec(space, "red")


def test_a_box_is_rescaled_where_its_bounds_are_finite() -> None:
    largest = np.finfo(np.float32).max
    low, high = np.array([0, -2, -np.inf, -1, -largest]), np.array([10_000, 2, 5, 1, largest])
    box = spaces.Box(low.astype(np.float32), high.astype(np.float32))
    spec = action_spec(box, rescale=True)
    drawn = np.array([[0, 0.5, 7, 0.25, 40], [-1, -3, -9, 2, -40]], np.float32)
    assert spec.rescaled
    assert spec.to_environment()(drawn).tolist() == [[5000, 1, 5, 0.25, 40], [0, -2, -9, 1, -40]]
    assert action_spec(box).to_environment()(drawn).tolist() == [[0, 0.5, 5, 0.25, 40], [0, -2, -9, 1, -40]]
    assert not action_spec(spaces.Box(0, np.inf, (2,)), rescale=True).rescaled
    assert ActionSpec.from_plain(spec.to_plain()) == spec
    assert spec.to_environment(np.float64)(drawn).dtype == np.float64
    assert action_spec(spaces.MultiDiscrete([2, 3], start=[1, 5])).to_environment()(np.zeros((1, 2), int)).tolist() == [
        [1, 5]
    ]
