"""Two short runs that have ended well; the tests that look at what a run leaves behind share them, and only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flow.running import Running


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
