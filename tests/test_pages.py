"""The pages and the code say the same, as far as a test can tell: keys, defaults, files, names, commands."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from launcher.cli import app
from launcher.combinations import SHIPPED
from launcher.reading import shipped
from launcher.runfile import RunFile
from learners.algorithm import SHIPPED as ALGORITHMS
from learners.ppo import PpoSettings
from learners.prompts.settings import SearchSettings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + [
    ROOT / "docs" / name for name in ("journey.md", "plug-in.md", "prompts.md", "run-file.md")
]
RUN_FILE = (ROOT / "docs" / "run-file.md").read_text(encoding="utf-8")
ROOMS = "broker|actors|learners|tracker|launcher|runs|bench|tests|docs|examples"
SPECIAL = {"seed": "drawn", "folder": "the run file's folder"}
"""Keys whose default `load` makes."""
ALIKE = {"endpoints.critique", "endpoints.edit"}
"""Sections with the keys of another, `endpoints.answer`."""


def keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, FieldInfo]]:
    found = []
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or name)
        if path in ALIKE:
            continue
        section = next((t for t in (field.annotation, *_parts(field.annotation)) if _is_model(t)), None)
        named = ".NAME" if getattr(field.annotation, "__origin__", None) is dict else ""
        found += keys(section, f"{path}{named}.") if section is not None else [(path, field)]
    return found


def _parts(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", ())


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def default_of(path: str, field: FieldInfo) -> str:
    if path in SPECIAL:
        return SPECIAL[path]
    if field.is_required():
        return "must be given"
    if field.default is None:
        return "none"
    plain = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(plain)}`"


EVERY_KEY = [*keys(RunFile), *keys(PpoSettings), *keys(SearchSettings)]


@pytest.mark.parametrize(("path", "field"), EVERY_KEY, ids=lambda value: str(value)[:40])
def test_every_key_of_the_run_file_stands_on_its_page(path: str, field: FieldInfo) -> None:
    (row,) = re.findall(rf"^\| `{re.escape(path)}` \| (.*?) \| .+ \|$", RUN_FILE, re.MULTILINE)
    assert row == default_of(path, field)


def test_the_page_of_the_run_file_has_no_other_keys() -> None:
    known = {path for path, _ in EVERY_KEY}
    assert set(re.findall(r"^\| `([\w.]+)` \|", RUN_FILE, re.MULTILINE)) == known


def test_what_is_shipped_stands_on_the_page() -> None:
    for name in [*shipped(), *ALGORITHMS, *(name for names in SHIPPED.values() for name in names)]:
        assert re.search(rf'`"?{name}"?`', RUN_FILE), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(rf"`((?:{ROOMS})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_that_a_page_gives_with_a_file_are_in_it(page: Path) -> None:
    for path, names in re.findall(
        r"`([\w/]+\.py)`\s·\s((?:`[\w.]+`(?:,\s)?)+)", page.read_text(encoding="utf-8"), re.MULTILINE
    ):
        there = names_in(ROOT / path)
        for name in re.findall(r"`([\w.]+)`", names):
            assert name in there, f"{path} has no {name}"


def names_in(path: Path) -> set[str]:
    """Functions, classes and methods: `function`, `Class`, `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


def test_the_commands_of_the_readme_are_the_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    there = {command.callback.__name__ for command in app.registered_commands if command.callback is not None}
    assert set(re.findall(r"^\| `headrace (\w+)", text, re.MULTILINE)) == there
