"""The `[curriculum]` section: what contradicts itself is one message with the key's path, before a process starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.errors import RequestError
from launcher.curriculum import check_source
from launcher.reading import from_plain, load
from launcher.runfile import RunFile

ENVIRONMENTS = {"environment": {"id": "CartPole-v1"}}
OWN = {"policies": {"names": ["p"]}, "actors": {"rollout": "a:B"}}
GOOD = {"levels": {"seeds": [1, 2]}, "score": "success"}


def run(curriculum: dict[str, Any], **more: Any) -> RunFile:
    return from_plain({**(more or ENVIRONMENTS), "curriculum": curriculum})


@pytest.mark.parametrize(
    "curriculum",
    [
        GOOD,
        {"tasks": "tasks.jsonl", "score": "a.b:c"},
        {"tasks": [{"label": "a", "body": {"options": {"n": [1]}}}, {"label": "b"}], "score": "success"},
        {"generator": "a.b:make", "score": "return", "score_low": -1.0, "score_high": 2},
        {"levels": {"attribute": "levels"}, "score": "success"},
        {"levels": {"seeds": 100}, "score": "success"},
    ],
)
def test_a_resolved_one_is_equal_to_itself(tmp_path: Path, curriculum: dict[str, Any]) -> None:
    resolved = run(curriculum, **ENVIRONMENTS, seed=3)
    resolved.write(tmp_path / "run.toml")
    assert load(tmp_path / "run.toml").curriculum == resolved.curriculum


@pytest.mark.parametrize(
    ("curriculum", "told"),
    [
        ({"score": "success"}, "curriculum: does not say where tasks come from: give exactly one of"),
        ({**GOOD, "generator": "a:b"}, "curriculum: has generator and levels: give exactly one of"),
        ({**GOOD, "generating": 0}, "curriculum.generating: is 0"),
        ({"levels": {"seeds": [1]}}, "curriculum.score: say how an episode becomes a score"),
        ({**GOOD, "score": "return"}, "curriculum.score_low: score = 'return' needs"),
        ({**GOOD, "score": "return", "score_low": 1, "score_high": 1.0}, "curriculum.score_high: equals score_low"),
        ({**GOOD, "score_low": 1.0}, "curriculum.score_low: score_low and score_high are for"),
        ({"generator": "make", "score": "success"}, "curriculum.generator: string should match"),
        ({**GOOD, "levels": {}}, "curriculum.levels: give attribute, or a grid"),
        ({**GOOD, "levels": {"attribute": "a", "seeds": [1]}}, "curriculum.levels: levels are listed"),
        ({**GOOD, "levels": {"seeds": [-1]}}, "curriculum.levels.seeds.0: "),
        ({**GOOD, "levels": {"seeds": 0}}, "curriculum.levels.seeds: "),
        ({**GOOD, "levels": {"seeds": True}}, "curriculum.levels.seeds: "),
        ({**GOOD, "levels": {"seeds": 10**12}}, "curriculum.levels.seeds: "),
        ({**GOOD, "levels": {"options": {"n": []}}}, "curriculum.levels.options.n: "),
        ({**GOOD, "levels": {"options": {"n": [1]}, "settings": {"n": [1]}}}, "both have n"),
        ({"tasks": [{"label": ""}], "score": "success"}, "curriculum.tasks"),
        ({"tasks": [{"labels": "a"}], "score": "success"}, "curriculum.tasks"),
        ({**GOOD, "wait_seconds": 0}, "curriculum.wait_seconds: "),
        ({**GOOD, "wait_second": 1}, "did you mean curriculum.wait_seconds?"),
    ],
)
def test_what_cannot_be(curriculum: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as error:
        run(curriculum)
    assert told in str(error.value)


def test_a_vector_form_cannot_take_tasks() -> None:
    with pytest.raises(RequestError, match=r"actors\.vector: .* set it to false"):
        run(GOOD, **ENVIRONMENTS, actors={"vector": True})


def test_what_is_for_environments_alone() -> None:
    with pytest.raises(RequestError) as error:
        run({**GOOD, "levels": {"attribute": "levels"}}, **OWN)
    assert "curriculum.score: is for actors.rollout = 'environments'" in str(error.value)
    assert "curriculum.levels.attribute: asks an environment" in str(error.value)
    with pytest.raises(RequestError, match=r"curriculum\.levels\.settings: is for an environment"):
        run({"levels": {"settings": {"n": [1]}}}, **OWN)
    assert run({"levels": {"seeds": [1]}}, **OWN).curriculum is not None


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "there is no task in it"),
        ('{"label": "a"}\nnonsense\n', "tasks.jsonl:2: not JSON"),
        ('{"label": "a"}\n\n["a", {}]\n', "tasks.jsonl:3: a task is an object"),
        ('{"label": 3}\n', "tasks.jsonl:1: a label is a text, not int"),
        ('{"label": "a", "body": 3}\n', "tasks.jsonl:1: a body is a mapping"),
        ('{"label": "a"}\n{"label": "b"}\n{"label": "a", "body": {}}\n', "item 2 is the same task as item 0"),
        ('{"label": "a"}\n{"label": "b"}\n{"label": "c"}\n{"label": "d"}\n', "4 tasks are more than curriculum.capac"),
        (None, "cannot be read"),
    ],
)
def test_a_list_is_read_before_a_process_starts(tmp_path: Path, lines: str | None, told: str) -> None:
    if lines is not None:
        (tmp_path / "tasks.jsonl").write_text(lines)
    asked = {"tasks": "tasks.jsonl", "capacity": 3, "score": "success"}
    with pytest.raises(RequestError) as error:
        check_source(run(asked, **ENVIRONMENTS, folder=str(tmp_path)))
    assert told in str(error.value)
    assert "curriculum.tasks" in str(error.value)


def test_a_grid_is_counted_before_it_is_made() -> None:
    values = list(range(1000))
    with pytest.raises(RequestError, match=r"1,000,000,000 tasks are more than curriculum\.capacity"):
        check_source(run({"levels": {"options": dict.fromkeys("abc", values)}, "score": "success"}))
    with pytest.raises(RequestError, match=r"curriculum\.levels\.label: '\{m\}' is no template"):
        check_source(run({"levels": {"options": {"n": [1]}, "label": "{m}"}, "score": "success"}))


def test_many_seeds_are_few_words_in_the_resolved_file() -> None:
    resolved = run({"levels": {"seeds": 60_000}, "score": "success"})
    plain = resolved.to_plain()
    assert plain["curriculum"]["levels"]["seeds"] == 60_000
    assert from_plain(plain) == resolved
    odd = run({"levels": {"seeds": [0, 1, 3]}, "score": "success"})
    assert odd.to_plain()["curriculum"]["levels"]["seeds"] == [0, 1, 3]


def test_a_number_of_seeds_is_the_seeds_from_0() -> None:
    resolved = run({"levels": {"seeds": 3}, "score": "success"})
    assert resolved.curriculum is not None
    assert resolved.curriculum.levels is not None
    assert resolved.curriculum.levels.seeds == (0, 1, 2)


def test_a_good_list_is_good(tmp_path: Path) -> None:
    text = "\n".join(json.dumps({"label": f"size {n % 3}", "body": {"seed": n}}) for n in range(9))
    (tmp_path / "tasks.jsonl").write_text(text)
    check_source(run({"tasks": "tasks.jsonl", "score": "success"}, **ENVIRONMENTS, folder=str(tmp_path)))
