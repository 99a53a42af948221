"""The page on the protocol and the code say the same, as far as a test can tell."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import numpy as np
import pytest

from broker import messages as m
from broker.arrays import pack
from broker.layouts import DTYPES
from broker.names import RESERVED
from broker.wire import PROTOCOL, WITH_PAYLOAD, Codec, Identity

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
PARTS = (m.FragmentItem, m.SpokeCounters, m.DirectoryEntry, m.LeasedTask)
MESSAGES = [*typing.get_args(typing.get_args(m.ToHub)[0]), *typing.get_args(typing.get_args(m.ToSpoke)[0])]


@pytest.mark.parametrize("model", [*MESSAGES, *PARTS], ids=lambda model: model.__name__)
def test_every_kind_and_field_stands_on_the_page(model: type[m.Message]) -> None:
    for name, field in model.model_fields.items():
        word = field.default if name == "kind" else name
        assert re.search(rf"`{word}`", PAGE), word


def test_the_closed_sets_stand_on_the_page() -> None:
    assert f"version {PROTOCOL}" in PAGE
    for word in (*DTYPES, *RESERVED, *WITH_PAYLOAD):
        assert f"`{word}`" in PAGE, word
    for choices in (m.RoleKind, m.PhaseName):
        assert " ".join(typing.get_args(choices)) in PAGE


def test_the_examples_on_the_page_are_what_the_code_makes() -> None:
    (block,) = re.findall(r"```hex\n(.*?)```", PAGE, re.DOTALL)
    me = Identity("000102030405060708090a0b0c0d0e0f", "actor-0", "188aa3c9e5f0000000000000000000ff")
    hub = "188aa3c9e5ef000000000000000000ee"
    assert Codec(me, "spoke").encode(m.Farewell(reason="done"), "tracker", hub=hub) == bytes.fromhex(block)
    layout, payload = pack({"x": np.zeros((2, 3), np.float32), "note": "hi"})
    assert layout.digest in PAGE
    assert payload.nbytes == 64


def test_every_reason_of_a_wire_error_stands_on_the_page() -> None:
    folder = Path(m.__file__).parent
    raised = {
        reason
        for path in folder.glob("*.py")
        for reason in re.findall(r'WireError\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert len(raised) > 10
    for reason in raised - {"checkpoint"}:  # a checkpoint's content is no frame
        assert f"`{reason}`" in PAGE, reason
