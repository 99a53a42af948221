"""Texts and records as people's tools write them: one meaning, or one error that names the place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.errors import RequestError
from broker.text_files import exists, read_text, records

TEXT = "name = 'über'\n\n[stop]\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_the_same_from_any_tool(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_text(path) == TEXT


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"\xff\xfea", r"not UTF-16-LE text \(byte 2\)"),
        (b"ab\xe9", r"not UTF-8 text \(byte 2\)"),
        (b"\xef\xbb\xbfab\xe9", r"not UTF-8 text \(byte 5\)"),
    ],
)
def test_what_is_no_text_names_the_byte(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=re.escape(str(path)) + ": " + error):
        read_text(path)


@pytest.mark.parametrize(("name", "error"), [("a" * 5000, "too long"), ("a\0b", "zero byte")])
def test_a_path_that_cannot_be_is_one_error(tmp_path: Path, name: str, error: str) -> None:
    path = tmp_path / name
    with pytest.raises(RequestError, match=error):
        read_text(path)
    if "long" in error:
        with pytest.raises(RequestError, match=error):
            exists(path)


def test_records_are_lines_or_one_list() -> None:
    path = Path("tasks.json")
    lines = list(records('{"a": 1}\n\n {"a": 2}\n', path, 100))
    assert lines == [("tasks.json:1", {"a": 1}), ("tasks.json:3", {"a": 2})]
    assert list(records('\n[{"a": 1},\n 2]', path, 5)) == [("tasks.json: item 1", {"a": 1}), ("tasks.json: item 2", 2)]
    for text, error in (
        ('[{"a": 1},\n{"a"}]', r"tasks\.json:2: not JSON"),
        ("[" * 100_000, r"tasks\.json: not JSON: it is nested too deeply"),
        ('{"a": 1}\n{"a"', r"tasks\.json:2: not JSON"),
        ('{"a": "' + "x" * 100 + '"}', r"tasks\.json:1: the line is longer than 100"),
    ):
        with pytest.raises(RequestError, match=error):
            list(records(text, path, 100))
