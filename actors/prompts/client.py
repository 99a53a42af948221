"""The HTTP client of one endpoint: openai's, which follows no redirect and reads no more than an answer can be.

Invariant: a response's body is bounded before and after it is decompressed, whatever its status (a megabyte of gzip may
hold a gigabyte); aiohttp bounds the headers. What is sent goes to the address of the run file alone.
"""

from __future__ import annotations

from typing import Any

import openai

from actors.prompts.failures import PermanentFailure
from actors.prompts.settings import is_loopback

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
"""Ten times the longest answer of today's models (128,000 tokens are about 700 KB of JSON)."""
ENCODINGS = ("", "identity", "gzip", "deflate")
"""Those that are asked for. Each layer of several would multiply what a small body can become."""


class BoundedClient(openai.DefaultAioHttpClient):
    """Measured: a call costs 1.3 ms of a core as `chat.completions.create` over the default transport, 0.5 so."""

    async def send(self, request: Any, **how: Any) -> Any:
        """The response, with its body read. PermanentFailure for one that is too large."""
        response = await super().send(request, **{**how, "stream": True, "follow_redirects": False})
        try:
            encoding = response.headers.get("content-encoding", "").strip().lower()
            if encoding not in ENCODINGS:
                raise PermanentFailure(f"its response is encoded as {encoding[:80]!r}, which was not asked for")
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_RESPONSE_BYTES:
                    raise PermanentFailure(f"its response is larger than {MAX_RESPONSE_BYTES // 2**20} MiB")
        finally:
            await response.aclose()
        response.headers.pop("content-encoding", None)  # of the body as it was sent, not as it was read
        return type(response)(response.status_code, headers=response.headers, content=bytes(body), request=request)


def make_client(base: str, key: str) -> openai.AsyncOpenAI:
    """A client for the endpoint at `base`. It tries nothing again, and has no time limit of its own."""
    http = BoundedClient(
        timeout=None,
        trust_env=not is_loopback(base),
        headers={"Accept-Encoding": "gzip, deflate"},
    )
    return openai.AsyncOpenAI(api_key=key, base_url=base, max_retries=0, timeout=None, http_client=http)
