"""Whatever text comes from elsewhere, no printer lets it steer the terminal, and none reads it as markup."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from launcher import words
from launcher.dashboard import screen
from launcher.lines import Teller
from launcher.report import render_evaluation, render_summary
from launcher.watch import told
from tests.launcher import documents

HOSTILE = st.lists(
    st.sampled_from(
        [
            "\x1b[2J",
            "\x1b]0;title\x07",
            "\x9b31m",
            "\x85",
            "\x08" * 9,
            "\r",
            "\x7f",
            "\u202e",
            "\u2066",
            "\u200b",
            "\u2028",
            "\ufeff",
            "\U000e0041",
            "\ud800",
            "[red]",
            "[/red]",
            "[link=file:/etc]x",
            "\n",
            "\t",
            "word",
            "水",
        ]
    )
    | st.characters(),
    min_size=1,
    max_size=6,
).map("".join)

EVALUATION: dict[str, Any] = {
    "policies": {"agent_0": {"return_mean": -15.25, "interval": [-16.0, -14.5], "episodes": 100}},
    "tasks": {"pool": 5, "score_mean": 0.5, "interval": [0.5, 1.0], "failed": 2, "trouble": "fell",
              "labels": {"length 1": {"episodes": 3, "score_mean": 0.75, "failed": 0}}},
}  # fmt: skip
SUMMARY = documents.summary(
    alarms=["an alarm"],
    tasks={"minted": 3, "done": 1},
    prompts=documents.searched(failures=[{"count": 3, "reason": "late"}])["prompts"],
    refused=[{"round": 1, "candidate": "x", "reason": "why"}],
)


def drawn(renderable: Any) -> str:
    console = Console(width=120, height=40, file=io.StringIO(), force_terminal=False, color_system=None)
    console.print(renderable)
    written: str = console.file.getvalue()  # type: ignore[attr-defined]
    return written


def on_screen(document: dict[str, Any]) -> str:
    return drawn(screen(document, 120, 40, documents.NOW))


PRINTERS: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], str]]] = {
    "screen": (documents.spread(alarms=["full"]), on_screen),
    "pool": (documents.pooled(), on_screen),
    "prompts": (documents.searched(failed=3, failures=[{"count": 3, "reason": "late"}]), on_screen),
    "lines": (documents.spread(alarms=["full"]), lambda found: "\n".join(Teller().tell(found, 0.0))),
    "summary": (SUMMARY, lambda found: drawn(render_summary(found))),
    "evaluation": (EVALUATION, lambda found: drawn(render_evaluation(found))),
    "json": (documents.searched(), lambda found: words.as_json(told(found))),
    "json in lines": (SUMMARY, lambda found: words.as_json(found, indent=2)),
    "plain": ({"text": "last words"}, lambda found: words.lines(" ".join(found.values()))),
}
ALLOWED = frozenset("\n\t")


def poisoned(value: Any, data: st.DataObject, keys: frozenset[str]) -> Any:
    """The same document, with hostile text in place of its texts and of the names that are not its own."""
    if isinstance(value, dict):
        return {
            (key if key in keys else key + data.draw(HOSTILE)): poisoned(item, data, keys)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [poisoned(item, data, keys) for item in value]
    return data.draw(HOSTILE) if isinstance(value, str) and data.draw(st.booleans()) else value


def fixed(value: Any) -> set[str]:
    """Keys that are the document's own, and not names that came from elsewhere."""
    if isinstance(value, dict):
        names = {"policies", "labels", "losses", "restarts", "usage", "evictions", "rates", "answerer"}
        inner = set().union(*(fixed(item) for item in value.values())) if value else set()
        return inner | {key for key in value if key in names or not any(c in key for c in "0123456789- ")}
    if isinstance(value, list):
        return set().union(*(fixed(item) for item in value)) if value else set()
    return set()


@pytest.mark.parametrize("printer", PRINTERS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_text_steers_the_terminal(printer: str, data: st.DataObject) -> None:
    document, write = PRINTERS[printer]
    printed = write(poisoned(document, data, frozenset(fixed(document))))
    strange = {sign for sign in printed if not sign.isprintable()} - ALLOWED
    assert not strange, [(hex(ord(sign)), unicodedata.name(sign, "?")) for sign in strange]


@pytest.mark.parametrize("text", ["\x1b[31mred", "\x9b1m", "\u202eabc", "a\u200bb", "\U000e0041", "\x7f", "水\n\t"])
def test_json_stays_what_it_is(text: str) -> None:
    printed = words.as_json({"text": text, "水": 1})
    assert json.loads(printed) == {"text": text, "水": 1}
    assert "水" in printed
    assert printed.isprintable()


def test_markup_is_text() -> None:
    label = {"[red]x[/red]": {"episodes": 3, "score_mean": 0.75, "failed": 0}, "[/]": {}}
    text = drawn(render_evaluation({"policies": {}, "tasks": {"labels": label, "trouble": "[bold]"}}))
    for shown in ("[red]x[/red]", "[/]", "[bold]"):
        assert shown in text
