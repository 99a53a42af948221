"""docs/ledger.md by doing it: its columns are those of the file, its examples run and find what is there."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tracker import bodies as b
from tracker.ledger import Ledger

PAGE = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
VIEWS = ("templates", "rewards", "tasks", "labels", "evictions", "episodes", "versions", "checkpoints", "losses")


def answer(task: str, template: str, reward: float, split: str = "train", item: str = "q1") -> dict[str, Any]:
    result = {
        "do": "answer", "template": template, "item": item, "split": split, "attempt": 1, "runner": "local",
        "reward": reward, "reason": "exact", "failed": False,
    }  # fmt: skip
    return {"task": task, "score": reward, "policy": "p", "result": result}


def missing(task: str, item: str) -> dict[str, Any]:
    body = answer(task, "b", 0.0, item=item)
    result = {**body["result"], "reward": None, "failed": True, "missing": "endpoint", "reason": "429"}
    return {**body, "score": None, "missing": True, "result": result}


def template(name: str, parent: str | None = None, turn: int = 0) -> dict[str, Any]:
    own = {
        "policy": "p",
        "template": name,
        "text": f"{name}: {{question}}",
        "parent": parent,
        "critique": None,
        "round": turn,
    }
    return {**own, "candidate": 0, "version": [1, turn], "placeholders": ["question"]}


def mint(*names: str, label: str | None = None) -> dict[str, Any]:
    more = {} if label is None else {"label": label}
    return {"policy": "p", "tasks": [{"task": name, "body": {"q": name}, **more} for name in names]}


STORY: list[tuple[str, str, dict[str, Any]]] = [
    ("launcher", "run", b.run()),
    ("learner-p", "template", template("a")),
    ("learner-p", "template", template("b", "a", 1)),
    ("learner-p", "template", template("a", "b", 2)),  # said again: it stays where it was first said
    ("learner-p", "mint", mint("t1", "t2", "t3", "t4", "t5", "t6", "t7")),
    ("learner-p", "mint", mint("t1")),
    ("actor-0", "outcome", answer("t1", "a", 0.25)),
    ("actor-1", "outcome", answer("t1", "a", 1.0)),  # late: the first counts
    ("actor-0", "outcome", answer("t2", "b", 1.0, "test", "q2")),
    ("tracker", "given_up", {"task": "t3", "reason": "5 leases ended without an outcome"}),
    ("actor-1", "outcome", answer("t3", "b", 0.4, item="q3")),  # of a task that was given up: it counts
    ("actor-1", "outcome", answer("t3~2", "b", 0.75, item="q3")),  # the next life asked for the same
    ("actor-0", "rollout_error", {"task": "t4", "traceback": "E", "permanent": False}),
    ("actor-0", "rollout_error", {"task": "t4", "traceback": "E", "permanent": True, "tell": False}),
    ("learner-p", "mint", mint("t2@life-2")),  # its result is there: it is delivered, and not run again
    ("actor-1", "delivered", {"task": "t2"}),
    ("actor-1", "delivered", {"task": "t2@life-2"}),
    ("actor-0", "mint", mint("l1", "l2", label="easy")),
    ("actor-0", "outcome", {"task": "l1", "score": 0.5, "draw": 1}),
    ("actor-0", "outcome", {"task": "l1", "score": 1.0, "draw": 2}),
    ("actor-0", "outcome", {"task": "l2", "score": 0.0, "draw": 3}),
    (
        "tracker",
        "pool_evict",
        {"task": "l2", "label": "easy", "reason": "score", "note": "n", "raw": 0.1, "mean": 0.0, "outcomes": 1},
    ),
    ("actor-0", "episode", b.episode(2.0, agents=2)),
    ("actor-0", "episode", b.episode(None)),
    ("learner-p", "update", b.update(1)),
    ("learner-p", "update", b.update(2)),
    (
        "tracker",
        "checkpoint",
        {"policy": "p", "version": [1, 2], "file": "p~1.2", "size": 9, "sha256": "0f", "score": 1.5, "best": True},
    ),
    ("tracker", "given_up", {"task": "t6", "reason": "its body is too long"}),
    ("actor-0", "delivered", {"task": "t6", "given_up": True}),
    ("actor-0", "rollout_error", {"task": "t7", "traceback": "E", "permanent": True, "tell": True}),
    ("tracker", "given_up", {"task": "t7", "reason": "E"}),
    ("actor-0", "outcome", missing("u1", "q5")),
    ("actor-0", "outcome", missing("u2", "q6")),
    ("actor-0", "outcome", missing("u2@life-2", "q6")),
    ("actor-0", "outcome", answer("u2@life-3", "b", 0.5, item="q6")),  # what is measured takes the place of what is not
    ("actor-0", "outcome", answer("u2@life-4", "b", 1.0, item="q6")),
    ("actor-0", "outcome", answer("u3", "b", 0.5, item="q7")),
    ("actor-0", "outcome", missing("u3@life-2", "q7")),
]  # fmt: skip


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("sql") / "ledger.sqlite"
    written = Ledger(path)
    rows = []
    last: dict[str, int] = {}
    for source, kind, body in STORY:
        last[source] = last.get(source, 0) + 1
        rows.append((source, b.ONE, last[source], 7, kind, json.dumps(body)))
    with written.commit():
        written.append(rows)
    written.close()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    yield connection
    connection.close()


def told(view: str) -> list[str]:
    (row,) = re.findall(rf"^\| `{view}` \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE)
    return re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", row))


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_has_the_columns_of_the_view(ledger: sqlite3.Connection, view: str) -> None:
    assert [column[1] for column in ledger.execute(f"PRAGMA table_info({view})")] == told(view)


@pytest.mark.parametrize("query", EXAMPLES)
def test_the_examples_run_and_find_something(ledger: sqlite3.Connection, query: str) -> None:
    assert ledger.execute(query).fetchall()


def rows(ledger: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in ledger.execute(query)]


def test_the_first_counts(ledger: sqlite3.Connection) -> None:
    assert rows(ledger, "SELECT template, parent, round, position, text FROM templates ORDER BY template") == [
        ("a", None, 0, 2, "a: {question}"), ("b", "a", 1, 3, "b: {question}"),
    ]  # fmt: skip
    given = "SELECT task, template, item, split, source, reward, failed FROM rewards WHERE task < 'u' ORDER BY task"
    assert rows(ledger, given) == [
        ("t1", "a", "q1", "train", "actor-0", 0.25, 0), ("t2", "b", "q2", "test", "actor-0", 1.0, 0),
        ("t3", "b", "q3", "train", "actor-1", 0.4, 0),
    ]  # fmt: skip


def test_a_measurement_counts_before_what_is_missing(ledger: sqlite3.Connection) -> None:
    asked = "SELECT task, position, reward, missing, reason FROM rewards WHERE task > 'u' ORDER BY task"
    assert rows(ledger, asked) == [
        ("u1", 32, None, "endpoint", "429"), ("u2@life-3", 35, 0.5, None, "exact"), ("u3", 37, 0.5, None, "exact"),
    ]  # fmt: skip


def test_tasks_and_what_became_of_them(ledger: sqlite3.Connection) -> None:
    assert rows(ledger, "SELECT task, state, score, outcomes, mean_score, ended, label FROM tasks ORDER BY task") == [
        ("l1", "open", None, 2, 0.75, None, "easy"),
        ("l2", "evicted", None, 1, 0.0, 22, "easy"),
        ("t1", "done", 0.25, 2, 0.625, 7, None),
        ("t2", "done", 1.0, 1, 1.0, 9, None),
        ("t2@life-2", "done", None, 0, None, 17, None),
        ("t3", "done", 0.4, 1, 0.4, 11, None),
        ("t4", "failed", None, 0, None, 14, None),
        ("t5", "open", None, 0, None, None, None),
        ("t6", "failed", None, 0, None, 29, None),
        ("t7", "open", None, 0, None, None, None),
    ]
    assert rows(ledger, "SELECT * FROM labels") == [("easy", 2, 1, 1, 3, 0.5)]
    assert rows(ledger, "SELECT task, reason, kind FROM evictions ORDER BY position") == [
        ("t3", "5 leases ended without an outcome", "given_up"), ("l2", "score", "pool_evict"),
        ("t6", "its body is too long", "given_up"), ("t7", "E", "given_up"),
    ]  # fmt: skip


def test_episodes_versions_checkpoints_losses(ledger: sqlite3.Connection) -> None:
    assert rows(ledger, "SELECT length, return_mean FROM episodes") == [(25, 2.0), (25, None)]
    assert rows(ledger, "SELECT policy, life, number, stale FROM versions") == [("p", 1, 1, 1), ("p", 1, 2, 1)]
    assert rows(ledger, "SELECT policy, life, number, file, best FROM checkpoints") == [("p", 1, 2, "p~1.2", 1)]
    assert rows(ledger, "SELECT number, loss, value FROM losses WHERE number = 2") == [
        (2, "policy", 0.5), (2, "value", None),
    ]  # fmt: skip


@pytest.mark.parametrize("view", [view for view in VIEWS if view != "episodes"])
def test_no_view_but_episodes_reads_the_whole_ledger(ledger: sqlite3.Connection, view: str) -> None:
    plan = [row["detail"] for row in ledger.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {view}")]
    scans = [step for step in plan if re.match(r"SCAN (facts|f)\b(?!.*INDEX)", step)]
    assert not scans, plan
