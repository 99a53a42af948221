"""The run's clock, and that nothing else reads the wall clock."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from broker import clock
from broker.names import new_incarnation

ROOT = Path(__file__).parents[2]
HOUR = 3600 * 10**9
WALL_CLOCK = re.compile(r"\btime\.(?:time|time_ns|localtime|gmtime)\b|\bdatetime\.(?:now|today|utcnow)\b")
READERS = {
    "launcher/launch.py": "sets the run's clock",
    "launcher/directory.py": "names new run directories; ages of files",
    "launcher/sockets.py": "ages of files",
    "actors/prompts/lane.py": "an endpoint's Retry-After as a date, without a Date",
}


@given(st.lists(st.tuples(st.integers(0, 2**61), st.integers(0, 3)), min_size=1, max_size=8))
def test_the_clock_goes_forward_whatever_the_wall_clock_does(launches: list[tuple[int, int]]) -> None:
    """Each launch finds another wall clock, and some processes of it leave something in the ledger."""
    ledger: list[str] = []
    for wall, starts in launches:
        newest = max(map(clock.born, ledger), default=0)
        offset = clock.begin(wall, newest)
        begun = [new_incarnation(offset) for _ in range(1 + starts)]
        assert clock.born(begun[0]) >= wall
        assert [*ledger, *begun] == sorted(ledger) + sorted(begun)
        assert not ledger or begun[0] > max(ledger)
        assert clock.now(offset) >= clock.born(begun[-1])
        ledger += begun


def test_a_launch_begins_with_the_wall_clock_where_that_is_ahead() -> None:
    offset = clock.begin(5 * HOUR, 4 * HOUR)
    assert 0 <= clock.now(offset) - 5 * HOUR < HOUR
    behind = clock.begin(3 * HOUR, 4 * HOUR)
    assert 0 < clock.now(behind) - 4 * HOUR < HOUR


def test_no_decision_reads_the_wall_clock() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for folder in ("broker", "actors", "learners", "tracker", "launcher")
        for path in (ROOT / folder).rglob("*.py")
        if WALL_CLOCK.search(path.read_text(encoding="utf-8"))
    }
    assert readers <= READERS.keys(), f"the wall clock may be set back: read the run's (broker/clock.py): {readers}"
