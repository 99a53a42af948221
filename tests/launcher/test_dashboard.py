"""The screen fits, says what it must, and no document breaks it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from launcher import drawing
from launcher.dashboard import Dashboard, screen
from tests.launcher import documents

SIZES = [(80, 24), (100, 30), (120, 40), (170, 30), (200, 60)]


def lines_of(document: dict[str, Any], width: int, height: int, now: float = documents.NOW) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True, force_terminal=True)
    console.print(screen(document, width, height, now))
    return console.export_text().rstrip("\n").split("\n")


def drawn(document: dict[str, Any], width: int = 120, height: int = 40, now: float = documents.NOW) -> str:
    return "\n".join(lines_of(document, width, height, now))


def many_policies(count: int) -> dict[str, Any]:
    return documents.spread(policies={f"policy_{n}": documents.policy(n) for n in range(count)})


CASES = {
    "spread": documents.spread(),
    "crowd": documents.crowd(),
    "alarms": documents.spread(alarms=[f"alarm {n}" for n in range(9)], simulation=True),
    "many policies": many_policies(40),
    "empty": {},
    "pool": documents.pooled(),
    "many labels": documents.pooled(40, policies={"agent": documents.policy()}),
    "null pool": documents.spread(pool={key: [0] for key in documents.pooled()["pool"]} | {"labels": {"a": None}}),
    "prompts": documents.searched(),
    "many templates": documents.searched(400),
    "null prompts": documents.spread(prompts={"p": dict.fromkeys(documents.searched()["prompts"]["answerer"])}),
    "odd prompts": documents.spread(prompts={"p": None, "q": {"leaderboard": [1, {}], "usage": {"a": 3}}, "r": []}),
    "nulls": dict.fromkeys(documents.spread()),
    "null policy and role": documents.spread(
        policies={"a": None, "b": dict.fromkeys(documents.policy())},
        roles=[None, {}, dict.fromkeys(documents.role("x", "actor"))],
        events=[None, {}, {"time": 1e300, "source": None, "text": None}], waits=[{}, None], alarms=[None],
    ),
    "wide signs": documents.spread(run="水車" * 60, roles=[documents.role("水車小屋" * 9, "actor", doing="🛞" * 90)]),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_every_screen_is_exactly_as_large_as_the_terminal(case: str, size: tuple[int, int]) -> None:
    width, height = size
    lines = lines_of(CASES[case], width, height)
    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width}
    assert lines[0].startswith("╭")
    assert lines[-1].endswith("╯")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_a_user_must_not_miss_stands_at_every_size(size: tuple[int, int]) -> None:
    text = drawn(documents.spread(alarms=["the disk is full"]), *size)
    for wanted in (
        "spread", "running", "seed 7", "1:23", "1:36 left", "137,173", "4,938/s", "-17.25", "agent_0", "v812", "9.8",
        "-29.61 → -17.25", "1/3", "▇", "tracker", "learner-agent_2", "alive", "stepping", "83 s", "92%",
        "301 MB", "actor-1 waits 2.1 s for learner-agent_1", "12,345", "148/s", "the disk is full", "actor-1 came back",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_fragments_and_losses_stand_even_in_24_rows() -> None:
    text = drawn(documents.spread(), 80, 24)
    for wanted in ("used 12.9k", "stale 3", "lost 0", "dropped 0", "policy -0.012", "value 1.23", "entropy 1.54"):
        assert wanted in text, wanted


def test_more_room_shows_more() -> None:
    text = drawn(documents.spread(), 120, 40)
    for wanted in ("credit", "checkpoints v790 v791 v792", "agent steps 411,520", "phase running", "return over time"):
        assert wanted in text, wanted


def test_many_actors_are_told_in_one_line_and_trouble_is_not_hidden() -> None:
    crowd = documents.crowd(64)
    assert "more, all alive" in drawn(crowd, 80, 24)
    crowd["roles"][40] |= {"state": "lost"}
    lines = drawn(crowd, 80, 24).split("\n")
    assert any("actor-38" in line and "lost" in line for line in lines)
    assert any("actor-63" in line for line in lines)


@pytest.mark.parametrize("size", [(100, 40), (120, 50), (200, 50)], ids=str)
def test_the_pool_has_a_panel(size: tuple[int, int]) -> None:
    text = drawn(documents.pooled(policies={"agent": documents.policy()}), *size)
    for wanted in (
        "pool", "tasks 400 of 1.00k", "progress 0.12", "evicted 3 this", "draws 12.3k 345 this epoch",
        "size 0", "0.875", "0.062", "most progress  size 0 0.41 score 0.62", "least progress size 3 0.11",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_the_pool_gives_way_to_what_must_not_be_missed() -> None:
    text = drawn(documents.pooled(40, alarms=["the disk is full"]), 80, 24)
    for wanted in ("tasks 400", "the disk is full", "agent_2", "actor-1 waits 2.1 s", "checkpoint agent_2"):
        assert wanted in text, wanted
    assert "more labels" in drawn(documents.pooled(40), 120, 40)
    assert "evicted 3 this epoch (score 3)" in drawn(documents.pooled(), 120, 50)
    assert "pool" not in drawn(documents.spread())


@pytest.mark.parametrize("size", [(100, 40), (120, 50), (200, 50)], ids=str)
def test_a_prompt_search_has_a_panel(size: tuple[int, int]) -> None:
    text = drawn(documents.searched(), *size)
    for wanted in (
        "templates", "round 2 of 3", "best 0.875", "in flight 4 of 1 templates", "calls 1.23k", "0000000000000000",
        "0.875", "answer", "429s 17", "retries 19", "critique",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "money 0.750" in drawn(documents.searched(), 150, 50)
    assert "Answer number 4. {question}" in drawn(documents.searched(), 150, 50)


def test_what_failed_in_a_prompt_search_is_on_every_screen() -> None:
    failing = documents.searched(failed=9, failures=[{"reason": "the grader returned 7.0", "count": 8}])
    for size in ((80, 24), (120, 50)):
        assert "failed 9, 8 of them: the grader returned 7.0" in drawn(failing, *size)


def test_a_prompt_search_gives_way_to_what_must_not_be_missed() -> None:
    text = drawn(documents.searched(400, alarms=["the disk is full"]), 80, 24)
    for wanted in ("round 2 of 3", "the disk is full", "more templates", "actor-1 waits 2.1 s"):
        assert wanted in text, wanted


def test_many_policies_are_counted() -> None:
    assert "more policies" in drawn(many_policies(40), 80, 24)


def test_words_for_states() -> None:
    states = ["alive", "suspect", "lost", "left", "restarting", "stalled", "puzzled"]
    text = drawn(documents.spread(roles=[documents.role(f"r{n}", "actor", state=s) for n, s in enumerate(states)]))
    for word in ("● alive", "◐ silent", "✖ lost", "○ finished", "↻ restarting", "◌ no progress", "? puzzled"):
        assert word in text, word


def test_alarms_are_red_and_a_simulation_says_so() -> None:
    console = Console(width=100, height=30, file=io.StringIO(), record=True, force_terminal=True)
    console.print(screen(documents.spread(alarms=["disk full"], simulation=True), 100, 30, documents.NOW))
    styled = console.export_text(styles=True)
    assert "\x1b[1;31m disk full" in styled
    assert "SIMULATION" in styled


def test_a_silent_tracker_is_said_to_be_silent() -> None:
    document = documents.spread(time=documents.NOW - 12)
    assert "no news of the tracker for 12 s" in drawn(document, 80, 24)
    assert "no news" not in drawn(document, 80, 24, documents.NOW - 11)


def test_the_end_gives_its_reason() -> None:
    text = drawn(documents.spread(phase="ended", failed=True, reason="learner-agent_1 failed 6 times"), 80, 24)
    assert "failed" in text
    assert "learner-agent_1 failed 6 times" in text


def test_other_stop_rules_have_a_bar_too() -> None:
    document = documents.spread(stop={"env_steps": 274_346}, seconds_left=None)
    assert "50% of 274,346 env steps" in drawn(document)
    assert "no limit" in drawn(documents.spread(stop={}, seconds_left=None))


def test_a_role_cannot_steer_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;title\x07\r\n\u202egnp"
    document = documents.spread(alarms=[hostile], roles=[documents.role(hostile, "actor", doing=hostile)])
    document["events"] = [{"time": documents.NOW, "source": hostile, "text": hostile}]
    for sign in "\x1b\x07\r\u202e":
        assert sign not in drawn(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 220), st.integers(1, 70))
def test_no_document_and_no_size_breaks_it(data: st.DataObject, width: int, height: int) -> None:
    document = documents.spread()
    places = [
        document,
        document["policies"]["agent_0"],
        document["roles"][0],
        document["events"][0],
        document["waits"][0],
    ]
    for place in places:
        for key in data.draw(st.lists(st.sampled_from(sorted(place)), max_size=3, unique=True)):
            place[key] = data.draw(json_values)
    lines = str(screen(document, width, height, documents.NOW)).split("\n")
    assert len(lines) == height
    assert {cell_len(line) for line in lines} == {width}


@pytest.mark.parametrize("width", [80, 160])
def test_more_alarms_than_rows_break_it_nowhere(width: int) -> None:
    document = documents.spread()
    document["alarms"] = [f"alarm {number}" for number in range(6)]
    for height in range(1, 40):
        lines = str(screen(document, width, height, documents.NOW)).split("\n")
        assert len(lines) == height


@given(st.lists(st.none() | st.floats(-1e6, 1e6), max_size=80), st.integers(1, 90), st.integers(1, 6))
def test_a_chart_fills_its_rectangle_and_reaches_its_top_and_foot(
    values: list[float | None], width: int, height: int
) -> None:
    rows = drawing.chart(values, width, height)
    assert [len(row) for row in rows] == [width] * height
    assert {sign for row in rows for sign in row} <= set(drawing.BLOCKS)
    known = [value for value in values if value is not None]
    if len(values) <= width and len(set(known)) > 1:
        assert "▇" in rows[0]
        assert "▁" in rows[-1]


@given(st.lists(st.tuples(st.text(max_size=9), st.just("")), max_size=5), st.integers(0, 40))
def test_fit_gives_the_width(line: drawing.Line, width: int) -> None:
    assert drawing.width_of(drawing.fit(line, width)) == width


def test_the_live_dashboard_draws_on_news_and_once_a_second() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, height=30, force_terminal=True)
    now = [documents.NOW]
    with Dashboard(console, clock=lambda: now[0]) as dashboard:
        assert "waiting for the tracker" in out.getvalue()
        now[0] += 1
        dashboard.show(json.loads(json.dumps(documents.spread())))
        assert "learner-agent_2" in out.getvalue()
        size = len(out.getvalue())
        dashboard.tick()
        assert len(out.getvalue()) == size
        now[0] += 5
        dashboard.tick()
        assert "no news of the tracker for 5.0 s" in out.getvalue()
    dashboard.close()
    assert out.getvalue().rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in out.getvalue()
