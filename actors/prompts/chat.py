"""The chat that an agent is given: it says messages, and gets a text.

Invariant: calls with equal messages within one rollout are told apart by how many of them came before, so that what the
simulation answers does not depend on which of several calls at once was first.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from actors.prompts import keys
from actors.prompts.lane import Lane
from actors.prompts.settings import RESERVED_OPTIONS, SCRIPTED, endpoint_name, share
from actors.prompts.usage import Usage
from actors.services import Services
from broker.errors import RequestError


class Chat:
    """`await chat("...")`: one rollout's way to the endpoints. Tries again by itself; CallFailed when it gives up."""

    def __init__(self, lanes: Mapping[str, Lane], attempt: str, usage: Usage) -> None:
        self._lanes, self._attempt, self._usage = lanes, attempt, usage
        self._said: Counter[str] = Counter()

    async def __call__(
        self, messages: str | Sequence[Mapping[str, Any]], *, endpoint: str = "answer", **options: Any
    ) -> str:
        """The reply to a text (said by the user) or to messages of `{"role", "content"}`.

        `endpoint`: answer, critique or edit. `options` go into the request: temperature, max_tokens and the like.
        """
        lane = self._lanes.get(endpoint)
        if lane is None:
            raise ValueError(f"no endpoint is named {endpoint!r}: take one of {', '.join(self._lanes)}")
        if reserved := sorted(options.keys() & RESERVED_OPTIONS):
            raise ValueError(f"{reserved[0]!r} may not be an option of a call: Headrace sets it")
        told = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        same = json.dumps([lane.name, told], sort_keys=True, default=str)
        before = self._said[same]
        self._said[same] += 1
        attempt = f"{self._attempt}.{before}" if before else self._attempt
        prices = float(lane.settings["price_in"]), float(lane.settings["price_out"])
        return await lane.complete(told, attempt, self._usage.of(lane.name, *prices), options)


def make_lanes(run: Mapping[str, Any], index: int, services: Services) -> dict[str, Lane]:
    """Role -> lane, for runner `index`. RequestError if a key is not where the run file says."""
    endpoints, runners = run["endpoints"], int(run["actors"]["processes"])
    slots: dict[tuple[str, str], asyncio.Semaphore] = {}
    lanes: dict[str, Lane] = {}
    for name in ("answer", "critique", "edit"):
        settings = endpoints.get(name)
        if not settings:
            continue
        key = keys.read(name, settings)
        most = share(int(settings["concurrency"]), runners, index)
        if most < 1:
            raise RequestError(f"endpoints.{name}.concurrency: runner {index} of {runners} is left without a call")
        own = slots.setdefault((settings["url"], key), asyncio.Semaphore(most))
        lanes[name] = Lane(
            name, settings, key, own, _Found(services) if settings["url"] == SCRIPTED else _Fixed(settings["url"])
        )
    return {role: lanes[endpoint_name(endpoints, role)] for role in ("answer", "critique", "edit")}


class _Fixed:
    """A URL of the run file."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def url(self) -> str:
        return self._url

    async def returned(self, url: str) -> bool:
        return False


class _Found:
    """The simulation, wherever the launcher's process of it is."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def url(self) -> str:
        return await self._services.found(SCRIPTED)

    async def returned(self, url: str) -> bool:
        await self._services.moved(SCRIPTED, url)
        return True
