"""A lane: the calls of one runner to one endpoint, so many at once, tried again where it makes sense.

    Passing    may be over the next time: 429, 5xx, a timeout, a lost connection, half a response: tried again
      Gone     nobody listens: an endpoint that the run itself has is waited for
    Lasting    this request will never be answered: what failed is the rollout
    RequestError   nobody's will (a wrong key, an unknown model): the run file is to be mended

Invariant: no more than the runner's share is under way at once (a wait before a further try is not); every try
is counted when it is sent. The longest wait is bounded by whoever awaits `complete`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from actors.prompts import keys
from actors.prompts.settings import is_loopback
from actors.prompts.usage import EndpointUsage
from broker.errors import RequestError, Unreachable

ATTEMPT = "X-Headrace-Attempt"
"""Tells the simulation which attempt a request is; other endpoints pass over it."""
LONGEST_WAIT = 60.0
"""Seconds, where the endpoint does not ask for more."""
Messages = Sequence[Mapping[str, Any]]


class CallFailed(Exception):  # noqa: N818 - reads as what happened
    """A chat completion that could not be had; its text is the reason."""


class Lasting(CallFailed):
    """It will not be better the next time."""


class Passing(CallFailed):
    """It may be better the next time, after `after` seconds if the endpoint said so."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Gone(Passing):
    """Nobody listens there: nothing was sent."""


class Place(Protocol):
    """Where an endpoint is."""

    async def url(self) -> str:
        """Its base URL now. Unreachable if it has none."""

    async def returned(self, url: str) -> bool:
        """Nobody listens at `url`: wait until it is elsewhere. False, at once, if it is a place that never moves.

        Unreachable if it did not come back in time.
        """


class Lane:
    """The way to one endpoint. `place` is asked whenever a call is made; `slots` is shared by equal URL and key."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        key: str,
        slots: asyncio.Semaphore,
        place: Place,
    ) -> None:
        self.name, self.settings = name, settings
        self._key, self._slots, self._place = key, slots, place
        self._client: openai.AsyncOpenAI | None = None
        self._served = False

    async def complete(self, messages: Messages, attempt: str, usage: EndpointUsage, options: Mapping[str, Any]) -> str:
        """One completion's text. CallFailed, or RequestError where the run file is to be mended."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + int(self.settings["retries"])),
            wait=self._pause,
            retry=retry_if_exception_type(Passing),
            reraise=True,
        )
        try:
            async for tried in retrying:
                with tried:
                    again = tried.retry_state.attempt_number - 1
                    return await self._found(messages, (attempt, again), usage, options)
        except Passing as error:
            tries = 1 + int(self.settings["retries"])
            raise Lasting(f"{self.name}: {error} ({tries} tries)") from None
        raise AssertionError("a retry gives or raises")

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.close()

    async def _found(
        self, messages: Messages, number: tuple[str, int], usage: EndpointUsage, options: Mapping[str, Any]
    ) -> str:
        """One try. An endpoint of the run that fell is waited for: its fall is nobody's mistake, and costs no try."""
        while True:
            try:
                url = await self._place.url()
                return await self._try(url, messages, number, usage, options)
            except Gone:
                try:
                    if not await self._place.returned(url):
                        raise
                except Unreachable as error:
                    raise Passing(str(error)) from None
            except Unreachable as error:
                raise Passing(str(error)) from None

    async def _try(
        self, url: str, messages: Messages, number: tuple[str, int], usage: EndpointUsage, options: Mapping[str, Any]
    ) -> str:
        client = await self._at(url)
        limit = float(self.settings["timeout_seconds"])
        own = {"model": self.settings["model"], "messages": list(messages)}
        async with self._slots:
            usage.sent(number[1])
            try:
                async with asyncio.timeout(limit):
                    answered = await client.post(
                        "/chat/completions",
                        cast_to=openai.HttpxBinaryResponseContent,
                        body={**self.settings["options"], **options, **own},
                        options={"headers": {ATTEMPT: f"{number[0]}/{number[1]}"}},
                    )
            except asyncio.CancelledError:
                usage.failed += 1
                usage.guess(messages)
                raise
            except (TimeoutError, openai.APIError) as error:
                usage.failed += 1
                raise self._judged(error, usage, messages) from None
        text, told = read_completion(answered.content)
        if told is not None:
            usage.took(*told)
        if text is None:
            usage.failed += 1
            if told is None:
                usage.guess(messages)
            raise Passing("its response is no chat completion")
        self._served = True
        return text

    async def _at(self, base: str) -> openai.AsyncOpenAI:
        if self._client is None or str(self._client.base_url).rstrip("/") != base.rstrip("/"):
            previous = self._client
            # Measured: a call costs 1.3 ms of a core as `chat.completions.create` over the default transport, 0.5 so.
            http = openai.DefaultAioHttpClient(timeout=None, trust_env=not is_loopback(base))
            self._client = openai.AsyncOpenAI(
                api_key=self._key, base_url=base, max_retries=0, timeout=None, http_client=http
            )
            if previous is not None:
                await previous.close()
        return self._client

    def _judged(self, error: Exception, usage: EndpointUsage, messages: Messages) -> Exception:
        """What kind of failure this is."""
        if isinstance(error, TimeoutError):  # ours: the client has none
            usage.guess(messages)
            return Passing(f"no answer within {self.settings['timeout_seconds']:g} s")
        if isinstance(error, openai.APIStatusError):
            return self._refused(error, usage)
        cause = _first(error)
        told = keys.hidden(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__, self._key)
        if isinstance(cause, aiohttp.ClientConnectorError):
            return Gone(f"cannot be reached ({told})")
        usage.guess(messages)
        return Passing(f"the connection was lost before the whole answer was there ({told})")

    def _refused(self, error: openai.APIStatusError, usage: EndpointUsage) -> Exception:
        status, said = error.status_code, keys.hidden(_message(error), self._key)[:500]
        if status == 429:
            usage.throttled += 1
            return Passing(f"429, too many requests ({said})", retry_after(error.response.headers))
        if status >= 500 or status in {408, 409, 425}:
            return Passing(f"{status} ({said})", retry_after(error.response.headers))
        if status == 401:
            where = keys.source(self.name, self.settings)
            return RequestError(f"{where}: the endpoint refuses the key: 401 ({said})")
        if status in {403, 404} and not self._served:
            return RequestError(
                f"endpoints.{self.name}: the endpoint refuses every request: {status} ({said}); check its url and model"
            )
        return Lasting(f"{self.name}: {status} ({said})")

    def _pause(self, state: RetryCallState) -> float:
        first = float(self.settings["backoff_seconds"])
        drawn = wait_random_exponential(multiplier=first, max=max(first, LONGEST_WAIT))(state)
        error = state.outcome.exception() if state.outcome is not None else None
        # Half of the wait is certain, so that a first draw near 0 does not make it none.
        return max(error.after if isinstance(error, Passing) else 0.0, (first + drawn) / 2)


def read_completion(body: bytes) -> tuple[str | None, tuple[int, int] | None]:
    """The text of a completion, None if it is none; and (tokens in, tokens out) where it says so."""
    try:
        whole = json.loads(body)
    except ValueError:
        return None, None
    usage = whole.get("usage") if isinstance(whole, dict) else None
    told = None
    if isinstance(usage, dict):
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
        told = tuple(count if isinstance(count, int) else 0 for count in counts)
    try:
        text = whole["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None, told  # type: ignore[return-value]
    return ("" if text is None else text) if text is None or isinstance(text, str) else None, told  # type: ignore[return-value]


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a response asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date; else 0."""
    import time
    from email.utils import parsedate_to_datetime

    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        given = headers.get(name)
        if given is None:
            continue
        try:
            seconds = float(given) * unit
        except ValueError:
            try:
                # By the server's own clock, where it says what that shows: ours may be set otherwise.
                server = headers.get("date")
                now = time.time() if server is None else parsedate_to_datetime(server).timestamp()
                seconds = parsedate_to_datetime(given).timestamp() - now
            except ValueError:
                continue
        if 0 <= seconds < float("inf"):
            return seconds
    return 0.0


def _first(error: BaseException) -> BaseException:
    """What began it: the transport names a connection that was cut a timeout, and keeps what it really was."""
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, aiohttp.ClientError):
            break
    return error


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return error.response.text.strip() or error.message
