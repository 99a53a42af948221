"""Templates, questions and grades: what is right stays what it is, what is wrong is one message or a reward of 0."""

from __future__ import annotations

import asyncio
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.scoring import dataset, grading
from actors.scoring.template import fill, identity, placeholders, refusal, template_error
from actors.scoring.thoughts import without_thoughts
from broker.errors import RequestError


def test_placeholders_are_identifiers_in_single_braces() -> None:
    text = 'As JSON: {{"answer": 1}}, {{question}}, {question} and {question} with {{{hint_2}}}'
    assert placeholders(text) == {"question", "hint_2"}
    task = {"question": "{question}?", "hint_2": "h"}
    assert fill(text, task) == 'As JSON: {"answer": 1}, {question}, {question}? and {question}? with {h}'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            r"Solve {question} in \frac{1}{2}.",
            r"the brace '\{' in line 1 \(near '\S* in .*frac\{1\}.*write \{\{ for a brace",
        ),
        ('Be exact.\nAs JSON: {"answer": 1} {question}', r"the brace '\{' in line 2"),
        ("{question} }", r"the brace '\}' in line 1.*write \}\} for"),
        ("{ question }", r"the brace '\{'"),
        ("{}{question}", r"the brace '\{'"),
        ("x" * 32_001, "32,001 characters; a template has at most 32,000"),
        ("x" * 32_000, None),
        ("{{}} {question}", None),
    ],
)
def test_template_error_names_the_brace(text: str, error: str | None) -> None:
    reason = template_error(text)
    assert (reason is None) if error is None else re.search(error, str(reason)) is not None
    if error is not None and "brace" in error:
        with pytest.raises(RequestError, match="the template cannot be filled"):
            fill(text, {"question": "q"})


@given(st.text(), st.text())
def test_filling_is_one_pass_and_leaves_other_text(before: str, question: str) -> None:
    before = before.replace("{", "").replace("}", "")
    assert fill(before + "{question}", {"question": question}) == before + question


@given(st.text(), st.text())
def test_an_identity_is_of_the_content(one: str, other: str) -> None:
    assert (identity(one) == identity(other)) == (one == other)
    assert len(identity(one)) == 16


def test_a_template_that_asks_for_more_than_the_task_has() -> None:
    with pytest.raises(RequestError, match=r"\{hint\}, which this task lacks \(it has answer, question\)"):
        fill("{question} {hint}", {"question": "q", "answer": "a"})


@pytest.mark.parametrize(
    ("child", "told"),
    [
        ("Be brief. {question}", None),
        ("Be brief.", "it lost {question}"),
        ("{input}", "it lost {question} and added {input}"),
        ("{question} {answer}", "it added {answer}, which no task fills"),
        ("{2} {question}", template_error("{2} {question}")),
    ],
)
def test_a_child_keeps_its_parents_placeholders(child: str, told: str | None) -> None:
    assert refusal("Answer. {question}", child) == told


def written(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["lines", "windows", "list", "pretty"])
def test_a_dataset_is_read_from_any_tools_file(tmp_path: Path, encoding: str, form: str) -> None:
    tasks = [{"question": f"q{n}\u2028ü", "answer": n} for n in range(3)]
    lines = [json.dumps(task, ensure_ascii=False) for task in tasks]
    text = {"lines": "\n".join(lines), "windows": "\r\n".join([*lines, ""]), "list": json.dumps(tasks)}
    path = tmp_path / "questions.jsonl"
    path.write_bytes(text.get(form, json.dumps(tasks, indent=2)).encode(encoding))
    assert list(dataset.load(path, ["question"])) == tasks


def test_a_list_that_is_wrong_names_its_item(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text('[{"question": "q"}, {"answer": 1}]')
    with pytest.raises(RequestError, match=r"questions\.json: item 2: the field 'question' is missing"):
        dataset.load(path, ["question"])
    path.write_text('[{"question": "q"},\n {"question"}]')
    with pytest.raises(RequestError, match=r"questions\.json:2: not JSON"):
        dataset.load(path)


def test_a_placeholder_of_no_task_is_the_templates(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {"question": "q"}, {"question": "r", "hint": "h"})
    with pytest.raises(dataset.UnfilledTemplate, match=r"has \{a\}, which no task .* write \{\{a\}\} for the text"):
        dataset.load(path, template=r"{question} \frac{a}{b}")
    with pytest.raises(RequestError, match=r"a\.jsonl:1: the field 'hint' is missing"):
        dataset.load(path, template="{question} {hint}")


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("<think>2 + 2</think>\n4", "4"),
        ("<Thinking>a</Thinking> <reasoning>b</reasoning>4", "4"),
        ("2 + 2\n</think>\n4", "4"),
        ("<think>2 + 2", ""),
        ("Say <think>x</think> first.", "Say <think>x</think> first."),
        ("4", "4"),
    ],
)
def test_thoughts_are_no_part_of_a_reply(reply: str, rest: str) -> None:
    assert without_thoughts(reply) == rest


def test_a_dataset_is_its_lines_in_order(tmp_path: Path) -> None:
    tasks = [{"question": f"q{n}\u2028", "answer": n} for n in range(5)]
    path = written(tmp_path / "a.jsonl", *tasks[:2], "", *tasks[2:])
    assert list(dataset.load(path, ["question", "answer"])) == tasks
    assert list(dataset.load(path, items=3)) == tasks[:3]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"answer": "4"}, r"bad\.jsonl:2: the field 'question' is missing \(it has answer\)"),
        ({"question": "", "answer": "4"}, r"bad\.jsonl:2: the field 'question' is empty"),
        ({"question": None, "answer": "4"}, r"bad\.jsonl:2: the field 'question' is empty"),
        ('{"question": ', r"bad\.jsonl:2: not JSON"),
        ("[" * 100_000, r"bad\.jsonl:2: not JSON"),
        ("[1]", r"bad\.jsonl:2: a list, not an object"),
    ],
)
def test_a_wrong_line_is_told_with_file_line_and_field(tmp_path: Path, line: Any, told: str) -> None:
    path = written(tmp_path / "bad.jsonl", {"question": "q", "answer": "a"}, line)
    with pytest.raises(RequestError, match=told):
        dataset.load(path, ["question", "answer"])


def test_files_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No such file"):
        dataset.load(tmp_path / "none.jsonl")
    with pytest.raises(RequestError, match="holds no tasks"):
        dataset.load(written(tmp_path / "empty.jsonl", "", " "))
    with pytest.raises(RequestError, match="holds 1 tasks, and 8 were asked for"):
        dataset.load(written(tmp_path / "one.jsonl", {"question": "q"}), items=8)
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(RequestError, match="not UTF-8"):
        dataset.load(tmp_path / "latin.jsonl")


@pytest.mark.parametrize(
    ("given_", "reward"), [(1, 1.0), (0.25, 0.25), (True, 1.0), ((0.5, "half"), 0.5), ((0.0, None), 0.0)]
)
def test_rewards_that_are_rewards(given_: Any, reward: float) -> None:
    found = grading.read(given_)
    assert (found.reward, found.error) == (reward, None)


@pytest.mark.parametrize("given_", [7.0, -0.1, math.nan, math.inf, None, "1", [1], (1, 2, 3), ("a", "b"), ()])
def test_what_is_no_reward_is_0_and_says_so(given_: Any) -> None:
    found = grading.read(given_)
    assert found.reward == 0.0
    assert found.error is not None
    assert found.error == found.reason
    assert "a reward is a number from 0 to 1" in found.error


@given(st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.tuples(st.floats(), st.text())))
def test_whatever_a_grader_returns_a_reward_is_in_0_1(given_: Any) -> None:
    found = grading.read(given_)
    assert 0.0 <= found.reward <= 1.0


def test_graders_may_be_coroutines_and_may_raise() -> None:
    async def patient(task: Any, answer: str) -> float:
        await asyncio.sleep(0)
        return float(answer == task["answer"])

    def broken(task: Any, answer: str) -> float:
        raise KeyError("key")

    assert asyncio.run(grading.grade(patient, {"answer": "4"}, "4")).reward == 1.0
    found = asyncio.run(grading.grade(broken, {"answer": "4"}, "4"))
    assert found.reward == 0.0
    assert found.reason == "the grader raised KeyError: 'key'"
    assert "Traceback" in (found.error or "")


@pytest.mark.parametrize(
    ("answer", "reward", "told"),
    [
        (" 12\n", 1.0, "right"),
        ("The answer is 12.", 0.0, "with other words around it"),
        ("13", 0.0, "expected exactly '12'"),
        ("", 0.0, "expected exactly '12'"),
    ],
)
def test_the_default_grader_is_an_exact_match(answer: str, reward: float, told: str) -> None:
    found = grading.exact({"answer": 12}, answer)
    assert found[0] == reward
    assert told in found[1]
