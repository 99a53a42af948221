"""Sources of tasks: ids that follow from what a task is, grids, and the program that asks a source."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.curriculum.settings import DrawingSettings, Levels
from actors.curriculum.sources import check_items, level_items
from actors.curriculum.tasks import BODY, Unfit, checked
from actors.environments.vector import Episode
from broker.errors import RequestError

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(texts, plain, max_size=4)


@given(texts, bodies)
def test_a_task_is_what_was_given_and_its_id_fits(label: str, body: dict[str, Any]) -> None:
    task = checked((label, body))
    assert (task.label, task.body) == (label, body)
    assert 1 <= len(task.task) <= 256
    turned = dict(reversed(list(body.items())))
    assert checked([label, turned]).task == task.task


@given(texts, bodies, texts, bodies)
def test_two_tasks_have_one_id_only_if_they_are_one(
    label: str, body: dict[str, Any], other: str, other_body: dict[str, Any]
) -> None:
    def form(label: str, body: dict[str, Any]) -> str:
        return json.dumps([label, body], sort_keys=True)

    same = form(label, body) == form(other, other_body)
    assert (checked((label, body)).task == checked((other, other_body)).task) == same


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("ab", "a task is a pair"),
        (("a",), "a task is a pair"),
        (("a", {}, 1), "a task is a pair"),
        ((3, {}), "a label is a text, not int"),
        (("", {}), "1 to 256 characters, not 0"),
        (("l" * 257, {}), "1 to 256 characters, not 257"),
        (("a", []), "a body is a mapping"),
        (("a", {1: 2}), "with texts as keys"),
        (("a", {"x": math.nan}), "is JSON, and this one is not"),
        (("a", {"x": {1, 2}}), "is JSON, and this one is not"),
        (("a", {"x": "\ud800"}), "is JSON, and this one is not"),
        (("a", {"x": "y" * BODY}), "a body has at most 200,000 characters"),
    ],
)
def test_what_is_no_task(item: Any, told: str) -> None:
    with pytest.raises(Unfit, match=told):
        checked(item)


values = st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(tuple)


@given(
    st.dictionaries(st.sampled_from("abc"), values, max_size=2),
    st.dictionaries(st.sampled_from("xyz"), values, max_size=2),
    st.lists(st.integers(0, 99), max_size=3, unique=True).map(tuple),
)
def test_a_grid_is_every_combination_once(
    options: dict[str, Any], settings: dict[str, Any], seeds: tuple[int, ...]
) -> None:
    if not (options or settings or seeds):
        return
    levels = Levels(options=options, settings=settings, seeds=seeds)
    grid = levels.grid()
    assert len(grid) == levels.size
    check_items(list(grid), "curriculum.levels", len(grid))  # all are tasks, none twice
    for _, body in grid:
        assert set(body.get("options", {})) == set(options)  # type: ignore[arg-type]
        assert set(body.get("settings", {})) == set(settings)  # type: ignore[arg-type]
        assert ("seed" in body) == bool(seeds)


def test_labels_of_a_grid() -> None:
    levels = Levels(options={"n": (1, 2)}, settings={"wet": (True,)}, seeds=(5,))
    assert [label for label, _ in levels.grid()] == ["n=1 wet=True", "n=2 wet=True"]
    named = Levels(options={"n": (1, 2)}, seeds=(5, 6), label="size {n}, seed {seed}")
    assert [label for label, _ in named.grid()][:2] == ["size 1, seed 5", "size 1, seed 6"]
    assert [label for label, _ in Levels(seeds=(1, 2)).grid()] == ["levels", "levels"]


@pytest.mark.parametrize("listed", [{"a": {}, "b": {"seed": 1}}, [("a", {}), ("b", {"seed": 1})]])
def test_levels_that_an_environment_lists(listed: Any) -> None:
    class Listing:
        closed = False
        rooms = listed
        name = "text"

        def close(self) -> None:
            self.closed = True

    made = Listing()
    settings = DrawingSettings(levels=Levels(attribute="rooms"))
    assert list(map(tuple, level_items(settings, lambda: made))) == [("a", {}), ("b", {"seed": 1})]
    assert made.closed
    with pytest.raises(RequestError, match=r"curriculum\.levels\.attribute: .*Listing has no 'name'"):
        level_items(DrawingSettings(levels=Levels(attribute="name")), Listing)


GENERATOR = """
import os, subprocess, sys

def make(count, random):
    print("noise")
    for n in range(10 * count):  # more than was asked for
        yield f"size {n % 3}", {"seed": int(random.integers(2**31)), "set": sorted({"a", "b", "c"})}

def leave(count, random):
    yield "a", {}
    os._exit(3)

def exits(count, random):
    yield "a", {"pid": subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=-3).pid}
    sys.exit("the licence has run out")
"""


def ask(folder: Path, curriculum: dict[str, Any], hashing: str = "0", **more: Any) -> list[dict[str, Any]]:
    question = {
        "curriculum": {"capacity": 1000, **curriculum},
        "environment": None,
        "folder": str(folder),
        "seed": 5,
        "generation": "generation-1",
        "most": 6,
        "seconds": 30.0,
        **more,
    }
    (folder / "made.py").write_text(GENERATOR)
    answer = subprocess.run(
        [sys.executable, "-m", "actors.curriculum.making"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONHASHSEED": hashing},
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_a_generator_gives_the_same_under_any_hash_seed(tmp_path: Path) -> None:
    first = ask(tmp_path, {"generator": "made:make"}, "1")
    assert first == ask(tmp_path, {"generator": "made:make"}, "2")
    assert len(first) == 7
    assert first[-1] == {"end": "more", "reason": ""}
    other = ask(tmp_path, {"generator": "made:make"}, generation="generation-2")
    assert {line["task"] for line in other[:-1]}.isdisjoint(line["task"] for line in first[:-1])


def test_exit_of_a_generator_is_its_failure_and_leaves_nothing(tmp_path: Path) -> None:
    task, end = ask(tmp_path, {"generator": "made:exits"})
    assert end == {"end": "failed", "reason": "it raised SystemExit: the licence has run out"}
    with pytest.raises(ProcessLookupError):
        os.kill(task["body"]["pid"], 0)


def test_a_program_that_leaves_says_no_end_and_a_list_all_of_it(tmp_path: Path) -> None:
    assert [line.get("end") for line in ask(tmp_path, {"generator": "made:leave"})] == [None]
    (tmp_path / "t.jsonl").write_text("".join(f'{{"label": "a", "body": {{"seed": {n}}}}}\n' for n in range(20)))
    listed = ask(tmp_path, {"tasks": "t.jsonl"})
    assert len(listed) == 21  # a list is given whole, whatever was asked for
    assert listed[-1]["end"] == "complete"
    assert ask(tmp_path, {"generator": "nowhere:make"})[-1]["end"] == "request"


def episode(**returns: float) -> Episode:
    return Episode(5, returns, dict.fromkeys(returns, 5), 0.1, 0)


def judged(info: dict[str, Any], played: Episode | None = None, **settings: Any) -> float:
    from actors.curriculum.scoring import Played, scorer

    return scorer(DrawingSettings(**settings))(Played.of("a", {}, played or episode(agent=1.0), info))


def test_how_an_episode_becomes_a_score() -> None:
    line = {"score": "return", "score_low": -1.0, "score_high": 3.0}
    assert judged({}, episode(agent=1.0), **line) == 0.5
    assert judged({}, episode(a=0.0, b=2.0), **line) == 0.5
    assert judged({}, episode(agent=5.0), **line) == 1.5  # not clamped
    assert judged({}, episode(agent=3.0 + 1e-12), **line) == 1.0  # but for rounding
    assert judged({}, episode(agent=0.0), score="return", score_low=1.0, score_high=-1.0) == 0.5
    assert judged({"success": True}, score="success") == 1.0
    assert judged({"a": {"won": 1.0}, "b": {"won": 0.0}, "c": {}}, score="won") == 0.5
    assert math.isnan(judged({"success": math.nan}, score="success"))
    with pytest.raises(RequestError, match=r"the last info of an episode of 'a' has no 'success' \(it has: won\)"):
        judged({"won": 1}, score="success")
    with pytest.raises(RequestError, match=r"curriculum.score 'math:no'"):
        judged({}, score="math:no")
