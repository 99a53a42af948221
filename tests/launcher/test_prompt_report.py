"""What a prompt search came to, as people read it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launcher.lines import status_line
from launcher.prompt_report import unlike
from launcher.report import render_summary
from tests.launcher import documents
from tests.tracker import bodies as b
from tests.tracker.test_templates import STORY, write
from tracker.summary import summarise


def printed(summary: dict[str, Any], width: int = 160) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_summary(summary))
    return console.export_text()


def test_the_summary_lists_every_template_first_seen_first(tmp_path: Path) -> None:
    write(tmp_path, [("launcher", "run", b.run()), *STORY])
    text = printed(summarise(tmp_path))
    assert "3 templates of p were tested" in text
    places = [text.index(line) for line in ("a: {question}", "b: {question}", "c: {question}")]
    assert places == sorted(places)
    for wanted in (
        "★ aaaaaaaa", "0.375", "1.0 of aaaaaa", "the first", "mean 0.375 of 2 trials", "it lost {question}",
        "critic  3 calls · 2 failed · 2 throttled (429) · 2 retries · 30 tokens in, 2 out · money 0.750",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "--best" in text


def test_why_rollouts_failed_is_told(tmp_path: Path) -> None:
    seven = b.answered("c", 0, 0.0, failed=True, reason="the grader returned 7.0")
    write(tmp_path, [("launcher", "run", b.run()), *STORY, ("actor-0", "outcome", seven)])
    assert "failed     1 × the grader returned 7.0" in printed(summarise(tmp_path))
    live = documents.searched(failed=9, failures=[{"reason": "the grader returned 7.0", "count": 8}])
    assert "failed 9, 8 of them: the grader returned 7.0" in status_line(live)
    alike = documents.searched(failed=8, failures=[{"reason": "the grader returned 7.0", "count": 8}])
    assert "failed 8: the grader returned 7.0" in status_line(alike)


@pytest.mark.parametrize("width", [80, 200])
def test_no_number_gives_way_to_a_text(tmp_path: Path, width: int) -> None:
    write(tmp_path, [("launcher", "run", b.run()), *STORY])
    (line,) = [line for line in printed(summarise(tmp_path), width).splitlines() if line.startswith("★")]
    assert line.split()[:8] == ["★", "aaaaaaaa", "0.375", "0.06…0.86", "0.500", "2", "0.375", "the"]


@pytest.mark.parametrize(
    ("text", "parent", "shown"),
    [
        ("Answer the question. Be brief. {q}", "Answer the question. Be sharp. {q}", "… brief. {q}"),
        ("Answer the question. Be brief.", "Answer the question. Be brief. {q}", "… brief."),
        ("Be brief. {q}", "Answer. {q}", "Be brief. {q}"),
        ("Be brief. {q}", "", "Be brief. {q}"),
        ("", "", ""),
    ],
)
def test_a_line_begins_where_a_template_parts_from_its_parent(text: str, parent: str, shown: str) -> None:
    assert unlike(text, parent) == shown


@pytest.mark.parametrize(
    "prompts", [{"p": None}, {"p": {"best": {"text": None}, "refused": [3, {}], "usage": {"a": None}}}, {"p": []}]
)
def test_no_summary_makes_it_raise(prompts: Any) -> None:
    rows = [{"policy": "p"}, {"policy": "p", "text": "a\x1b[31m", "interval": 3, "validation": 7}, None]
    assert "\x1b" not in printed(documents.summary(prompts=prompts, templates=rows))


def test_a_search_in_a_line() -> None:
    wanted = (
        "round 2 of 3, best 0.875, 5 templates, 4 in flight, 1.23k calls, 63.0k tokens, money 0.750, 17 429s, 19 re"
    )
    assert wanted in status_line(documents.searched())
