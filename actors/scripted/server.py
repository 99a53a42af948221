"""The simulation's HTTP server: POST /v1/chat/completions, GET /v1/models, GET /counts.

One request header is its own: `X-Headrace-Attempt: ATTEMPT/TRY`. The attempt tells requests with equal messages apart,
the try tells how often this one was made before: the answer depends on the attempt, faults on both.

Invariant: every request is counted once under what came of it, and `in_flight` is what is under way now.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from actors.scripted.draws import Draws
from actors.scripted.faults import Counts, fault_of, latency_of
from actors.scripted.model import read, reply, text_of
from actors.scripted.settings import MODEL, Scripted
from broker.errors import RequestError

ATTEMPT = "X-Headrace-Attempt"
NOTICE = "simulation: scripted answers, no language model"
LONGEST_SECONDS = 3600.0
"""For which a request that is never answered is held."""


class Simulation:
    """One server's state: its settings, its seed, and what it has counted."""

    def __init__(self, settings: Scripted, seed: int, key: str | None = None) -> None:
        self.settings, self.seed, self.key = settings, seed, key
        self.counts = Counts()
        self._answered: set[bytes] = set()
        self._journal: int | None = None
        if settings.journal is not None:
            try:
                self._journal = os.open(settings.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            except OSError as error:
                raise RequestError(f"scripted.journal: {settings.journal}: {error.strerror}") from None

    def application(self) -> web.Application:
        """What aiohttp serves."""
        application = web.Application(client_max_size=16 * 2**20)
        application.add_routes(
            [
                web.post("/v1/chat/completions", self._completions),
                web.get("/v1/models", self._models),
                web.get("/counts", self._tell),
            ]
        )
        return application

    async def _models(self, request: web.Request) -> web.Response:
        if not self._allowed(request):
            return _refusal(401, "wrong key")
        listed = {"id": MODEL, "object": "model", "created": 0, "owned_by": NOTICE}
        return web.json_response({"object": "list", "data": [listed]})

    async def _tell(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts.plain())

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        counts = self.counts
        counts.requests += 1
        counts.in_flight += 1
        counts.high_water = max(counts.high_water, counts.in_flight)
        try:
            return await self._served(request)
        finally:
            counts.in_flight -= 1

    async def _served(self, request: web.Request) -> web.StreamResponse:
        counts, settings = self.counts, self.settings
        wrong, asked = await self._understood(request)
        if wrong is not None:
            counts.refused += 1
            return wrong
        attempt, _, again = request.headers.get(ATTEMPT, "").partition("/")
        draws = Draws(self.seed, asked["messages"], attempt)
        if self._journal is not None:
            os.write(self._journal, json.dumps({"key": draws.key.hex(), "try": again}).encode() + b"\n")
        if settings.concurrency and counts.in_flight > settings.concurrency:
            return self._throttled()
        fault = fault_of(settings, draws, again)
        if fault == "timeout":
            counts.timeouts += 1
            await asyncio.sleep(LONGEST_SECONDS)
        await asyncio.sleep(latency_of(settings, draws, again))
        if fault == "429":
            return self._throttled()
        if fault == "500":
            counts.errors += 1
            return _refusal(500, "the simulation has drawn an error")
        role, body = self._completion(asked["messages"], draws)
        if fault == "half":
            counts.half += 1
            return await _half(request, json.dumps(body).encode())
        self._count(role, body, draws)
        return web.json_response(body)

    async def _understood(self, request: web.Request) -> tuple[web.Response | None, dict[str, Any]]:
        if not self._allowed(request):
            return _refusal(401, "wrong key"), {}
        try:
            asked = await request.json()
        except ValueError:
            return _refusal(400, "the body is not JSON"), {}
        if not isinstance(asked, dict) or not _well_formed(asked.get("messages")):
            return _refusal(400, "messages: a list of {role, content}"), {}
        if asked.get("model") != MODEL:
            return _refusal(404, f"the model {asked.get('model')!r} does not exist; this simulation has {MODEL!r}"), {}
        if asked.get("stream"):
            return _refusal(400, "stream: the simulation does not stream"), {}
        return None, asked

    def _allowed(self, request: web.Request) -> bool:
        if self.key is None:
            return True
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self.key.encode())

    def _throttled(self) -> web.Response:
        self.counts.throttled += 1
        after = f"{self.settings.retry_after_seconds:g}"
        return _refusal(429, "too many requests", {"Retry-After": after})

    def _completion(self, messages: list[dict[str, Any]], draws: Draws) -> tuple[str, dict[str, Any]]:
        asked = read(messages)
        text = reply(asked, draws, broken=self.settings.rate_broken_edit, empty=self.settings.rate_empty)
        tokens_in = sum(tokens_of(text_of(message.get("content"))) for message in messages)
        tokens_out = tokens_of(text)
        return asked.role, {
            "id": f"chatcmpl-{draws.key.hex()[:24]}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "system_fingerprint": NOTICE,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            },
        }

    def _count(self, role: str, body: Mapping[str, Any], draws: Draws) -> None:
        counts = self.counts
        counts.answered += 1
        counts.roles[role] += 1
        counts.tokens_in += body["usage"]["prompt_tokens"]
        counts.tokens_out += body["usage"]["completion_tokens"]
        counts.repeated += draws.key in self._answered
        self._answered.add(draws.key)


def tokens_of(text: str) -> int:
    """How many tokens a text is taken to have: one for four characters, and at least one."""
    return max(1, (len(text) + 3) // 4)


def _well_formed(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) and "content" in m for m in messages)
    )


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"error": {"message": message, "type": NOTICE, "code": status}}
    return web.json_response(body, status=status, headers=headers)


async def _half(request: web.Request, body: bytes) -> web.StreamResponse:
    """Promise the whole body, write half of it, and hang up."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
