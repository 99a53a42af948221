"""Rollouts over real HTTP: every failure has its reason and its cost, and calls stay in bounds."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from actors.prompts.lane import retry_after
from actors.prompts.preflight import reach
from actors.prompts.rollout import attempt_of
from actors.prompts.settings import is_loopback
from actors.scripted.draws import Draws
from actors.scripted.model import read, reply
from broker.errors import RequestError
from tests.actors.simulation import (
    GOOD_TEMPLATE,
    SEED_TEMPLATE,
    answering,
    completing,
    counts,
    one,
    published,
    resolved,
    result_of,
    rolling,
    serving,
)


def test_a_rollout_names_everything_and_counts_what_it_took(server: str) -> None:
    before = counts(server)
    result, outcome = one(resolved(server, price_in=1.0, price_out=2.0), answering(3, GOOD_TEMPLATE), GOOD_TEMPLATE)
    told = {name: result[name] for name in ("do", "item", "split", "attempt", "runner", "failed")}
    assert told == {
        "do": "answer", "item": 3, "split": "validation", "attempt": 1, "runner": "actor-0", "failed": False,
    }  # fmt: skip
    assert outcome.score == result["reward"] in (0.0, 1.0)
    (usage,) = result["usage"]
    after = counts(server)
    assert usage["calls"] == after["requests"] - before["requests"] == 1
    assert usage["tokens_in"] == after["tokens_in"] - before["tokens_in"]
    assert usage["tokens_out"] == after["tokens_out"] - before["tokens_out"]
    assert usage["cost"] == pytest.approx((usage["tokens_in"] + 2 * usage["tokens_out"]) / 1e6)
    assert (usage["endpoint"], usage["failed"], usage["retries"], usage["estimated"]) == ("answer", 0, 0, 0)


def test_the_same_seed_gives_the_same_results_in_any_order(server: str) -> None:
    async def all_of(order: list[int]) -> dict[int, Any]:
        async with rolling(resolved(server, concurrency=8)) as rollout:
            found = await asyncio.gather(*(result_of(rollout, answering(item)) for item in order))
        return {item: result for item, (result, _) in zip(order, found, strict=True)}

    assert asyncio.run(all_of(list(range(16)))) == asyncio.run(all_of(list(range(15, -1, -1))))


def test_a_completion_is_told_apart_by_its_task(server: str) -> None:
    text = "How often does the letter s occur in the word possession?"
    rollout = [one(resolved(server), completing("critique", text, f"critique/{n}"))[0] for n in range(12)]
    again = one(resolved(server), completing("critique", text, "critique/3@life-2"))[0]
    assert len({result["text"] for result in rollout}) > 1
    assert again["text"] == rollout[3]["text"]
    assert again == {**rollout[3]}
    messages = [{"role": "user", "content": text}]
    assert again["text"] == reply(read(messages), Draws(1, messages, attempt_of("critique/3")))
    assert (again["role"], again["failed"], again["reason"]) == ("critique", False, None)
    assert again["usage"][0]["endpoint"] == "answer", "an endpoint of its own it has not"


@pytest.mark.parametrize(
    ("fault", "counted", "says"),
    [
        ("rate_429=1", "throttled", "429, too many requests"),
        ("rate_500=1", "errors", "500 (the simulation has drawn an error)"),
        ("rate_half=1", "half", "the connection was lost before the whole answer had come"),
        ("rate_timeout=1", "timeouts", "no answer within 0.2 s"),
    ],
)
def test_an_outage_is_a_missing_trial_with_its_reason(fault: str, counted: str, says: str) -> None:
    with serving(fault, "retry_after_seconds=0.01") as url:
        result, outcome = one(resolved(url, retries=3, timeout_seconds=0.2))
        told = counts(url)
    assert (result["reward"], result["failed"], result["missing"]) == (None, True, "endpoint")
    assert (outcome.score, outcome.missing) == (None, True)
    assert says in result["reason"]
    assert "4 tries" in result["reason"]
    (usage,) = result["usage"]
    assert usage["calls"] == usage["failed"] == told["requests"] == told[counted] == 4
    assert usage["retries"] == 3
    assert usage["throttled"] == (4 if counted == "throttled" else 0)
    paid = counted in {"half", "timeouts"}
    assert (usage["estimated"] > 0) == paid
    assert usage["estimated"] == usage["tokens_in"]
    ((kind, body),) = outcome.facts
    assert kind == "endpoint_error"
    assert body["reason"] == result["reason"]


def test_storms_pass_and_change_no_answer(server: str) -> None:
    async def all_of(url: str) -> list[dict[str, Any]]:
        async with rolling(resolved(url, concurrency=8, retries=12, timeout_seconds=0.5)) as rollout:
            found = await asyncio.gather(*(result_of(rollout, answering(item)) for item in range(24)))
        return [result for result, _ in found]

    with serving("rate_429=0.3", "rate_500=0.1", "rate_half=0.1", "rate_timeout=0.03") as url:
        stormy, told = asyncio.run(all_of(url)), counts(url)
    calm = asyncio.run(all_of(server))
    assert [(r["answer"], r["reward"]) for r in stormy] == [(r["answer"], r["reward"]) for r in calm]
    assert sum(r["usage"][0]["calls"] for r in stormy) == told["requests"]
    assert sum(r["usage"][0]["throttled"] for r in stormy) == told["throttled"] > 0
    assert sum(r["usage"][0]["failed"] for r in stormy) == told["requests"] - told["answered"]
    assert sum(r["usage"][0]["retries"] for r in stormy) == told["requests"] - 24


def test_retry_after_is_kept(server: str) -> None:
    """With a wait of its own of nearly none, only what the server asks for can take this long."""
    with serving("rate_429=1", "retry_after_seconds=0.4") as url:
        begun = time.monotonic()
        result, _ = one(resolved(url, retries=2, backoff_seconds=0.0))
        assert time.monotonic() - begun >= 0.8
    assert result["usage"][0]["calls"] == 3


def test_what_a_response_may_say_of_waiting() -> None:
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "2"}) == 2.0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) > 3e8
    dates = {"retry-after": "Fri, 01 Jan 2100 00:00:07 GMT", "date": "Fri, 01 Jan 2100 00:00:00 GMT"}
    assert retry_after(dates) == 7.0, "by the server's clock, whatever ours shows"
    for nonsense in ("soon", "nan", "-1", "inf", ""):
        assert retry_after({"retry-after": nonsense}) == 0.0


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_runner_keeps_to_its_share(index: int) -> None:
    async def many(url: str) -> None:
        async with rolling(resolved(url, processes=3, concurrency=8), index) as rollout:
            assert rollout.at_once > (3, 3, 2)[index]
            await asyncio.gather(*(result_of(rollout, answering(item)) for item in range(24)))

    with serving("latency_seconds=0.05") as url:
        asyncio.run(many(url))
        assert counts(url)["high_water"] == (3, 3, 2)[index], "eight for three runners"


def test_roles_with_one_url_and_key_share_their_calls(server: str) -> None:
    run = resolved(server, concurrency=3)
    run["endpoints"]["critique"] = dict(run["endpoints"]["answer"], model="scripted-1", price_in=5.0)

    async def many() -> list[Any]:
        tasks = [*(answering(n) for n in range(9)), *(completing("critique", "x", f"c/{n}") for n in range(9))]
        async with rolling(run) as rollout:
            return await asyncio.gather(*(result_of(rollout, task) for task in tasks))

    with serving("latency_seconds=0.05") as url:
        for endpoint in ("answer", "critique"):
            run["endpoints"][endpoint]["url"] = url
        results = asyncio.run(many())
        assert counts(url)["high_water"] == 3
    assert {r["usage"][0]["endpoint"] for r, _ in results} == {"answer", "critique"}


def test_a_wrong_key_ends_it_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-wrong-secret")
    with serving(key="right") as url, pytest.raises(RequestError) as caught:
        one(resolved(url, key_env="MY_KEY"))
    assert str(caught.value) == "endpoints.answer.key_env (MY_KEY): the endpoint refuses the key: 401 (wrong key)"


def test_an_unknown_model_ends_it(server: str) -> None:
    with pytest.raises(RequestError, match=r"404 \(the model 'scripted-9' does not exist.*check its url and model"):
        one(resolved(server, model="scripted-9"))


def test_an_endpoint_that_is_gone_is_a_reason(server: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        result, outcome = one(resolved(url, retries=1))
    assert "cannot be reached" in result["reason"]
    assert result["failed"]
    assert [kind for kind, _ in outcome.facts] == ["endpoint_error"]
    (usage,) = result["usage"]
    assert (usage["calls"], usage["failed"], usage["estimated"]) == (2, 2, 0), "what reached nobody costs nothing"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/v1", True), ("http://localhost/v1", True), ("http://[::1]:80/v1", True),
        ("https://api.example.com/v1", False), ("http://10.0.0.1/v1", False), ("http://localhost.example.com", False),
    ],
)  # fmt: skip
def test_which_endpoints_are_of_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) is here


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_for_what_is_on_this_machine(
    server: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody is there
    result, _ = one(resolved(server, retries=0))
    assert not result["failed"], result["reason"]
    reach({"answer": {"url": server, "key_env": None, "key_file": None}})


def test_a_rollout_that_takes_too_long(server: str) -> None:
    with serving("rate_timeout=1") as url:
        result, _ = one(resolved(url, prompts={"rollout_seconds": 0.2}))
    assert (result["reward"], result["missing"], result["reason"]) == (None, "time", "not done within 0.2 s")
    (usage,) = result["usage"]
    assert (usage["calls"], usage["failed"]) == (1, 1)
    assert usage["estimated"] > 0


def test_no_key_stands_in_what_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Even where an endpoint repeats it."""
    secret = "sk-very-secret-key"
    monkeypatch.setenv("MY_KEY", secret)

    async def echoing() -> tuple[dict[str, Any], Any]:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            body = json.dumps({"error": {"message": f"you said {head}"}}).encode()
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n")
            writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            async with rolling(resolved(url, key_env="MY_KEY")) as rollout:
                outcome = await rollout.run(answering(0), published(SEED_TEMPLATE))
        return dict(outcome.result or {}), outcome.facts

    result, facts = asyncio.run(echoing())
    assert "400" in result["reason"]
    assert "Bearer ***" in result["reason"]
    assert secret not in json.dumps([result, list(facts)])
