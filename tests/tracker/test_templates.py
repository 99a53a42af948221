"""The templates of a prompt search: what the fold holds of them, and what is told of it."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from broker.errors import RequestError
from launcher.cli import app
from tests.learners.prompt_world import World, make
from tests.tracker import bodies as b
from tracker.export import best_template, export
from tracker.facts import Fact
from tracker.leaderboard import standings_part, template_rows, texts_and_rewards
from tracker.ledger import Ledger
from tracker.summary import summarise
from tracker.template_facts import fitting
from tracker.templates import REASONS, Templates
from tracker.trials import wilson

Story = list[tuple[str, str, Any]]
STORY: Story = [
    ("learner-p", "template", b.template("a")),
    ("learner-p", "mint", b.minted(b.answer("a", 0), b.answer("a", 1))),
    ("actor-0", "outcome", b.answered("a", 1, 0.25)),
    ("actor-1", "outcome", b.answered("a", 0, 0.5)),
    ("learner-p", "round", b.prompt_round(0, "a", 0.375)),
    ("learner-p", "update", b.update(4)),
    ("learner-p", "template", b.template("c", place=(1, 2), parent="a")),
    ("learner-p", "template", b.template("b", place=(1, 0), parent="a")),
    ("learner-p", "refused_template", b.refused_template((1, 1))),
    ("learner-p", "mint", b.minted(b.answer("b", 1), b.answer("b", 0), b.answer("a", 3, "training"))),
    ("learner-p", "mint", b.minted(("p/critique/x", {"do": "complete", "role": "critique", "messages": []}))),
    ("actor-1", "outcome", b.answered("b", 1, 1.0)),
    ("actor-1", "outcome", b.completed("p/critique/y")),
]


def folded(story: Story) -> Templates:
    fold = Templates()
    for fact in b.facts(*story):
        if fact.kind in fold.kinds:
            fold.apply(fact)
    return fold


def write(folder: Path, story: Story) -> Path:
    ledger = Ledger(folder / "ledger.sqlite")
    sequences: dict[str, int] = {}
    with ledger.commit():
        for source, kind, body in story:
            sequences[source] = sequences.get(source, 0) + 1
            ledger.append([(source, b.ONE, sequences[source], 1_000_000_000, kind, json.dumps(body))])
    ledger.close()
    return folder


def test_templates_are_told_first_seen_first_with_lineage_and_trials() -> None:
    rows = template_rows(folded(STORY))
    assert [row["text"] for row in rows] == ["a: {question}", "b: {question}", "c: {question}"]
    a, second, third = rows
    assert (a["mean"], a["trials"], a["best"], a["is_best"], a["parent"]) == (0.375, 2, 0.5, True, None)
    assert a["interval"] == list(wilson(0.375, 2))
    assert (second["parent"], second["round"], second["candidate"], second["version"]) == ("a" * 16, 1, 0, [1, 4])
    assert a["version"] == [1, 0]
    assert (third["mean"], third["trials"], third["interval"]) == (None, 0, None)
    assert texts_and_rewards(folded(STORY)) == {
        "templates": ["a: {question}", "b: {question}", "c: {question}"],
        "rewards": {"a: {question}": [0.5, 0.25], "b: {question}": [1.0], "c: {question}": []},
    }


def test_the_dashboards_part() -> None:
    part = standings_part(folded(STORY))
    assert part is not None
    own = part["p"]
    assert (own["round"], own["rounds"], own["best"], own["best_mean"]) == (1, 3, "a" * 16, 0.375)
    assert own["in_flight"] == {"templates": 2, "rollouts": 2, "completions": 1}
    assert [row["template"][0] for row in own["leaderboard"]] == ["a", "b", "c"]
    assert own["usage"]["answer"]["calls"] == 3
    assert own["usage"]["critic"]["throttled"] == 2
    assert own["spent"]["calls"] == 6
    assert own["spent"]["tokens"] == 3 * 12 + 32
    json.dumps(part, allow_nan=False)
    assert standings_part(Templates()) is None


def test_what_failed_is_counted_by_its_reason() -> None:
    """A wrong grader is seen at once, and not only as a low mean; a failure that is delivered twice is one."""
    seven = "the grader returned 7.0"
    odd = [("actor-0", "outcome", b.answered("b", item, 0.0, failed=True, reason=seven)) for item in (2, 3, 3)]
    many = [("actor-0", "outcome", b.answered("c", n, 0.0, failed=True, reason=f"number {n}")) for n in range(99)]
    silent = [("actor-0", "outcome", b.completed("p/critique/z", failed=True))]
    fold = folded([*STORY, *odd, *silent])
    part = standings_part(fold)
    assert part is not None
    assert part["p"]["failures"] == [{"reason": seven, "count": 2}, {"reason": "it did not say why", "count": 1}]
    assert part["p"]["failed"] == 3
    whole = folded([*STORY, *odd, *many]).policies["p"].failures
    assert sum(whole.values()) == 101
    assert len(whole) == REASONS + 1
    again = Templates()
    again.restore(json.loads(json.dumps(fold.snapshot())))
    assert again.snapshot() == fold.snapshot()


def test_a_missing_trial_is_in_no_mean_and_is_told() -> None:
    """It has its reason and its count until it is measured; what it took is counted either way."""
    quota = "answer: 429 (out of quota)"
    lost = [
        ("actor-0", "outcome", b.missing(b.answered("b", 0, 0.0))),
        ("actor-0", "outcome", b.missing(b.completed("p/critique/x"))),
        ("actor-0", "outcome", b.missing(b.answered("b", 1, 0.0))),  # of one that is measured
        ("learner-p", "mint", b.minted(b.answer("c", 5))),
        ("tracker", "given_up", {"task": b.answer("c", 5)[0], "reason": "five actors fell"}),
    ]
    fold = folded([*STORY, *lost])
    rows = {row["template"][0]: row for row in template_rows(fold)}
    assert [(rows[name]["mean"], rows[name]["trials"], rows[name]["missing"]) for name in "abc"] == [
        (0.375, 2, 0), (1.0, 1, 1), (None, 0, 1),
    ]  # fmt: skip
    part = standings_part(fold)
    assert part is not None
    assert (part["p"]["missing"], part["p"]["failed"]) == (3, 0)
    assert part["p"]["missing_reasons"] == [{"reason": quota, "count": 2}, {"reason": "five actors fell", "count": 1}]
    assert {row["template"][0]: row["missing"] for row in part["p"]["leaderboard"]} == {"a": 0, "b": 1, "c": 1}
    assert part["p"]["in_flight"]["rollouts"] == 1
    assert part["p"]["usage"]["answer"]["calls"] == 5
    again = Templates()
    again.restore(json.loads(json.dumps(fold.snapshot())))
    assert again.snapshot() == fold.snapshot()
    found = [
        ("actor-0", "outcome", b.answered("b", 0, 0.5)),
        ("actor-0", "outcome", b.completed("p/critique/x")),
        ("actor-0", "outcome", {**b.answered("c", 5, 0.5), "task": f"{b.answer('c', 5)[0]}@life-2"}),
    ]
    healed = folded([*STORY, *lost, *found])
    assert not healed.policies["p"].missing
    assert [row["mean"] for row in template_rows(healed)] == [0.375, 0.75, 0.5]


def test_a_missing_trial_that_is_delivered_again_is_not_in_flight() -> None:
    name, body = b.answer("b", 0)
    lost = ("actor-0", "outcome", b.missing(b.answered("b", 0, 0.0)))
    again = ("learner-p", "mint", b.minted((f"{name}@life-2", body)))
    told = ("actor-0", "delivered", {"task": f"{name}@life-2"})
    assert (
        folded([*STORY, lost]).policies["p"].open.keys()
        == folded([*STORY, lost, again, told]).policies["p"].open.keys()
    )


def test_a_round_that_is_told_otherwise_takes_the_place_of_all_after_it() -> None:
    """What was missing has come: the search that is resumed may go another way."""
    first = [("learner-p", "round", b.prompt_round(number, "a")) for number in (1, 2)]
    same = folded([*STORY, *first, *first])
    assert sorted(same.policies["p"].rounds) == [0, 1, 2]
    other = folded([*STORY, *first, ("learner-p", "round", b.prompt_round(1, "b", 0.75))])
    assert sorted(other.policies["p"].rounds) == [0, 1]
    assert other.policies["p"].best() == "b" * 16


def test_the_first_reward_counts_and_every_call_was_paid() -> None:
    twice = folded([*STORY, ("actor-2", "outcome", b.answered("a", 1, 1.0))])
    assert template_rows(twice)[0]["mean"] == 0.375
    assert twice.policies["p"].usage["answer"]["calls"] == 4


def test_a_resumed_search_says_things_again_and_nothing_changes() -> None:
    """A second life repeats its facts and mints recorded and open names again, under ids of its own."""
    name, body = b.answer("a", 0)
    other, own = b.answer("b", 0)
    again = [fact for fact in STORY if fact[1] in ("template", "refused_template", "round")]
    again += [("learner-p", "mint", b.minted((f"{name}@life-2", body), (f"{other}@life-2", own)))]
    one, two = folded(STORY), folded([*STORY, *again])
    assert json.dumps(two.snapshot()) == json.dumps(one.snapshot())
    outcome = b.answered("b", 0, 0.5)
    done = folded([*STORY, *again, ("actor-0", "outcome", {**outcome, "task": f"{other}@life-2"})])
    assert done.policies["p"].open.keys() == one.policies["p"].open.keys() - {other}
    assert done.policies["p"].tested["b" * 16].open == 0


def test_of_twins_the_first_candidate_stands_whoever_came_first() -> None:
    late = [("learner-p", "template", b.template("c", place=(1, 0), parent="b")), *STORY]
    rows = {row["template"][0]: row for row in template_rows(folded(late))}
    assert (rows["c"]["candidate"], rows["c"]["parent"]) == (0, "b" * 16)
    swapped = [*STORY, late[0]]
    rows = {row["template"][0]: row for row in template_rows(folded(swapped))}
    assert (rows["c"]["candidate"], rows["c"]["parent"]) == (0, "b" * 16)


def test_outcomes_of_other_shapes_disturb_nothing() -> None:
    odd: list[dict[str, Any]] = [
        {"do": "answer"},
        {"do": "answer", "template": 3, "item": 0, "split": "validation", "attempt": 1, "reward": 1.0},
        {"do": "answer", "template": "x", "item": -1, "split": "validation", "attempt": 1, "reward": 1.0},
        {"do": "answer", "template": "x", "item": 0, "split": "test", "attempt": 1, "reward": 1.0},
        {"do": "answer", "template": "x", "item": 0, "split": "training", "attempt": 1, "reward": None},
        {"do": "complete"},
        {
            "do": "complete",
            "role": "edit",
            "usage": [3, {"endpoint": None, "calls": "many", "cost": -1, "failed": 10**400}],
        },
        {"do": "answer", "template": "x", "item": 10**400, "split": "training", "attempt": 1, "reward": 10**400},
        {"do": ["answer"]},
        {},
    ]
    story = [
        ("actor-0", "outcome", {"task": f"t{n}", "score": None, "policy": "p", "result": r}) for n, r in enumerate(odd)
    ]
    fold = folded([*STORY, *story, ("actor-0", "outcome", {"task": "t", "score": 1.0, "policy": None, "result": {}})])
    assert template_rows(fold)[0] == template_rows(folded(STORY))[0]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("template", {**b.template("a"), "template": "short"}),
        ("template", {**b.template("a"), "round": -1}),
        ("round", {**b.prompt_round(1, "a"), "best_mean": "high"}),
        ("round", {"round": 3, "mean": 0.5}),
        ("refused_template", {"policy": "p"}),
    ],
)
def test_facts_of_the_same_name_and_another_form_are_left_alone(kind: str, body: Any) -> None:
    """They are the business of an algorithm of a user's own."""
    told = folded([*STORY, ("learner-p", kind, body)])
    assert json.dumps(told.snapshot()) == json.dumps(folded(STORY).snapshot())


@settings(max_examples=100)
@given(st.floats(0, 1), st.integers(1, 10_000))
def test_the_interval_is_within_bounds_and_holds_the_mean(mean: float, trials: int) -> None:
    low, high = wilson(mean, trials)
    assert 0.0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1.0
    assert high - low < 1.0
    wider = wilson(mean, max(1, trials // 2))
    assert wider[1] - wider[0] >= high - low - 1e-12


def test_the_interval_is_wilsons() -> None:
    """81 of 263: Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize("name", ["textual_gradients", "gepa"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_whole_search_in_any_order_folds_to_the_same(name: str, seed: int) -> None:
    """What a search says and is answered, as facts; rollouts in another order, and a life in between."""
    orderly = searched(name, None)
    wild = searched(name, random.Random(seed))
    assert orderly == wild
    assert len(orderly["rows"]) > 3
    assert sum(row["trials"] for row in orderly["rows"]) == sum(map(len, orderly["texts"]["rewards"].values()))


def searched(name: str, disorder: random.Random | None) -> dict[str, Any]:
    from learners.algorithm import Fragment

    world = World(seed=2, items=10, spoiled=0.1)
    story: Story = []
    search = make(name, world, {"rounds": 2, "beam": 2, "branch": 2})
    published, waiting, texts, recorded = search.parameters(), {}, {}, {}
    life = 1
    while (reason := search.finished()) is None:
        story += [("learner-p", kind, body) for kind, body in search.facts()]
        if search.ready():
            search.update()
            published = search.parameters()
            texts |= published["templates"]
            continue
        texts |= published["templates"]
        minted = [(f"{t.task}@life-{life}" if life > 1 else t.task, t.body) for t in search.mint()]
        if minted:
            story.append(("learner-p", "mint", b.minted(*minted)))
            waiting |= dict(minted)
        if search.finished() is not None or not waiting:
            continue
        task = disorder.choice(list(waiting)) if disorder else next(iter(waiting))
        body = waiting.pop(task)
        plain = task.partition("@life-")[0]
        if plain not in recorded:
            from learners.algorithm import Task

            recorded[plain] = world.reply(Task(plain, body), texts)
            story.append(
                ("actor-0", "outcome", {"task": task, "score": None, "policy": "p", "result": recorded[plain]})
            )
        search.accept(Fragment({}, (1, 0), 1, "actor-0", plain, recorded[plain]))
        if disorder and life == 1 and len(recorded) > 60:
            life, waiting, search = 2, {}, make(name, world, {"rounds": 2, "beam": 2, "branch": 2})
            published = search.parameters()
    story += [("learner-p", kind, body) for kind, body in search.facts()]
    assert "all rounds are done" in reason
    fold = folded(story)
    assert not fold.policies["p"].open
    best = [row["template"] for row in template_rows(fold) if row["is_best"]]
    assert best == [published["best"]]
    usage = {key: round(value, 9) for key, value in fold.policies["p"].usage["answer"].items()}
    return {"rows": template_rows(fold), "texts": texts_and_rewards(fold), "usage": usage}


# --- from a ledger, as a user asks


def test_summary_and_export_of_a_run(tmp_path: Path) -> None:
    write(tmp_path, [("launcher", "run", b.run()), *STORY])
    summary = summarise(tmp_path)
    assert [row["text"][0] for row in summary["templates"]] == ["a", "b", "c"]
    search = summary["prompts"]["p"]
    assert search["best"]["text"] == "a: {question}"
    assert search["how"] == f"headrace export {tmp_path} --best"
    assert [fact["round"] for fact in search["rounds"]] == [0]
    assert search["refused"][0]["reason"] == "it lost {question}"
    assert math.isclose(search["usage"]["critic"]["cost"], 0.75)
    content = json.loads(export(tmp_path, "json", tmp_path / "out.json").read_text())
    assert content["rewards"] == {"a: {question}": [0.5, 0.25], "b: {question}": [1.0], "c: {question}": []}
    assert content["templates"] == list(content["rewards"])
    assert content["count"] == len(STORY) + 1
    assert len(content["facts"]["template"]) == 3


def test_a_run_without_templates_has_none(tmp_path: Path) -> None:
    write(tmp_path, [("launcher", "run", b.run()), ("actor-0", "outcome", {"task": "t", "score": 1.0})])
    summary = summarise(tmp_path)
    assert (summary["templates"], summary["prompts"]) == ([], None)
    assert set(json.loads(export(tmp_path, "json", tmp_path / "out.json").read_text())) == {"run", "count", "facts"}
    with pytest.raises(RequestError, match="has no templates"):
        best_template(tmp_path)


def test_the_best_prompt_alone(tmp_path: Path) -> None:
    text = "Führe aus:\n{question}\n"
    write(tmp_path, [("learner-p", "template", b.template("a", text)), *STORY[1:]])
    (tmp_path / "run.toml").write_text("")
    runner = CliRunner()
    told = runner.invoke(app, ["export", str(tmp_path), "--best"])
    assert (told.exit_code, told.stdout) == (0, text + "\n")
    written = runner.invoke(app, ["export", str(tmp_path), "--best", "--out", str(tmp_path / "best.txt")])
    assert written.exit_code == 0
    assert (tmp_path / "best.txt").read_bytes() == text.encode()
    for wrong in ([], ["--best", "--to", "json"]):
        refused = runner.invoke(app, ["export", str(tmp_path), *wrong])
        assert isinstance(refused.exception, RequestError)
        assert "--to json, --to csv, --to parquet, or --best" in str(refused.exception)


def test_of_several_searches_one_is_named(tmp_path: Path) -> None:
    other = {**b.template("b"), "policy": "q"}
    scored = {**b.answered("b", 0, 1.0), "policy": "q"}
    write(tmp_path, [*STORY, ("learner-q", "template", other), ("actor-0", "outcome", scored)])
    assert best_template(tmp_path, "q") == "b: {question}"
    assert best_template(tmp_path, "p") == "a: {question}"
    with pytest.raises(RequestError, match="--policy and one of p, q"):
        best_template(tmp_path)
    with pytest.raises(RequestError, match="'r' has no templates"):
        best_template(tmp_path, "r")
    assert summarise(tmp_path)["prompts"]["q"]["how"].endswith("--best --policy q")


def test_numbers_that_came_as_text_are_numbers() -> None:
    body = {"policy": "p", "template": "0" * 16, "text": "a", "parent": None, "critique": "", "round": "3"}
    said = {**body, "candidate": "0", "placeholders": []}
    found = fitting(Fact(1, "learner-p", b.ONE, 1, 0, "template", said))
    assert found is not None
    assert (found["round"], found["candidate"]) == (3, 0)
    for other in ("learner-q", "actor-0"):
        assert fitting(Fact(1, other, b.ONE, 1, 0, "template", said)) is None, "its policy's learner alone says it"


def test_before_anything_was_scored_there_is_no_best(tmp_path: Path) -> None:
    write(tmp_path, [("learner-p", "template", b.template("a"))])
    with pytest.raises(RequestError, match="not scored a template yet"):
        best_template(tmp_path)
    assert summarise(tmp_path)["prompts"]["p"]["best"] is None
