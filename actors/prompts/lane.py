"""A lane: the calls of one runner to one endpoint, with limited concurrency and with retries where they can help.

`completion` reads what an endpoint sends, and `failures` classifies it: a TransientFailure is retried, a
PermanentFailure fails the rollout, and a RequestError ends the run, because the run file is wrong.

Invariant: no more than the runner's share is under way at once (a wait before a further try is not); every try
is counted when it is sent; no text that a lane returns or raises contains the key. The caller of `complete` limits the
longest wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from actors.prompts import keys
from actors.prompts.client import make_client
from actors.prompts.completion import Reply, quoted, read_reply
from actors.prompts.failures import ConnectionFailed, Fault, PermanentFailure, TransientFailure, verdict
from actors.prompts.usage import EndpointUsage
from broker.errors import RequestError, Unreachable

ATTEMPT = "X-Headrace-Attempt"
"""Tells the simulation which attempt a request is; other endpoints pass over it."""
LONGEST_WAIT = 60.0
"""Seconds, where the endpoint does not ask for more."""
Messages = Sequence[Mapping[str, Any]]


class Place(Protocol):
    """Where an endpoint is."""

    async def url(self) -> str:
        """Its base URL now. Unreachable if it has none."""

    async def returned(self, url: str) -> bool:
        """Wait until the endpoint has moved away from `url`, where no process listens. False at once if it never moves.

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
            retry=retry_if_exception_type(TransientFailure),
            reraise=True,
        )
        try:
            async for tried in retrying:
                with tried:
                    again = tried.retry_state.attempt_number - 1
                    return await self._found(messages, (attempt, again), usage, options)
        except TransientFailure as error:
            tries = 1 + int(self.settings["retries"])
            raise PermanentFailure(f"{self.name}: {error} ({tries} tries)") from None
        except PermanentFailure as error:
            raise PermanentFailure(f"{self.name}: {error}", error.missing) from None
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
            except ConnectionFailed:
                try:
                    if not await self._place.returned(url):
                        raise
                except Unreachable as error:
                    raise TransientFailure(str(error)) from None
            except Unreachable as error:
                raise TransientFailure(str(error)) from None

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
                response: Any = answered.response
            except openai.APIStatusError as error:
                response = error.response
            except asyncio.CancelledError:
                usage.failed += 1
                usage.took(messages)
                raise
            except (TimeoutError, openai.APIError, aiohttp.ClientError, PermanentFailure) as error:
                usage.failed += 1
                failure = self._unanswered(error)
                if not isinstance(failure, ConnectionFailed):
                    usage.took(messages)
                usage.trouble = str(failure)
                raise failure from None
        return self._read(response, messages, usage)

    def _read(self, response: Any, messages: Messages, usage: EndpointUsage) -> str:
        """Return the text of a response, or raise the failure that it describes."""
        reply = read_reply(response.status_code, response.headers.get("content-type", ""), response.content)
        paid = response.status_code < 300
        if paid or reply.tokens_in is not None:
            usage.took(messages, reply.text or "", reply.tokens_in, reply.tokens_out)
        if reply.text is not None:
            self._served = True
            return keys.hidden(reply.text, self._key)
        usage.failed += 1
        failure = self._failure(reply, response.headers)
        usage.throttled += response.status_code == 429
        usage.trouble = str(failure)
        raise failure

    async def _at(self, base: str) -> openai.AsyncOpenAI:
        if self._client is None or str(self._client.base_url).rstrip("/") != base.rstrip("/"):
            previous, self._client = self._client, make_client(base, self._key)
            if previous is not None:
                await previous.close()
        return self._client

    def _unanswered(self, error: Exception) -> Exception:
        """Return the failure for a response that did not come or could not be read."""
        if isinstance(error, PermanentFailure):
            return error
        if isinstance(error, TimeoutError):  # ours: the client has none
            return TransientFailure(f"no answer within {self.settings['timeout_seconds']:g} s")
        cause = _first(error)
        reason = self._quoted(f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__)
        if isinstance(cause, aiohttp.ClientConnectorError):
            return ConnectionFailed(f"cannot be reached ({reason})")
        return TransientFailure(f"the connection was lost before the whole answer had come ({reason})")

    def _failure(self, reply: Reply, headers: Mapping[str, str]) -> Exception:
        """Return the failure for a response without an answer."""
        if reply.fault is None:
            return PermanentFailure(self._quoted(reply.unfinished or "it says nothing"), None)
        status, message, _ = fault = reply.fault
        if status is not None and 300 <= status < 400:
            place = self._quoted(headers.get("location", "nowhere"))
            fault = Fault(status, f"a redirect to {place}, which is not followed: prompts would go there")
            message = fault.message
        reason = f"{status} ({self._quoted(message)})" if status is not None else self._quoted(message)
        match verdict(fault, served=self._served):
            case "key":
                where = keys.source(self.name, self.settings)
                return RequestError(f"{where}: the endpoint refuses the key: {reason}")
            case "request":
                return RequestError(
                    f"endpoints.{self.name}: the endpoint refuses every request: {reason}; check its url and model"
                )
            case "again":
                reason = f"429, too many requests ({self._quoted(message)})" if status == 429 else reason
                return TransientFailure(reason, retry_after(headers))
            case "account":
                return PermanentFailure(f"the account has no credit: {reason}", "account")
            case "endpoint":
                return PermanentFailure(reason)
            case "candidate":
                return PermanentFailure(reason, None)

    def _quoted(self, text: str) -> str:
        """Shorten a text from outside and hide the key in it, so that it may be recorded."""
        return quoted(keys.hidden(text, self._key))

    def _pause(self, state: RetryCallState) -> float:
        first = float(self.settings["backoff_seconds"])
        drawn = wait_random_exponential(multiplier=first, max=max(first, LONGEST_WAIT))(state)
        error = state.outcome.exception() if state.outcome is not None else None
        # Half of the wait is certain, so that a first draw near 0 does not make it none.
        return max(error.after if isinstance(error, TransientFailure) else 0.0, (first + drawn) / 2)


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
                # Relative to the server's clock, if the response has a Date: our clock may differ.
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
