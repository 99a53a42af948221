"""A run told in lines, and its report."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from launcher import words
from launcher.lines import PlainLines, Teller, status_line
from launcher.report import is_failed, render_evaluation, render_summary
from tests.launcher import documents


def printed(renderable: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text()


def test_each_event_is_told_once_and_the_status_every_two_seconds() -> None:
    teller = Teller()
    document = documents.spread()
    first = teller.tell(document, 0.0)
    assert len(first) == len(documents.EVENTS) + 1
    assert "launcher: spawned tracker, pid 4007" in first[0]
    assert teller.tell(document, 1.9) == []
    assert teller.tell(document, 2.0) == [status_line(document)]
    again = {"time": documents.NOW, "source": "tracker", "text": "actor-1 is silent"}
    document["events"] = [*document["events"][3:], again]
    assert [line[10:] for line in teller.tell(document, 2.5)] == ["tracker: actor-1 is silent"]
    document["events"] = [*document["events"], again]
    assert len(teller.tell(document, 2.6)) == 1, "the same words at the same time twice are two events"


def test_the_status_line_names_who_is_stuck() -> None:
    document = documents.spread()
    document["roles"][1] |= {"state": "stalled", "doing": "waiting for experience"}
    document["roles"][-1] |= {"state": "stalled", "doing": "in environment 3's step for 10 s"}
    name = document["roles"][-1]["name"]
    assert f"{name} is stalled, in environment 3's step for 10 s (+1)" in status_line(document)
    assert "is stalled" not in status_line(documents.spread())


def test_alarms_and_phases_are_told_at_once() -> None:
    teller = Teller()
    teller.tell(documents.spread(), 0.0)
    assert teller.tell(documents.spread(alarms=["the disk is full"]), 0.1) == ["ALARM: the disk is full"]
    ended = documents.spread(phase="ended", reason="180 seconds have run", alarms=["the disk is full"])
    (line,) = teller.tell(ended, 0.2)
    assert "ended" in line
    assert "180 seconds have run" in line


def test_the_pool_in_a_line_and_in_the_summary() -> None:
    wanted = "pool 400 tasks, 368 eligible, progress 0.12, draws 12.3k, evicted 3 this epoch"
    assert wanted in status_line(documents.pooled())
    assert "pool" not in status_line(documents.spread())
    assert wanted in printed(render_summary(documents.summary(pool=documents.pooled()["pool"])), 200)


def test_the_status_line_says_what_counts() -> None:
    line = status_line(documents.spread(simulation=True))
    for wanted in (
        "[1:23] running", "simulation", "1:36 left", "137,173", "-17.25", "agent_2 v814 -27.61 → -15.25", "12,345",
        "6 alive", "actor-1 waits 2.1 s for learner-agent_1: credit",
    ):  # fmt: skip
        assert wanted in line, wanted
    assert "refused" not in line
    assert "failed" not in line
    refusing = {"a": {"fragments": {"refused": 12}}}
    worse = status_line(documents.spread(policies=refusing, tasks={"minted": 6, "done": 1, "failed": 2}))
    assert "refused 12" in worse
    assert "tasks 1 of 6, 2 failed" in worse
    assert "\n" not in status_line(documents.spread(reason="a\nb"))
    assert "waiting for the tracker" in status_line({})


def test_silence_is_told_once() -> None:
    told: list[str] = []
    now = [0.0]
    with PlainLines(told.append, clock=lambda: now[0]) as lines:
        lines.show(documents.spread())
        told.clear()
        for now[0] in (1.0, 4.9, 5.0, 6.0, 60.0):
            lines.tick()
        assert told == ["no news of the tracker for 5 s"]


def test_the_summary_says_what_was_learned() -> None:
    text = printed(render_summary(documents.summary()))
    for wanted in (
        "spread ended after 3:00: 180 seconds have run", "296,000 env steps", "agent_0", "v1770", "-29.60 → -16.10",
        "1/3", "4/0", "26,700 stored", "actor-1 1", "runs-out/spread-1", "value 0.900",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert max(map(len, text.split("\n"))) <= 80


def test_a_summary_with_nothing_in_it_is_drawn() -> None:
    for summary in ({}, dict.fromkeys(documents.summary()), documents.summary(policies={"a": None}, alarms=["x"])):
        assert printed(render_summary(summary))
    assert is_failed({"state": "failed"})
    assert not is_failed({"state": "ended"})


def test_an_evaluation_is_a_table() -> None:
    row = {"return_mean": -15.25, "interval": [-16.0, -14.5], "episodes": 100, "return_min": -30, "return_max": -9}
    text = printed(render_evaluation({"policies": {"agent_0": row}}))
    for wanted in ("agent_0", "-15.25", "-16.00 … -14.50", "100", "-30", "-9"):
        assert wanted in text, wanted
    assert "-15.25" in printed(render_evaluation(row))


def test_an_evaluation_of_tasks_is_told_by_label() -> None:
    labels = {
        "length 1": {"episodes": 3, "score_mean": 0.75, "failed": 0},
        "falling": {"episodes": 0, "score_mean": None, "failed": 2},
    }
    tasks = {"pool": 5, "score_mean": 0.75, "interval": [0.5, 1.0], "failed": 2, "trouble": "fell", "labels": labels}
    text = printed(render_evaluation({"policies": {}, "tasks": tasks}))
    for told in (
        "length 1",
        "0.75",
        "falling",
        "5 tasks in the pool",
        "0.5000 … 1.000",
        "the last one that failed: fell",
    ):
        assert told in text, text


def test_phrases() -> None:
    assert [words.clock(s) for s in (0, 83.9, 3723, None, "x")] == ["0:00", "1:23", "1:02:03", "–", "–"]
    assert [words.span(s) for s in (3.21, 45, 125, 11_220, 180_000)] == ["3.2 s", "45 s", "2m05", "3h07", "2d02"]
    assert [words.short(n) for n in (950, 1234, 12_345, 123_456, 4_560_000, 2.1)] == [
        "950", "1.23k", "12.3k", "123k", "4.56M", "2.1",
    ]  # fmt: skip
    assert [words.decimal(n) for n in (-18.2, 0, 0.0123, 1234.56, 3.1e-7)] == [
        "-18.20",
        "0",
        "0.0123",
        "1,235",
        "3.1e-07",
    ]
    assert [words.version(v) for v in ([1, 812], [2, 813], None, [1], [None, None])] == [
        "v812",
        "v813 (life 2)",
        "–",
        "–",
        "–",
    ]


@given(st.floats() | st.integers() | st.none() | st.text(max_size=5))
def test_phrases_are_short_whatever_they_are_given(value: object) -> None:
    assert len(words.short(value)) <= 7
    assert words.clock(value)
    assert words.decimal(value)
    assert words.rate(value)
    assert words.time_of_day(value)
