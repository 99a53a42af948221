"""What an endpoint says over real HTTP: its words are kept, its size is bounded, its tokens counted, its key hidden."""

from __future__ import annotations

import gzip
import json
import resource
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.prompts.client import MAX_RESPONSE_BYTES
from actors.prompts.completion import QUOTED, read_reply
from actors.prompts.failures import Fault, verdict
from actors.prompts.preflight import reach
from broker.errors import RequestError
from tests.actors.simulation import answering, completing, one, resolved

MODEL_HEADERS = {"Content-Type": "application/json"}


class Endpoint(ThreadingHTTPServer):
    """Answers every request alike, and notes their bodies."""

    daemon_threads = True

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.response = status, body, {**MODEL_HEADERS, "Content-Length": str(len(body)), **headers}
        self.requests: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer()

    def answer(self) -> None:
        status, body, headers = self.server.response
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def endpoint(body: Any, status: int = 200, **headers: str) -> Iterator[Endpoint]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with Endpoint(status, content, named) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def completion(content: Any, finish: str = "stop", usage: Any = None, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"choices": [choice], "usage": usage or {"prompt_tokens": 50, "completion_tokens": 10}}


def answered(body: Any, status: int = 200, **headers: str) -> tuple[dict[str, Any], int]:
    """The result of one rollout with three tries, and how often the endpoint was asked."""
    with endpoint(body, status, **headers) as server:
        result, _ = one(resolved(server.url, retries=2))
        return result, len(server.requests)


# --- words


@pytest.mark.parametrize(
    ("body", "status", "says", "missing", "tries"),
    [
        ({"error": {"message": "maximum context length is 4096 tokens", "code": 400}}, 200,
         "400 (maximum context length is 4096 tokens)", None, 1),
        ({"error": {"message": "maximum context length is 4096 tokens"}}, 400, "400 (maximum context length", None, 1),
        ({"error": {"message": "blocked by the content filter", "code": "content_filter"}}, 400, "400 (bl", None, 1),
        ({"error": {"message": "upstream is overloaded", "code": 503}}, 200, "503 (upstream is over", "endpoint", 3),
        ({"error": "the model crashed"}, 200, "the model crashed", "endpoint", 3),
        ({"choices": [{"error": {"message": "no credit", "code": 402}}]}, 200, "402 (no credit)", "account", 1),
        ({"error": {"message": "over quota", "code": "insufficient_quota"}}, 429, "429 (over quota)", "account", 1),
        ({"error": {"message": "Insufficient Balance"}}, 402, "402 (Insufficient Balance)", "account", 1),
        (b"<title>Sign in to Campus WiFi</title>", 200, "Sign in to Campus WiFi", "endpoint", 3),
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', 200, "an event stream", "endpoint", 1),
        ({"detail": "a page of another program"}, 200, "a page of another program", "endpoint", 3),
        (b"", 200, "an empty body", "endpoint", 3),
        (b"x" * 100_000, 413, "413 (xxx", None, 1),
        (completion(None, "length"), 200, "finish_reason 'length': max_tokens were used up", None, 1),
        (completion("", "tool_calls", tool_calls=[{}]), 200, "finish_reason 'tool_calls': it calls a tool", None, 1),
        (completion(None, refusal="I will not."), 200, "the model refuses: I will not.", None, 1),
    ],
)  # fmt: skip
def test_a_response_without_an_answer_is_a_failure_in_its_words(
    body: Any, status: int, says: str, missing: str | None, tries: int
) -> None:
    """A fault of the surroundings is no measurement; what another try cannot mend is asked for once."""
    result, asked = answered(body, status)
    assert says in result["reason"]
    assert (result["failed"], result["missing"], asked) == (True, missing, tries)
    assert result["reward"] == (None if missing else 0.0)
    assert len(result["reason"]) < QUOTED + 100
    assert result["reason"].isprintable()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "for"}, {"type": "text", "text": "ty"}], "forty"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "40"}], "40"),
        ("", ""),
        (None, ""),
    ],
)
def test_parts_are_read_as_text(content: Any, text: str) -> None:
    result, _ = answered(completion(content))
    assert (result["answer"], result["failed"]) == (text, False)


def test_a_redirect_is_not_followed_and_its_target_named() -> None:
    with endpoint({}) as other:
        place = f"{other.url}/chat/completions"
        for status in (301, 307, 308):
            with pytest.raises(RequestError, match=rf"answer: .* {status} \(a redirect to {place}, which is not foll"):
                answered(b"moved", status, Location=place)
        with (
            endpoint(b"", 302, Location=place) as here,
            pytest.raises(RequestError, match=rf"redirects to {place}; write"),
        ):
            reach({"answer": {"url": here.url, "key_env": None, "key_file": None}})
        assert not other.requests


def test_what_is_refused_after_an_answer_is_an_outage() -> None:
    """A model that disappears fails every template; a prompt that the endpoint refuses is the template's fault."""
    assert verdict(Fault(404, "no such model"), served=False) == "request"
    assert verdict(Fault(404, "no such model"), served=True) == "endpoint"
    assert verdict(Fault(400, "temperature is not supported"), served=False) == "endpoint"
    assert verdict(Fault(400, "a bad character in the prompt"), served=True) == "candidate"
    assert verdict(Fault(403, "your input was flagged"), served=True) == "candidate"
    assert verdict(Fault(429, "too many tokens per minute, too long a queue"), served=True) == "again"
    assert verdict(Fault(500, "the request took too long"), served=True) == "again"
    assert verdict(Fault(500, "the context size is exceeded"), served=True) == "candidate"


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**20), 10**20) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["error", "choices", "message", "content", "usage", "code", "prompt_tokens", "finish_reason"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from([200, 302, 404, 500]), json_values | st.binary(max_size=40))
def test_any_body_is_a_text_or_says_why_not(status: int, body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = read_reply(status, "application/json", content)
    assert (reply.text is None) == (reply.fault is not None or reply.unfinished is not None)
    assert reply.text is None or status == 200
    assert reply.fault is None or reply.fault.message


def test_a_body_that_is_nested_too_deep_is_quoted() -> None:
    assert read_reply(200, "", b'{"error":' * 100_000).fault is not None


@pytest.mark.parametrize(
    ("content", "finish", "text", "unfinished"),
    [
        ("<think>2 + 2</think>\n4", "stop", "4", None),
        ("<think>2 + 2", "length", None, "finish_reason 'length'"),
        ("<think>2 + 2</think>", "stop", None, "a thought without an answer after it: <think>2 + 2"),
        ("", "stop", "", None),
    ],
)
def test_read_reply_leaves_out_thoughts(content: str, finish: str, text: str | None, unfinished: str | None) -> None:
    choice = {"message": {"content": content}, "finish_reason": finish}
    reply = read_reply(200, "application/json", json.dumps({"choices": [choice]}).encode())
    assert reply.text == text
    assert (unfinished or "") in (reply.unfinished or "")
    assert (reply.unfinished is None) == (unfinished is None)


# --- bounds


def bomb(layers: int = 1) -> bytes:
    """64 MiB of blanks, in some 64 KB of gzip; in another layer of it, in some hundred bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    blanks = b" " * 2**20
    packed = b"".join(packer.compress(blanks) for _ in range(64)) + packer.flush()
    return gzip.compress(packed) if layers > 1 else packed


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (bomb(), {"Content-Encoding": "gzip"}, "larger than 8 MiB"),
        (bomb(2), {"Content-Encoding": "gzip, gzip"}, "encoded as 'gzip, gzip'"),
        (b" " * (MAX_RESPONSE_BYTES + 1), {}, "larger than 8 MiB"),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_a_response_is_bounded(body: bytes, headers: dict[str, str], says: str, status: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result, asked = answered(body, status, **headers)
    assert says in result["reason"]
    assert (result["missing"], asked) == ("endpoint", 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024


def test_headers_are_bounded() -> None:
    result, _ = answered(completion("40"), **{f"X_{n}": "a" * 4000 for n in range(500)})
    assert "the connection was lost" in result["reason"]
    assert result["missing"] == "endpoint"


def test_a_compressed_answer_is_read() -> None:
    result, _ = answered(gzip.compress(json.dumps(completion("40")).encode()), Content_Encoding="gzip")
    assert result["answer"] == "40"


# --- keys


def test_a_key_in_a_good_answer_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = 'sk-very/"secret'
    monkeypatch.setenv("MY_KEY", secret)
    escaped = json.dumps(secret)[1:-1].replace("/", "\\/")
    for body in (
        completion(f"your key is {secret}."),
        completion([{"type": "text", "text": f"your key is {secret}."}]),
        f"<p>your key is {secret}</p>".encode(),
        f'{{"keys": "{escaped}"}}'.encode(),
        completion(None, refusal=f"not with {secret}"),
    ):
        with endpoint(body) as server:
            run = resolved(server.url, retries=0, key_env="MY_KEY")
            results = [one(run, task) for task in (answering(0), completing("edit", "x"))]
        said = json.dumps([(result, list(outcome.facts)) for result, outcome in results])
        assert "***" in said
        assert secret not in said
        assert json.dumps(secret)[1:-1] not in said
        assert "secret" not in said


# --- tokens


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 50.0, "completion_tokens": 9.5}, (50, 10, 0)),
        ({"prompt_tokens": 50, "completion_tokens": None}, (50, None, None)),
        ({"prompt_tokens": "50", "completion_tokens": 10}, (None, 10, None)),
        ({"prompt_tokens": -50, "completion_tokens": True}, (None, None, None)),
        ({"prompt_tokens": 1e300, "completion_tokens": float("nan")}, (None, None, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, (None, None, None)),
        ([50, 10], (None, None, None)),
        ("50", (None, None, None)),
    ],
)
def test_tokens_that_are_not_said_are_estimated(usage: Any, counted: tuple[int | None, ...]) -> None:
    text = "the answer is forty"
    with endpoint(completion(text, usage=usage)) as server:
        result, _ = one(resolved(server.url, price_in=1e6, price_out=1e6))
        prompt = server.requests[0]["messages"][0]["content"]
    (used,) = result["usage"]
    tokens_in, tokens_out, estimated = counted
    prompt_tokens, text_tokens = len(prompt) // 4 + 1, len(text) // 4 + 1
    assert used["tokens_in"] == (prompt_tokens if tokens_in is None else tokens_in)
    assert used["tokens_out"] == (text_tokens if tokens_out is None else tokens_out)
    if estimated is None:
        estimated = (prompt_tokens if tokens_in is None else 0) + (text_tokens if tokens_out is None else 0)
    assert used["estimated"] == estimated
    assert used["cost"] == pytest.approx(used["tokens_in"] + used["tokens_out"])
    assert not result["failed"]


def test_an_answer_after_failures_keeps_what_they_took() -> None:
    """A page under status 200 may have been paid for; a refusal was not."""
    page, _ = answered(b"<p>wait</p>")
    assert page["usage"][0]["estimated"] == page["usage"][0]["tokens_in"] > 0
    refused, _ = answered({"error": {"message": "busy"}}, 503)
    assert (refused["usage"][0]["calls"], refused["usage"][0]["tokens_in"]) == (3, 0)


def test_a_run_that_is_late_says_what_it_waited_for() -> None:
    with endpoint({"error": {"message": "slow down"}}, 429, Retry_After="60") as server:
        result, _ = one(resolved(server.url, prompts={"rollout_seconds": 2.0}))
    assert result["reason"] == "not done within 2 s (the last failure: 429, too many requests (slow down))"
    assert result["missing"] == "time"
    assert result["usage"][0]["throttled"] == 1
