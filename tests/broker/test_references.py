"""References of a run file: what is found, and what is said where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import RequestError
from broker.references import load

KEY = "actors.rollout"


@pytest.mark.parametrize(
    ("reference", "name"),
    [("collections:OrderedDict", "OrderedDict"), ("xml.dom.minidom:parse", "parse"), ("pathlib:Path.cwd", "cwd")],
)
def test_what_is_there_is_found(reference: str, name: str) -> None:
    assert load(reference, KEY).__name__ == name


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("environment", r'it is unknown.*write "environments" or "package\.module:Name"'),
        (":Name", "nothing on one side"),
        ("own:", "nothing on one side"),
        ("nowhere_at_all:Name", "there is no module 'nowhere_at_all'.*folder"),
        ("nowhere_at_all.inner:Name", "there is no module 'nowhere_at_all'"),
        ("json.nowhere:Name", r"there is no module 'json\.nowhere'"),
        ("json.decoder.nowhere:Name", r"there is no module 'json\.decoder\.nowhere'"),
        (".relative:Name", "importing '.relative' raised TypeError"),
        ("collections:OrderedDic", r"module 'collections' has no 'OrderedDic'.*did you mean 'OrderedDict'\?$"),
        ("collections:OrderedDict.nothing_like_it", r"has no 'OrderedDict\.nothing_like_it'.*check its spelling"),
        ("sys:maxsize", "'maxsize' in module 'sys' is of type int.*name a class or a function"),
    ],
)
def test_what_is_not_there_is_one_message_that_names_the_key(reference: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        load(reference, KEY, ["environments"])
    assert str(caught.value).startswith(f"actors.rollout {reference!r}: ")
    assert "To mend it: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nowhere_at_all\n", "module 'own_broken' needs 'nowhere_at_all', which is missing.*install"),
        ("x = 1\nx / 0\n", r"raised ZeroDivisionError: division by zero \(own_broken\.py, line 2\).*mend that module"),
        ("import json\njson.nothing\n", r"raised AttributeError: .*'nothing' \(own_broken\.py, line 2\)"),
        ("from json import nothing\n", r"raised ImportError: cannot import name 'nothing'.*\(own_broken\.py, line 1\)"),
        ("import json\njson.loads('{')\n", r"raised json\.decoder\.JSONDecodeError: "),
        ("def broken(:\n", r"raised SyntaxError: .*\(own_broken\.py, line 1\)"),
        ("raise SystemExit('no display')\n", "raised SystemExit: no display"),
    ],
)
def test_a_module_that_raises_is_told_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    (tmp_path / "own_broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=said) as caught:
        load("own_broken:Name", KEY)
    assert str(caught.value).startswith("actors.rollout 'own_broken:Name': ")
    assert "there is no module" not in str(caught.value)
