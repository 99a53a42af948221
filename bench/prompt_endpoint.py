"""The simulation in a process of its own, with a note of when each request came and went.

Invariant: what is noted is what the server itself sees: from the first line of a request to the last byte of its
answer. Nothing of the server is changed; a layer is put around it.

    python -m bench.prompt_endpoint '{"latency_seconds": 0.2, ...}'    its URL as JSON, then at its end the times
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from actors.scripted.server import Simulation
from actors.scripted.serving import HOST
from actors.scripted.settings import Scripted
from bench.children import options

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(simulation: Simulation) -> list[tuple[float, float]]:
    """Serve until standard input ends; (came, went) of each completion, s of the wall clock."""
    times: list[tuple[float, float]] = []

    @web.middleware
    async def noting(request: web.Request, handler: Handler) -> web.StreamResponse:
        came = time.time()
        try:
            return await handler(request)
        finally:
            if request.method == "POST":
                times.append((came, time.time()))

    application = simulation.application()
    application.middlewares.append(noting)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, backlog=4096).start()
    print(json.dumps({"url": f"http://{HOST}:{runner.addresses[0][1]}/v1"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
    return times


def main() -> None:
    """One endpoint."""
    asked = options()
    simulation = Simulation(Scripted.model_validate(asked["settings"]), asked["seed"])
    times = asyncio.run(serve(simulation))
    print(json.dumps({"times": times, "counts": simulation.counts.plain()}), flush=True)


if __name__ == "__main__":
    main()
