from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import files
from broker.errors import RequestError

STRANGERS = 12345
"""A user that is not this one."""


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link(path: Path) -> None:
    (path.parent / "target").write_text("another file")
    path.symlink_to(path.parent / "target")


def hanging(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def stranger(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to another user")
    path.write_text("theirs")
    os.chown(path, STRANGERS, STRANGERS)


PLANTED = (fifo, endless, link, hanging, listener, Path.mkdir, stranger)


@pytest.fixture
def open_mask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize(
    "use",
    [
        files.read,
        files.create,
        lambda path: files.open_file(path, os.O_RDWR | os.O_CREAT),
        lambda path: files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        lambda path: files.write_whole(path, b"ours"),
    ],
)
def test_what_is_planted_is_refused_by_name(
    tmp_path: Path, plant: Callable[[Path], None], use: Callable[[Path], object]
) -> None:
    plant(tmp_path / "token")
    with pytest.raises(RequestError, match=rf"{tmp_path}/token (is|belongs)"):
        use(tmp_path / "token")
    assert not (tmp_path / "nowhere").exists()
    if plant is link:
        assert (tmp_path / "target").read_text() == "another file"


def test_a_link_in_place_of_a_partial_file_leads_nowhere(tmp_path: Path) -> None:
    link(tmp_path / "summary.json.partial")
    with pytest.raises(RequestError, match=r"summary\.json\.partial is a link"):
        files.write_whole(tmp_path / "summary.json", b"{}")
    assert (tmp_path / "target").read_text() == "another file"


def test_reading_has_a_bound(tmp_path: Path) -> None:
    (tmp_path / "owner").write_bytes(b"x" * 64)
    assert files.read(tmp_path / "owner", 64) == b"x" * 64
    os.truncate(tmp_path / "owner", 2**40)
    with pytest.raises(RequestError, match=r"owner has 1,099,511,627,776 bytes"):
        files.read(tmp_path / "owner", 64)
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "nothing")


def test_a_file_of_the_folders_owner_is_as_good_as_ours(tmp_path: Path) -> None:
    (tmp_path / "lent").mkdir()
    stranger(tmp_path / "lent" / "run.toml")
    with pytest.raises(RequestError, match="belongs to another user"):
        files.read(tmp_path / "lent" / "run.toml")
    os.chown(tmp_path / "lent", STRANGERS, STRANGERS)  # a colleague's run, looked at
    assert files.read(tmp_path / "lent" / "run.toml") == b"theirs"


@pytest.mark.usefixtures("open_mask")
def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    os.close(files.create(tmp_path / "created"))
    os.close(files.open_file(tmp_path / "opened", os.O_WRONLY | os.O_CREAT))
    files.write_whole(tmp_path / "whole", b"content")
    files.write_whole(tmp_path / "whole", b"more")
    files.make_folder(tmp_path / "folder")
    files.make_folder(tmp_path / "folder")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"created": 0o600, "opened": 0o600, "whole": 0o600, "folder": 0o700}
    assert (tmp_path / "whole").read_bytes() == b"more"


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "there")
    with pytest.raises(RequestError, match="checkpoints is a link"):
        files.make_folder(tmp_path / "checkpoints")
