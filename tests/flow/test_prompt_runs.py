"""Runs over prompts: they count what the endpoint counts, survive faults, and refuse a wrong request in one message."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from broker.names import task_name
from tests.actors.simulation import counts, serving
from tests.flow.running import START, Running
from tests.flow.test_bad_requests import refused

SMALL = [
    part
    for one in (
        "prompts.training_items=8", "prompts.validation_items=8", "learner.settings.validation_batch=8",
        "learner.settings.rounds=1", "endpoints.answer.backoff_seconds=0.01",
    )
    for part in ("--set", one)
]  # fmt: skip
SECRET = "sk-the-secret-of-this-test"


def at(url: str, *more: str) -> list[str]:
    return ["--set", f"endpoints.answer.url={url}", *(part for one in more for part in ("--set", one))]


def results(run: Running) -> list[dict[str, Any]]:
    return [fact.body["result"] for fact in run.facts("outcome")]


def used(run: Running) -> Counter[str]:
    total: Counter[str] = Counter()
    for result in results(run):
        for usage in result["usage"]:
            total.update({name: value for name, value in usage.items() if isinstance(value, int | float)})
    return total


def outcome_of(run: Running) -> tuple[Any, ...]:
    """What a run came to, in an order that does not depend on who was first."""
    rewards = sorted(
        (r["template"], r["split"], r["item"], r["attempt"], r["reward"], r["answer"])
        for r in results(run)
        if r["do"] == "answer"
    )
    templates = sorted(fact.body["template"] for fact in run.facts("template"))
    (last,) = [fact.body for fact in run.facts("round") if fact.body["round"] == 1]
    return rewards, templates, last["beam"], last["best"], last["best_mean"]


def finished(run: Running) -> None:
    assert run.wait(90) == 0, run.told()
    assert run.facts("finished"), run.told()
    run.check()


def test_four_runners_on_eight_questions_count_what_the_endpoint_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    faults = ("rate_429=0.05", "rate_500=0.05", "rate_half=0.03")
    with serving(*faults, seed=7, key=SECRET) as url:
        more = at(url, "endpoints.answer.key_env=MY_KEY", "endpoints.answer.concurrency=12")
        with Running(tmp_path, "qa", *SMALL, *more, "--seed", "7", run_dir="four") as four:
            finished(four)
        seen = counts(url)
    told = used(four)
    assert told["calls"] == seen["requests"]
    assert told["throttled"] == seen["throttled"] > 0
    assert told["failed"] == seen["requests"] - seen["answered"]
    assert told["tokens_out"] == seen["tokens_out"]
    assert told["tokens_in"] - told["estimated"] == seen["tokens_in"]
    assert Counter(result["do"] for result in results(four))["answer"] == seen["roles"]["answer"]
    assert len({result["runner"] for result in results(four)}) > 1
    assert seen["repeated"] == 0, "nothing was paid for twice"
    assert seen["high_water"] <= 12
    # The key is in no file of the run.
    files = [path for path in four.directory.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.sqlite" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]

    # One runner, the launcher's own simulation, killed on the way, other faults: the same run. It takes longer to come
    # back than all tries do: a fall costs none.
    alone = ["scripted.rate_429=0.1", "scripted.latency_seconds=0.02", "actors.processes=1"]
    with Running(tmp_path, "qa", *SMALL, *at("scripted", *alone), "--seed", "7", run_dir="one") as one:
        one.until(lambda: len(results(one)) > 20, "some results", START)
        one.restarted(one.kill("endpoint-scripted"))
        finished(one)
    assert outcome_of(one) == outcome_of(four)


def test_an_outage_fails_the_run_and_resumed_it_asks_for_what_is_missing(tmp_path: Path) -> None:
    """Trials without a measurement are told, in no mean, and asked for again; what was measured is not."""
    with serving() as url:
        more = at(url, "endpoints.answer.retries=0", "prompts.max_missing_share=0.2")
        run = Running(tmp_path, "qa", *SMALL, *more, "--seed", "5", status=1)
        run.until(lambda: len(results(run)) > 20, "some results", START)
    with run:
        assert run.wait(90) == 1, run.told()
    missing = [fact for fact in run.facts("outcome") if fact.body.get("missing")]
    measured = {task_name(fact.body["task"])[0] for fact in run.facts("outcome") if not fact.body.get("missing")}
    assert missing
    for fact in missing:
        result = fact.body["result"]
        assert "cannot be reached" in result["reason"] or "connection was lost" in result["reason"]
        assert (fact.body["score"], result.get("reward"), result["missing"]) == (None, None, "endpoint")
    assert len(run.facts("endpoint_error")) == len(missing)
    ended = run.last("phase")
    assert ended is not None
    assert ended.body["failed"]
    assert "trials are missing, more than prompts.max_missing_share = 0.2" in ended.body["reason"]
    assert " missing " in run.out.read_text(), "the screen tells it"
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["prompts"]["answerer"]["missing"]["count"] == len(missing)
    asked_before = len(run.facts("outcome"))
    with serving(port=int(url.split(":")[2].split("/")[0])), Running(tmp_path, "--resume") as again:
        finished(again)
    asked = [task_name(fact.body["task"])[0] for fact in again.facts("outcome")[asked_before:]]
    assert not set(asked) & measured, "what was measured is not paid for again"
    assert {task_name(fact.body["task"])[0] for fact in missing} & set(asked)
    assert json.loads((run.directory / "summary.json").read_text())["prompts"]["answerer"]["missing"]["count"] == 0


@contextmanager
def unfriendly() -> Iterator[str]:
    """An endpoint that shows its models to everybody, and completes for nobody."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(401, {"error": {"message": f"no: {self.headers['Authorization']}"}})

        def reply(self, status: int, body: dict[str, Any]) -> None:
            told = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def test_a_key_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with serving(key="another") as url:
        told = refused(tmp_path, "qa", *at(url, "endpoints.answer.key_env=MY_KEY"))
    assert told == f"headrace: endpoints.answer.key_env (MY_KEY): the endpoint {url} refuses the key (401)"
    with unfriendly() as url:
        told = refused(tmp_path, "qa", *at(url, "endpoints.answer.key_env=MY_KEY"), kept=True)
    refusal = "headrace: endpoints.answer.key_env (MY_KEY): the endpoint refuses the key: 401 (no: Bearer ***)"
    assert told.startswith(refusal + "\n")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("endpoints.answer.url=http://127.0.0.1:1/v1", "endpoints.answer.url: http://127.0.0.1:1/v1 cannot be reached"),
        ("endpoints.answer.key_env=NO_SUCH_KEY", "the environment variable NO_SUCH_KEY is not set"),
        ("prompts.template=No place for it.", "prompts.template: has no placeholder"),
        ("prompts.training=mine.jsonl", "prompts.template: has {question}, which no task of mine.jsonl fills"),
    ],
)
def test_what_is_found_before_a_process_starts(tmp_path: Path, setting: str, says: str) -> None:
    (tmp_path / "mine.jsonl").write_text('{"answer": "4"}\n')
    assert says in refused(tmp_path, "qa", "--set", setting)


def test_what_only_a_runner_can_find(tmp_path: Path) -> None:
    told = refused(tmp_path, "qa", "--set", "prompts.agent=nowhere:answer", kept=True)
    assert told.startswith("headrace: prompts.agent 'nowhere:answer': cannot import 'nowhere': ModuleNotFoundError: ")
