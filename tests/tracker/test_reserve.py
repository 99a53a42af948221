"""Room for the end of a run: really there, kept by whoever comes back, given up once."""

from __future__ import annotations

import resource
from pathlib import Path

from tracker.reserve import FILE, Reserve

SIZE = 1024 * 1024


def test_the_room_is_there_until_it_is_given_up(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, SIZE)
    assert reserve.hold()
    assert (tmp_path / FILE).stat().st_blocks * 512 >= SIZE
    assert reserve.release()
    assert not reserve.release()


def test_a_tracker_that_comes_back_without_room_keeps_what_was_held(tmp_path: Path) -> None:
    assert Reserve(tmp_path, SIZE).hold()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        assert Reserve(tmp_path, SIZE).hold()
        (tmp_path / "new").mkdir()
        assert not Reserve(tmp_path / "new", SIZE).hold()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / FILE).stat().st_blocks * 512 >= SIZE
