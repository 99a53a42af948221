"""What the tests here share: a simulation that answers well, one for each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.actors.simulation import serving


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url
