"""Serving the simulation on a port of 127.0.0.1, as a role of a run or alone.

    python -m actors.scripted [--port N] [--seed N] [--set KEY=VALUE]... [--key-env NAME]

Invariant: it listens on loopback only, and says where on its first line of output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from actors.scripted.server import NOTICE, Simulation
from actors.scripted.settings import Scripted
from broker.errors import RequestError

HOST = "127.0.0.1"


async def start(simulation: Simulation, port: int = 0) -> tuple[web.AppRunner, str]:
    """Listen; the running application and its base URL, `http://127.0.0.1:PORT/v1`. Port 0: any that is free."""
    runner = web.AppRunner(simulation.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port, backlog=4096)
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise RequestError(f"port {port}: {error.strerror}") from None
    return runner, f"http://{HOST}:{runner.addresses[0][1]}/v1"


async def serve(simulation: Simulation, port: int, told: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `told` is given the URL."""
    runner, url = await start(simulation, port)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    told(url)
    try:
        await ended.wait()
    finally:
        await runner.cleanup()


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m actors.scripted", description=f"An endpoint ({NOTICE}).")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of [scripted]")
    parser.add_argument("--key-env", metavar="NAME", help="the variable with the key to ask for; none: no key")
    return parser.parse_args(given)


def settings_of(pairs: Sequence[str]) -> Scripted:
    """`KEY=VALUE` pairs as settings. RequestError for one that is not taken."""
    plain: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            plain[key] = json.loads(value)
        except ValueError:
            plain[key] = value
    try:
        return Scripted.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise RequestError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def main() -> None:
    """The program."""
    given = arguments(sys.argv[1:])
    try:
        simulation = Simulation(
            settings_of(given.set), given.seed, os.environ[given.key_env] if given.key_env else None
        )
        asyncio.run(
            serve(simulation, given.port, lambda url: print(json.dumps({"url": url, "is": NOTICE}), flush=True))
        )
    except (RequestError, KeyError) as error:
        sys.exit(f"headrace: {error}")
