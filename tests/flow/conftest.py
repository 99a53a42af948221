"""What the tests here share: reactors, sockets and addresses that are closed after each test, and two short runs.

The runs have ended well; the tests that look at what a run leaves behind only read them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.reactor import Reactor
from tests.flow.running import Running
from tests.flow.wiring import Reactors, Sockets


@pytest.fixture(scope="session", autouse=True)
def signals() -> None:
    """Runs inherit what is ignored here, as under `nohup`: the tests send them these."""
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Trained until it balances for a while. A checkpoint every half second."""
    home = tmp_path_factory.mktemp("cartpole")
    return ended(home, "cartpole", "--set", "stop.return=150", "--set", "learner.checkpoint_seconds=0.5")


@pytest.fixture(scope="session")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Running:
    home = tmp_path_factory.mktemp("spread")
    return ended(home, "spread", "--seconds", "6")


def ended(home: Path, *arguments: str) -> Running:
    run = Running(home, *arguments, "--seed", "11")
    with run:
        assert run.wait(90) == 0, run.told()
    return run


@pytest.fixture
def reactors() -> Iterator[Reactors]:
    """Makes reactors; at the end each must stop, without having failed, with its context terminated."""
    made: list[Reactor] = []

    def make() -> Reactor:
        made.append(Reactor(f"test-{len(made)}"))
        return made[-1]

    yield make
    for reactor in made:
        reactor.close()
    for reactor in made:
        assert reactor.failure is None
        assert not reactor._thread.is_alive()
        assert reactor.context.closed


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Makes bare sockets; they end with their context."""
    context = zmq.Context()
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int) -> zmq.Socket[bytes]:
        made.append(context.socket(kind))
        return made[-1]

    yield make
    for one in made:
        one.close(0)
    context.term()


@pytest.fixture(params=["tcp", "ipc"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "tcp://127.0.0.1:0" if request.param == "tcp" else f"ipc://{tmp_path}/h"
