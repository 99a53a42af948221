"""Addresses: one names a hub's PULL; its XPUB is beside it (the next tcp port, or the ipc path with `.pub`).

Invariants: a hub binds only ipc and loopback addresses unless the user set `insecure`; a spoke connects to an address
from another process only if `is_hub` accepts it.
"""

from __future__ import annotations

import errno
import ipaddress
import random
import re
from pathlib import Path

import zmq

from broker.errors import RequestError

_TCP = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[^\[\]:/]+):(\d{1,5})")
MAX_IPC = 107
URL = r"^[a-z][a-z0-9+.-]{0,15}://[^\x00-\x1f\x7f]+$"
"""Pattern of every address that a role announces: a hub's address, or the URL of an endpoint."""


def publisher(address: str) -> str:
    """The XPUB's address of a hub whose PULL is at `address`."""
    if address.startswith("ipc://"):
        return address + ".pub"
    host, port = split(address)
    return f"tcp://{host}:{port + 1}"


def split(address: str) -> tuple[str, int]:
    """Host and port of a tcp address. RequestError when it is not one."""
    match = _TCP.fullmatch(address)
    if match is None or not int(match[2]) <= 65534:
        raise RequestError(f"address {address!r}: write ipc://PATH or tcp://HOST:PORT, e.g. tcp://127.0.0.1:7400")
    return match[1], int(match[2])


def is_hub(address: str) -> bool:
    """Tell whether a spoke can connect to this address and to its publisher."""
    if address.startswith("ipc://"):
        return len("ipc://") < len(address) and len(publisher(address).removeprefix("ipc://").encode()) <= MAX_IPC
    try:
        return split(address)[1] > 0
    except RequestError:
        return False


def is_ipv6(address: str) -> bool:
    """Whether a socket needs IPv6 for it: such hosts stand in brackets."""
    return "[" in address and address.startswith("tcp://")


def check_bind(address: str, *, insecure: bool) -> None:
    """RequestError if the address may not be bound."""
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://") + ".pub"
        if len(path.encode()) > MAX_IPC:
            raise RequestError(f"address {address!r}: at most {MAX_IPC} bytes fit; use a shorter folder")
        return
    host, _ = split(address)
    if host == "*":
        raise RequestError(f"address {address!r}: name an interface (0.0.0.0 for all): others connect to it too")
    if insecure:
        return
    bare = host.strip("[]")
    try:
        loopback = ipaddress.ip_address(bare).is_loopback
    except ValueError:
        loopback = bare == "localhost"
    if not loopback:
        raise RequestError(
            f"address {address!r} is not loopback: anyone who can reach it could speak to the run; "
            "bind tcp://127.0.0.1:PORT, or set `insecure = true` under [tracker] if the network is trusted"
        )


def bind(pull: zmq.Socket[bytes], publish: zmq.Socket[bytes], address: str) -> str:
    """Bind a hub's two sockets; port 0 takes a free pair. Returns the address. RequestError if it is in use."""
    if address.startswith("ipc://"):
        Path(address.removeprefix("ipc://")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pull.bind(address)
        publish.bind(publisher(address))
        return address
    host, port = split(address)
    attempts = [port] if port else [random.randrange(20_000, 60_000) for _ in range(64)]
    for candidate in attempts:
        chosen = f"tcp://{host}:{candidate}"
        try:
            pull.bind(chosen)
        except zmq.ZMQError as error:
            refused = error
            continue
        try:
            publish.bind(publisher(chosen))
        except zmq.ZMQError as error:
            refused = error
            pull.unbind(chosen)
            continue
        return chosen
    mend = "give an address of this host"
    if refused.errno == errno.EADDRINUSE:
        mend = "its port or the next is in use: choose another, or end the process that holds it"
    raise RequestError(f"address {address}: {refused.strerror or refused}; {mend}")
