from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.errors import DamagedCheckpoint, RequestError
from broker.messages import CheckpointOffer
from tests.tracker.bodies import ONE, TWO
from tracker.checkpoints import CHUNK, CheckpointStore, newest_valid, read_chunk
from tracker.lock import RunLock, holder, is_held

CONTENT = os.urandom(2 * CHUNK + 77)


def offer(number: int, content: bytes = CONTENT, *, score: float | None = None, policy: str = "p") -> CheckpointOffer:
    digest = hashlib.sha256(content).hexdigest()
    return CheckpointOffer(
        offer=number, policy=policy, version=(1, number), size=len(content), sha256=digest, score=score
    )


def put(store: CheckpointStore, number: int, content: bytes = CONTENT, **more: object) -> dict:
    made = offer(number, content, **more)
    store.begin(ONE, made)
    for index in range(0, len(content), CHUNK):
        store.write(made.policy, index // CHUNK, content[index : index + CHUNK])
    assert store.complete(made.policy)
    return store.finish(made.policy)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_comes_back_in_chunks_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    body = put(store, 1, score=3.0)
    assert body["version"] == [1, 1]
    assert body["best"]
    found, skipped = store.newest_valid("p")
    assert found is not None
    path, manifest = found
    assert (manifest.version, manifest.score, skipped) == ((1, 1), 3.0, [])
    assert b"".join(read_chunk(path, index) for index in range(3)) == CONTENT
    assert read_chunk(path, 3) == b""
    assert store.newest_valid("other") == (None, [])


def test_chunks_are_taken_in_order_and_a_resent_offer_goes_on(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    made = offer(4)
    assert store.begin(ONE, made) == 0
    assert store.write("p", 1, CONTENT[CHUNK : 2 * CHUNK]) == 0
    assert store.write("p", 0, CONTENT[:CHUNK]) == 1
    assert store.write("p", 0, CONTENT[:CHUNK]) == 1
    assert store.begin(ONE, made) == 1
    assert store.begin(ONE, offer(3)) is None
    assert store.begin(ONE, offer(5)) == 0  # a newer one replaces it
    assert store.begin(TWO, offer(1)) == 0  # as does one of a newer incarnation
    assert names(tmp_path) == ["p~1.1.checkpoint.partial"]
    store.close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("chunk", [b"", CONTENT[: CHUNK - 1], CONTENT[:CHUNK] + b"x"])
def test_a_chunk_of_the_wrong_length_drops_the_offer(tmp_path: Path, chunk: bytes) -> None:
    store = CheckpointStore(tmp_path)
    store.begin(ONE, offer(1))
    with pytest.raises(DamagedCheckpoint, match="chunk 0"):
        store.write("p", 0, chunk)
    assert names(tmp_path) == []


def test_bytes_that_were_not_offered_never_get_a_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.begin(ONE, offer(1, b"abcd"))
    store.write("p", 0, b"abcx")
    with pytest.raises(DamagedCheckpoint, match="were offered"):
        store.finish("p")
    assert names(tmp_path) == []


def test_the_newest_five_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    best = [
        put(store, n, b"%d" % n, score=s)["best"] for n, s in enumerate([1.0, 9.0, None, 9.0, float("nan"), 2.0], 1)
    ]
    put(store, 1, b"q", policy="p-1")
    assert best == [True, True, False, False, False, False]
    assert [manifest.version[1] for manifest in store.manifests("p")] == [6, 5, 4, 2]
    assert len(names(tmp_path)) == 10
    assert store.best("p").version == (1, 2)


def test_a_flipped_byte_is_skipped_and_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number in (1, 2, 3, 4):
        put(store, number)
    newest = tmp_path / "p~1.4.checkpoint"
    content = bytearray(newest.read_bytes())
    content[CHUNK + 5] ^= 1
    newest.write_bytes(content)
    os.truncate(tmp_path / "p~1.3.checkpoint", 100)
    (tmp_path / "p~1.2.checkpoint.json").write_text('{"policy": "p"')
    found, skipped = CheckpointStore(tmp_path).newest_valid("p")
    assert found is not None
    assert found[1].version == (1, 1)
    reasons = dict(skipped)
    assert "sha256" in reasons["p~1.4.checkpoint"]
    assert "100 bytes" in reasons["p~1.3.checkpoint"]
    assert "manifest" in reasons["p~1.2.checkpoint.json"]


def test_a_manifest_cannot_point_out_of_the_folder(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    put(store, 1)
    beside = tmp_path / "p~1.1.checkpoint.json"
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "file": "../p"}))
    assert store.newest_valid("p")[0] is None


WRITER = """
import hashlib, sys, pathlib
from broker.messages import CheckpointOffer
from tracker.checkpoints import CheckpointStore
store = CheckpointStore(pathlib.Path(sys.argv[1]))
for number in range(1, 10_000):
    content = number.to_bytes(4, "big") * 50_000
    digest = hashlib.sha256(content).hexdigest()
    size = len(content)
    store.begin("1" * 32, CheckpointOffer(offer=number, policy="p", version=(1, number), size=size, sha256=digest))
    store.write("p", 0, content)
    print(store.finish("p")["version"][1], flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_killed_at_any_instant_what_was_finished_is_whole(tmp_path: Path, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    finished = 0
    assert writer.stdout is not None
    for line in writer.stdout:
        finished = int(line)
        if finished == after:
            writer.send_signal(signal.SIGKILL)
    writer.wait(10)
    writer.stdout.close()
    store = CheckpointStore(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".partial")]
    found, skipped = store.newest_valid("p")
    assert found is not None
    assert found[1].version[1] >= finished
    assert skipped == []


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_version_that_is_offered_again_is_whole_whenever_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    store = CheckpointStore(tmp_path)
    put(store, 1)
    more = CONTENT + b"more"
    store.begin(ONE, offer(1, more))
    for index in range(3):
        store.write("p", index, more[index * CHUNK : (index + 1) * CHUNK])
    done: list[str] = []
    rename = Path.rename

    def dying(path: Path, target: Path) -> Path:
        if not target.name.endswith(".coming") and len(done) == renames:
            raise KeyboardInterrupt  # as good as a kill: nothing of ours handles it
        done.extend([] if target.name.endswith(".coming") else [target.name])
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", dying)
    if renames < 2:
        with pytest.raises(KeyboardInterrupt):
            store.finish("p")
    else:
        store.finish("p")
    monkeypatch.undo()
    size = len(more) if renames else len(CONTENT)
    for look in (lambda: newest_valid(tmp_path, "p"), lambda: CheckpointStore(tmp_path).newest_valid("p")):
        found, skipped = look()
        assert found is not None
        assert (found[1].size, found[0].stat().st_size) == (size, size)
    assert skipped == []
    assert names(tmp_path) == ["p~1.1.checkpoint", "p~1.1.checkpoint.json"]


def test_leftovers_of_a_write_are_swept(tmp_path: Path) -> None:
    put(CheckpointStore(tmp_path), 1)
    for name in ("p~1.2.checkpoint.partial", "p~1.5.checkpoint.json.partial", "p~1.6.checkpoint.json.coming"):
        (tmp_path / name).write_text("half")
    assert len(CheckpointStore(tmp_path).swept) == 3
    assert names(tmp_path) == ["p~1.1.checkpoint", "p~1.1.checkpoint.json"]


def test_a_checkpoint_that_lost_its_manifest_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    put(CheckpointStore(folder), 1)
    put(CheckpointStore(folder), 2)
    (folder / "p~1.2.checkpoint.json").unlink()
    (folder / "p~1.1.checkpoint").rename(tmp_path / "elsewhere")  # someone needed the room for a while
    found, skipped = CheckpointStore(folder).newest_valid("p")
    assert names(folder) == ["p~1.1.checkpoint.json", "p~1.2.checkpoint"]
    assert found is None
    assert dict(skipped)["p~1.2.checkpoint"] == "it has no manifest"
    (tmp_path / "elsewhere").rename(folder / "p~1.1.checkpoint")
    found, _ = CheckpointStore(folder).newest_valid("p")
    assert found is not None


@pytest.mark.parametrize("kills", [0, 1, 2, 3])
def test_a_rotation_is_finished_wherever_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    put(store, 1)
    done: list[str] = []

    def dying(method: str) -> None:
        real = getattr(Path, method)

        def step(path: Path, *more: object, **options: object) -> object:
            if "1.1" in path.name:
                if len(done) == kills:
                    raise KeyboardInterrupt  # as good as a kill: nothing of ours handles it
                done.append(method)
            return real(path, *more, **options)

        monkeypatch.setattr(Path, method, step)

    dying("rename")
    dying("unlink")
    if kills < 3:
        with pytest.raises(KeyboardInterrupt):
            put(store, 2)
    else:
        put(store, 2)
    assert len(done) == kills
    monkeypatch.undo()
    CheckpointStore(tmp_path)
    whole = ["p~1.2.checkpoint", "p~1.2.checkpoint.json"]
    assert names(tmp_path) == (whole if kills else ["p~1.1.checkpoint", "p~1.1.checkpoint.json", *whole])


def test_what_is_planted_is_a_damaged_checkpoint(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(CheckpointStore(tmp_path), number)
    (tmp_path / "p~1.3.checkpoint").unlink()
    os.mkfifo(tmp_path / "p~1.3.checkpoint")
    (tmp_path / "p~1.2.checkpoint.json").unlink()
    (tmp_path / "p~1.2.checkpoint.json").symlink_to("/dev/zero")
    found, skipped = CheckpointStore(tmp_path).newest_valid("p")
    assert found is not None
    assert found[1].version == (1, 1)
    assert "FIFO" in dict(skipped)["p~1.3.checkpoint"]
    with pytest.raises(DamagedCheckpoint, match="FIFO"):
        read_chunk(tmp_path / "p~1.3.checkpoint", 0)


def test_a_run_is_locked_once(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert is_held(tmp_path)
        assert holder(tmp_path) == os.getpid()
        with pytest.raises(RequestError, match=rf"\(process {os.getpid()}\).*another --run-dir"):
            RunLock(tmp_path)
    assert not is_held(tmp_path)
    RunLock(tmp_path).release()


def test_a_killed_holder_hinders_nobody(tmp_path: Path) -> None:
    taking = f"held = tracker.lock.RunLock(pathlib.Path({str(tmp_path)!r}))"
    code = f"import pathlib, tracker.lock; {taking}; print('held', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RequestError, match=f"process {other.pid}"):
        RunLock(tmp_path)
    other.kill()
    other.wait(10)
    other.stdin.close()
    other.stdout.close()
    with RunLock(tmp_path):
        assert holder(tmp_path) == os.getpid()
