"""The simulation's server as a process: the protocol, the faults, the counts."""

from __future__ import annotations

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.scripted.draws import Draws
from actors.scripted.model import read, reply
from actors.scripted.serving import settings_of
from broker.errors import RequestError
from tests.actors.simulation import completion, counts, got, said, serving

TEXT = "How many days are 3 weeks and 3 days?"


def test_it_speaks_the_protocol_and_says_what_it_is() -> None:
    with serving(seed=3) as url:
        (model,) = got(url + "/models")["data"]
        assert model["id"] == "scripted-1"
        assert "simulation" in model["owned_by"]
        status, body = said(url, completion(TEXT), X_Headrace_Attempt="7/0")
        assert status == 200
        messages = completion(TEXT)["messages"]
        text = reply(read(messages), Draws(3, messages, "7"))
        assert body["choices"][0]["message"] == {"role": "assistant", "content": text}
        assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"] > 0
        again = said(url, completion(TEXT), X_Headrace_Attempt="7/3")[1]
        assert again == body, "the try changes faults, never the answer"
        told = counts(url)
        assert (told["requests"], told["answered"], told["repeated"], told["in_flight"]) == (2, 2, 1, 0)
        assert told["tokens_out"] == 2 * body["usage"]["completion_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not JSON"),
        ({"model": "scripted-1"}, 400, "messages"),
        ({"model": "scripted-1", "messages": []}, 400, "messages"),
        ({"model": "scripted-1", "messages": ["x"]}, 400, "messages"),
        (completion(TEXT, stream=True), 400, "stream"),
        ({**completion(TEXT), "model": "gpt"}, 404, "'gpt' does not exist"),
    ],
)
def test_what_is_wrong_is_refused(server: str, body: object, status: int, says: str) -> None:
    before = counts(server)["refused"]
    found, told = said(server, body)
    assert found == status
    assert says in told["error"]["message"]
    assert counts(server)["refused"] == before + 1


def test_a_key_is_asked_for() -> None:
    with serving(key="right") as url:
        assert said(url, completion(TEXT))[0] == 401
        assert said(url, completion(TEXT), Authorization="Bearer wrong")[0] == 401
        assert said(url, completion(TEXT), Authorization="Bearer right")[0] == 200


def test_faults_come_by_rate_and_are_counted_and_do_not_depend_on_order() -> None:
    with serving("rate_429=0.3", "rate_500=0.2", "rate_half=0.2") as url:

        def one(place: int) -> str:
            try:
                return str(said(url, completion(TEXT), X_Headrace_Attempt=f"{place}/0")[0])
            except http.client.IncompleteRead as broken:
                return "half" if broken.partial.startswith(b'{"id"') else "none"

        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(one, range(60)))
        second = [one(place) for place in reversed(range(60))]
        assert first == second[::-1]
        told = counts(url)
        for name, count in (("answered", "200"), ("throttled", "429"), ("errors", "500"), ("half", "half")):
            assert told[name] == 2 * first.count(count) > 0, name
        assert told["requests"] == 120


def test_more_than_its_limit_at_once_is_throttled_and_the_high_water_is_kept() -> None:
    with serving("concurrency=4", "latency_seconds=0.3", "retry_after_seconds=2") as url:
        gate = threading.Barrier(10)

        def one(place: int) -> int:
            gate.wait()
            return said(url, completion(TEXT), X_Headrace_Attempt=str(place))[0]

        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(one, range(10)))
        told = counts(url)
        assert told["throttled"] == statuses.count(429) > 0
        assert told["answered"] == statuses.count(200) >= 4
        assert 4 < told["high_water"] <= 10


def test_settings_that_are_not_taken() -> None:
    assert settings_of(["rate_429=0.5"]).rate_429 == 0.5
    with pytest.raises(RequestError, match="rate_429"):
        settings_of(["rate_429=2"])
    with pytest.raises(RequestError, match="rate_13"):
        settings_of(["rate_13=0.1"])
