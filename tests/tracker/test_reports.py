from __future__ import annotations

import csv
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from broker.errors import RequestError
from broker.messages import Hello, Status
from tests.tracker import bodies as b
from tracker import parquet as parquets
from tracker.chronicle import words
from tracker.disk import LedgerDamaged
from tracker.document import standings_document
from tracker.export import export
from tracker.ledger import Ledger, LedgerReader
from tracker.live import Live
from tracker.lock import RunLock
from tracker.mend import mend
from tracker.standard import standard_folds
from tracker.standings import Standings
from tracker.summary import summarise, write_summary

STORY: list[tuple[str, str, Any]] = [
    ("launcher", "run", b.run(stop={"seconds": 60.0, "env_steps": 500})),
    ("launcher", "spawned", b.spawned("actor-0")),
    ("tracker", "phase", {"phase": "running", "reason": "", "failed": False, "launch": 1}),
    ("actor-0", "progress", b.progress(100, 300)),
    ("actor-0", "episode", b.episode(4.0)),
    ("actor-0", "episode", b.episode(None)),
    ("learner-p", "update", b.update(3, 2)),
    ("tracker", "clock", {"seconds": 12.5, "duplicates": 1}),
]
ENDED = ("tracker", "phase", {"phase": "ended", "reason": "500 env steps were reached", "failed": False, "launch": 1})


def make(folder: Path, *story: tuple[str, str, Any]) -> Ledger:
    ledger = Ledger(folder / "ledger.sqlite")
    sequences: dict[str, int] = {}
    with ledger.commit():
        for source, kind, body in story:
            sequences[source] = sequences.get(source, 0) + 1
            ledger.append([(source, b.ONE, sequences[source], 1_000_000_000, kind, json.dumps(body))])
    return ledger


def test_the_summary_of_a_run_that_ended(tmp_path: Path) -> None:
    make(tmp_path, *STORY, ENDED).close()
    path = write_summary(tmp_path)
    summary = json.loads(path.read_text())
    assert summary == json.loads(json.dumps(summarise(tmp_path)))
    assert [summary[key] for key in ("run", "state", "reason", "seconds", "env_steps", "agent_steps", "seed")] == [
        "spread", "ended", "500 env steps were reached", 12.5, 100, 300, 7,
    ]  # fmt: skip
    policy = summary["policies"]["p"]
    assert (policy["version"], policy["return_first"], policy["return_mean"], policy["episodes"]) == (
        [1, 3],
        4.0,
        4.0,
        1,
    )
    assert policy["staleness"] == {"median": 2, "p95": 2}
    assert policy["fragments"]["consumed"] == 2
    assert summary["facts"] == {"stored": 9, "duplicates": 1, "refused": 0}
    assert summary["restarts"] == {"actor-0": 0}
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_the_summary_of_a_run_that_goes_on_and_of_one_that_was_killed(tmp_path: Path) -> None:
    ledger = make(tmp_path, *STORY)
    with RunLock(tmp_path):
        assert summarise(tmp_path)["state"] == "running"
    assert summarise(tmp_path)["state"] == "interrupted"
    ledger.close()
    with pytest.raises(RequestError, match="no ledger"):
        summarise(tmp_path / "nowhere")


def test_the_summary_of_a_run_of_which_nothing_is_known_yet(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.sqlite").close()
    summary = summarise(tmp_path)
    assert summary["state"] == "interrupted"
    assert summary["policies"] == {}


def test_export_to_json_holds_every_fact_once(tmp_path: Path) -> None:
    make(tmp_path, *STORY, ENDED).close()
    out = export(tmp_path, "json", tmp_path / "out" / "facts.json")
    content = json.loads(out.read_text())
    assert content["count"] == 9
    assert list(content["facts"]) == ["run", "spawned", "phase", "progress", "episode", "update", "clock"]
    positions = [fact["position"] for facts in content["facts"].values() for fact in facts]
    assert sorted(positions) == list(range(1, 10))
    assert content["facts"]["episode"][1]["body"]["returns"] == {"agent_0": None}
    assert [path.name for path in out.parent.iterdir()] == ["facts.json"]


def test_export_to_csv_flattens(tmp_path: Path) -> None:
    make(tmp_path, *STORY).close()
    out = export(tmp_path, "csv", tmp_path / "out")
    with (out / "update.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["source"] == "learner-p"
    assert row["losses.policy"] == "0.5"
    assert row["losses.value"] == ""
    assert row["version"] == "[1, 3]"
    with (out / "episode.csv").open(newline="") as file:
        assert [row["returns.agent_0"] for row in csv.DictReader(file)] == ["4.0", ""]


def test_export_to_parquet_has_a_type_for_each_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracker.parquet.ROWS", 2)
    mixed = [
        ("actor-0", "seen", {"n": 1, "x": 1, "flag": True, "what": "a", "time": 5, "big": 2**70, "list": [1, "b"]}),
        ("actor-0", "seen", {"n": None, "x": 2.5, "what": 7, "none": None}),
        ("actor-0", "seen", {"n": -3, "deep": {"er": "c"}}),
    ]
    make(tmp_path, *STORY, *mixed).close()
    out = export(tmp_path, "parquet", tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {
        f"{kind}.parquet" for kind in {kind for _, kind, _ in STORY} | {"seen"}
    }
    episodes = parquet.read_table(out / "episode.parquet")
    assert episodes.column("returns.agent_0").to_pylist() == [4.0, None]
    assert episodes.schema.field("position").type == "int64"
    seen = parquet.read_table(out / "seen.parquet")
    types = {field.name: str(field.type) for field in seen.schema}
    assert {name: of for name, of in types.items() if name not in parquets.OWN} == {
        "n": "int64", "x": "double", "flag": "bool", "what": "string", "body.time": "int64", "big": "string",
        "list": "string", "none": "string", "deep.er": "string",
    }  # fmt: skip
    assert seen.column("position").to_pylist() == [len(STORY) + 1, len(STORY) + 2, len(STORY) + 3]
    assert seen.column("x").to_pylist() == [1.0, 2.5, None]
    assert seen.column("what").to_pylist() == ["a", "7", None]


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *STORY).close()
    monkeypatch.setattr("tracker.export.find_spec", lambda _: None)
    with pytest.raises(RequestError, match=r"pip install 'headrace\[parquet\]'"):
        export(tmp_path, "parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["json", "csv"])
@pytest.mark.parametrize("damage", ["substr(body, 1, 5)", "CAST(x'ff7b7d' AS TEXT)"])
def test_a_body_that_was_damaged_since_is_told_and_mended(tmp_path: Path, to: str, damage: str) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ledger.commit():
        ledger.append([("a", "1" * 32, n, n, "note", json.dumps({"n": n})) for n in range(1, 200)])
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute(f"UPDATE facts SET body = {damage} WHERE position = 60")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerDamaged, match="headrace mend"):
        export(tmp_path, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made = mend(tmp_path)
    assert (made.facts, made.refused, made.why) == (199, 1, "")
    export(tmp_path, to, tmp_path / "out")
    with LedgerReader(tmp_path / "ledger.sqlite") as ledger:
        kinds = {kind for *_, kind, _ in ledger.read_all(0, 59)} | {kind for *_, kind, _ in ledger.read_all(60)}
        assert kinds == {"note"}
        (refused,) = ledger.read(59, 1)
    assert refused[5] == "refused"
    assert json.loads(refused[6])["kind"] == "note"
    with pytest.raises(RequestError, match="is not damaged"):
        mend(tmp_path)


def test_an_export_replaces_no_pipe_and_no_device(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite"):
        pass
    os.mkfifo(tmp_path / "pipe")
    for to in ("json", "csv"):
        with pytest.raises(RequestError):
            export(tmp_path, to, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_where_an_environment_raised_is_said_in_one_line() -> None:
    trace = 'Traceback:\n  File "/home/me/own.py", line 30, in step\n    1 / 0\nZeroDivisionError: no'
    body = {"traceback": trace, "seed": 5, "episode": 2, "step": 19, "environment": 0}
    told = "an environment raised ZeroDivisionError: no at own.py, line 30, in step (seed 5, episode 2, step 19)"
    assert words("environment_error", body) == told


def test_export_refuses_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no ledger at"):
        export(tmp_path, "json", tmp_path / "x.json")
    make(tmp_path, *STORY).close()
    with pytest.raises(RequestError, match="choose one of json, csv, parquet"):
        export(tmp_path, "xml", tmp_path / "x")
    with pytest.raises(RequestError, match="is a folder"):
        export(tmp_path, "json", tmp_path)
    with pytest.raises(RequestError, match="is a file"):
        export(tmp_path, "csv", tmp_path / "ledger.sqlite")


KEYS = [
    "pool",
    "prompts",
    "run",
    "directory",
    "phase",
    "reason",
    "failed",
    "seconds",
    "seconds_left",
    "seed",
    "stop",
    "simulation",
    "env_steps",
    "agent_steps",
    "env_steps_per_second",
    "agent_steps_per_second",
    "episodes",
    "epoch",
    "return_mean",
    "solved_at",
    "roles",
    "policies",
    "waits",
    "events",
    "restarts",
    "facts",
    "quarantined",
    "tasks",
    "alarms",
]


def test_the_document(tmp_path: Path) -> None:
    fold, live = Standings(), Live()
    empty = standings_document(fold, live, 0.0)
    assert sorted(empty) == sorted(KEYS)
    assert live.hello("actor-0", b.ONE, Hello(role="actor", pid=12, host="here"), 0.0)
    assert not live.hello("actor-0", b.ONE, Hello(role="actor", pid=12, host="here"), 1.0)
    live.status(
        "actor-0",
        b.ONE,
        Status(doing="stepping", waits=(("p", "credit", 0.5),), rates={"cpu": float("nan"), "x": 1}),
        1.0,
    )
    live.observe(fold, 0, 0.0)
    for fact in b.facts(*STORY):
        fold.apply(fact)
    live.observe(fold, 8, 2.0)
    live.alarms["disk"] = "the disk is full"
    document = standings_document(fold, live, 2.0, directory=tmp_path, facts=8, seconds=13.0)
    assert sorted(document) == sorted(KEYS)
    json.dumps(document, allow_nan=False)
    assert (document["env_steps_per_second"], document["facts"]["per_second"]) == (50.0, 4.0)
    assert document["seconds_left"] == 47.0
    assert document["stop"] == {"seconds": 60.0, "env_steps": 500}
    role = document["roles"][0]
    assert (role["name"], role["state"], role["doing"], role["age"], role["cpu"]) == (
        "actor-0",
        "alive",
        "stepping",
        2.0,
        None,
    )
    assert document["waits"] == [{"who": "actor-0", "for": "p", "what": "credit", "seconds": 0.5}]
    assert document["policies"]["p"]["versions_per_second"] == 0.5
    assert document["alarms"] == ["the disk is full"]


def test_alive_without_progress_is_stalled() -> None:
    fold, live = Standings(), Live()
    fold.phase = "running"
    live.hello("actor-0", b.ONE, Hello(role="actor", pid=1), 0.0)
    for second in range(1, 40):
        if second <= 5:
            for fact in b.facts(("actor-0", "progress", b.progress())):
                fold.apply(fact)
        live.observe(fold, 0, float(second))
    state = {now: standings_document(fold, live, now)["roles"][0]["state"] for now in (6.0, 19.0, 21.0)}
    assert state == {6.0: "alive", 19.0: "alive", 21.0: "stalled"}
    live.liveness("actor-0", b.ONE, "lost")
    assert standings_document(fold, live, 21.0)["roles"][0]["state"] == "lost"


def test_a_role_whose_watchdog_says_so_is_stalled() -> None:
    fold, live = Standings(), Live()
    live.hello("actor-0", b.ONE, Hello(role="actor", pid=1), 0.0)
    live.status("actor-0", b.ONE, Status(doing="in environment 3's step for 6 s", rates={"stuck": 6.0}), 6.0)
    role = standings_document(fold, live, 6.0)["roles"][0]
    assert (role["state"], role["doing"], role["rates"]) == ("stalled", "in environment 3's step for 6 s", {})
    live.status("actor-0", b.ONE, Status(doing="acting"), 7.0)
    assert standings_document(fold, live, 7.0)["roles"][0]["state"] == "alive"


def test_credit_is_the_sum_of_what_is_known() -> None:
    live = Live()
    assert live.credit("p") is None
    for name, credit in (("actor-0", 3), ("actor-1", None), ("actor-2", 4)):
        live.hello(name, b.ONE, Hello(role="actor", pid=1), 0.0)
        live.status(name, b.ONE, Status(rates={"credit.p": credit}), 0.0)
    assert live.credit("p") == 7
    live.liveness("actor-2", b.ONE, "suspect")
    assert live.credit("p") == 3
    live.liveness("actor-2", b.ONE, "returned")
    assert live.credit("p") == 7


def test_a_role_that_died_is_restarting() -> None:
    folds = standard_folds()
    fold = folds.folds["standings"]
    assert isinstance(fold, Standings)
    for fact in b.facts(*STORY, ("launcher", "exited", b.exited("actor-0"))):
        fold.apply(fact)
    assert standings_document(fold, Live(), 0.0)["roles"][0]["state"] == "restarting"


@pytest.mark.parametrize("place", ["ledger.sqlite", "run.toml", "checkpoints/p~1.1.checkpoint", "link"])
def test_an_export_replaces_no_file_of_a_run(tmp_path: Path, place: str) -> None:
    make(tmp_path, *STORY).close()
    (tmp_path / "checkpoints").mkdir()
    for name in ("run.toml", "checkpoints/p~1.1.checkpoint"):
        (tmp_path / name).write_text("work")
    (tmp_path / "link").symlink_to(tmp_path / "run.toml")
    before = (tmp_path / place).read_bytes()
    with pytest.raises(RequestError, match="is a file of the run in"):
        export(tmp_path, "json", tmp_path / place)
    assert (tmp_path / place).read_bytes() == before
    for _ in range(2):
        export(tmp_path, "json", tmp_path / "export" / "ledger.json")
