from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker import addresses
from broker.errors import RequestError


def test_the_publisher_is_beside_the_address() -> None:
    assert addresses.publisher("tcp://127.0.0.1:7400") == "tcp://127.0.0.1:7401"
    assert addresses.publisher("tcp://[::1]:7400") == "tcp://[::1]:7401"
    assert addresses.publisher("ipc:///run/x/tracker") == "ipc:///run/x/tracker.pub"


@pytest.mark.parametrize(
    "address", ["", "udp://1.2.3.4:5", "tcp://host", "tcp://:80", "tcp://a:65535", "tcp://a:1/x", "a"]
)
def test_an_address_that_is_none_says_how_to_write_one(address: str) -> None:
    with pytest.raises(RequestError, match=r"write ipc://PATH or tcp://HOST:PORT"):
        addresses.split(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_loopback_may_be_bound(host: str) -> None:
    addresses.check_bind(f"tcp://{host}:7400", insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "[::]", "example.org", "eth0"])
def test_anything_else_only_when_the_user_says_insecure(host: str) -> None:
    with pytest.raises(RequestError, match="insecure = true"):
        addresses.check_bind(f"tcp://{host}:7400", insecure=False)
    addresses.check_bind(f"tcp://{host}:7400", insecure=True)


def test_a_star_is_no_address_to_connect_to() -> None:
    with pytest.raises(RequestError, match="name an interface"):
        addresses.check_bind("tcp://*:7400", insecure=True)


def test_an_ipc_path_that_does_not_fit_is_refused_with_the_limit() -> None:
    addresses.check_bind("ipc://" + "x" * 103, insecure=False)
    with pytest.raises(RequestError, match="107"):
        addresses.check_bind("ipc://" + "x" * 104, insecure=False)


@pytest.fixture
def pairs() -> Iterator[list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]]:
    context = zmq.Context()
    made = [(context.socket(zmq.PULL), context.socket(zmq.XPUB)) for _ in range(2)]
    yield made
    for pair in made:
        for one in pair:
            one.close(0)
    context.term()


def test_port_zero_takes_a_free_pair(pairs: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]) -> None:
    first, second = (addresses.bind(*pair, "tcp://127.0.0.1:0") for pair in pairs)
    assert abs(addresses.split(first)[1] - addresses.split(second)[1]) >= 2


def test_a_port_in_use_says_what_to_do(pairs: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]) -> None:
    address = addresses.bind(*pairs[0], "tcp://127.0.0.1:0")
    with pytest.raises(RequestError, match="in use: choose another, or end the process"):
        addresses.bind(*pairs[1], address)
    host, port = addresses.split(address)
    with pytest.raises(RequestError, match="or the next is in use"):  # the second port of the pair alone
        addresses.bind(*pairs[1], f"tcp://{host}:{port - 1}")


def test_a_host_that_is_not_here_is_not_called_a_port_in_use(
    pairs: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]],
) -> None:
    with pytest.raises(RequestError, match="give an address of this host"):
        addresses.bind(*pairs[0], "tcp://192.0.2.1:7400")  # of documentation only (RFC 5737)


def test_ipc_makes_its_private_folder(pairs: list[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "s"
    addresses.bind(*pairs[0], f"ipc://{folder}/t")
    assert folder.stat().st_mode & 0o077 == 0
    assert {entry.name for entry in folder.iterdir()} == {"t", "t.pub"}
