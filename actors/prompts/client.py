"""The HTTP client of one endpoint: openai's client, without redirects and with a bound on responses.

Invariants: a response's body is bounded before and after decompression, whatever its status (a megabyte of gzip may
hold a gigabyte), while aiohttp bounds the headers; requests go only to the URL of the run file.
"""

from __future__ import annotations

from typing import Any

import openai

from actors.prompts.failures import PermanentFailure
from actors.prompts.settings import is_loopback

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
"""Ten times the longest answer of today's models (128,000 tokens are about 700 KB of JSON)."""
ENCODINGS = ("", "identity", "gzip", "deflate")
"""Accepted content encodings. Several layers of encoding would multiply the size that a small body can expand to."""


class BoundedClient(openai.DefaultAioHttpClient):
    """An aiohttp client that bounds responses. A call costs 0.5 ms of a core; openai's default transport costs 1.3."""

    async def send(self, request: Any, **how: Any) -> Any:
        """Send a request and read the whole response. PermanentFailure if the response is too large."""
        response = await super().send(request, **{**how, "stream": True, "follow_redirects": False})
        try:
            encoding = response.headers.get("content-encoding", "").strip().lower()
            if encoding not in ENCODINGS:
                raise PermanentFailure(f"its response is encoded as {encoding[:80]!r}, which was not requested")
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_RESPONSE_BYTES:
                    raise PermanentFailure(f"its response is larger than {MAX_RESPONSE_BYTES // 2**20} MiB")
        finally:
            await response.aclose()
        response.headers.pop("content-encoding", None)  # `body` is already decoded
        return type(response)(response.status_code, headers=response.headers, content=bytes(body), request=request)


def make_client(base: str, key: str) -> openai.AsyncOpenAI:
    """Make a client for the endpoint at `base`. The client itself never retries and has no timeout."""
    http = BoundedClient(
        timeout=None,
        trust_env=not is_loopback(base),
        headers={"Accept-Encoding": "gzip, deflate"},
    )
    return openai.AsyncOpenAI(api_key=key, base_url=base, max_retries=0, timeout=None, http_client=http)
