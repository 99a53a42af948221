"""Checkpoints on disk: taken in chunks, written whole or not at all, the newest few and the best kept.

Invariants: a file under its final name is whole, synced and has the checksum that was offered; beside it lies a
manifest (`.json`) that names policy, version, size and sha256; a start removes the files of an interrupted write; only
the rotation removes a checkpoint, and marks it on disk first: a checkpoint that lost its manifest is kept.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from broker.errors import DamagedCheckpoint, RequestError, RunError
from broker.files import PARTIAL, create, make_folder, open_file, read, sync_folder, write_whole
from broker.messages import CheckpointOffer

CHUNK = 1024 * 1024
"""Bytes in every chunk but the last."""
FOLDER = "checkpoints"
COMING = ".coming"
"""Behind the name of a manifest whose checkpoint is about to take its place: the same version may be offered again."""
GOING = ".going"
"""Suffix of the manifest of a checkpoint that is being removed. No checkpoint is removed without it."""


class CheckpointsFull(RunError):  # noqa: N818 - as broker.errors names them
    """There is no room for a checkpoint; nothing of it was kept, and the offer can be made again."""


@dataclass(frozen=True)
class Manifest:
    """What lies beside a checkpoint: the body of its fact, without `best`."""

    policy: str
    version: tuple[int, int]
    file: str
    size: int
    sha256: str
    score: float | None = None

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Manifest:
        """From its JSON. KeyError, TypeError or ValueError if it is not one."""
        life, number = plain["version"]
        file = str(plain["file"])
        if Path(file).name != file:
            raise ValueError(f"the file {file!r} is not a plain name")
        score = plain.get("score")
        return cls(
            str(plain["policy"]), (int(life), int(number)), file, int(plain["size"]), str(plain["sha256"]),
            None if score is None else float(score),
        )  # fmt: skip


@dataclass(slots=True)
class _Arrival:
    incarnation: str
    offer: CheckpointOffer
    path: Path
    file: BinaryIO
    digest: Any
    chunks: int = 0
    size: int = 0


class CheckpointStore:
    """The folder of checkpoints of a run. One offer a policy is open at a time."""

    def __init__(self, folder: Path, keep: int = 5) -> None:
        """Open the folder (made if it is not there) and sweep it."""
        self.folder = Path(folder)
        make_folder(self.folder)
        self.keep = keep
        self._open: dict[str, _Arrival] = {}
        self.swept = self._sweep()

    def _sweep(self) -> list[str]:
        """Remove the files of an interrupted write or removal; keep every checkpoint that is not marked for removal."""
        for coming in self.folder.glob(f"*.json{COMING}"):  # an interrupted `finish`: was the file renamed already?
            manifest = _manifest(coming)
            if manifest is not None and flaw(self.folder, manifest) is None:
                coming.rename(coming.with_name(coming.name.removesuffix(COMING)))
        names = {path.name for path in self.folder.iterdir()}
        going = {name.removesuffix(f".json{GOING}") for name in names if name.endswith(f".checkpoint.json{GOING}")}
        # With a manifest as well, the same version was offered again: that checkpoint stays.
        going = {name for name in going & names if f"{name}.json" not in names}
        left = {name for name in names if name.endswith((PARTIAL, COMING))}
        last = {name for name in names if name.endswith(GOING)}
        swept = [*sorted(going | left), *sorted(last)]
        for name in swept:
            (self.folder / name).unlink()
        return swept

    # --- writing

    def begin(self, incarnation: str, offer: CheckpointOffer) -> int | None:
        """Take an offer, in place of an older one of its policy. Gives the chunks that are there already.

        The same offer again goes on where it was; an older one than the open one gives None.
        """
        current = self._open.get(offer.policy)
        if current is not None:
            if (current.incarnation, current.offer.offer) > (incarnation, offer.offer):
                return None
            if (current.incarnation, current.offer.offer) == (incarnation, offer.offer):
                return current.chunks
            self.abandon(offer.policy)
        path = self.folder / f"{_name(offer)}{PARTIAL}"
        try:
            make_folder(self.folder)  # somebody may have removed it
            file = os.fdopen(create(path), "wb")
        except OSError as error:
            raise _failure(error, path) from error
        self._open[offer.policy] = _Arrival(incarnation, offer, path, file, hashlib.sha256())
        return 0

    def write(self, policy: str, index: int, chunk: bytes | memoryview) -> int:
        """The chunk `index` of the open offer: taken if it is the next, else passed over. Gives the chunks there are.

        DamagedCheckpoint (the offer is dropped): a chunk of the wrong length. CheckpointsFull: no room.
        """
        arrival = self._open[policy]
        if index != arrival.chunks:
            return arrival.chunks
        due = min(CHUNK, arrival.offer.size - arrival.size)
        if len(chunk) != due or due == 0:
            self.abandon(policy)
            raise DamagedCheckpoint(f"chunk {index} of {arrival.path.name} has {len(chunk)} bytes, not {due}")
        try:
            arrival.file.write(chunk)
        except OSError as error:
            self.abandon(policy)
            raise _failure(error, arrival.path) from error
        arrival.digest.update(chunk)
        arrival.chunks += 1
        arrival.size += len(chunk)
        return arrival.chunks

    def complete(self, policy: str) -> bool:
        """Whether every byte of the open offer is there."""
        arrival = self._open.get(policy)
        return arrival is not None and arrival.size == arrival.offer.size

    def finish(self, policy: str) -> dict[str, Any]:
        """Sync, verify, name and rotate. Gives the body of the `checkpoint` fact, which must be committed next.

        DamagedCheckpoint: size or checksum is not what was offered. CheckpointsFull: no room. Both drop the offer.
        """
        arrival = self._open[policy]
        offer = arrival.offer
        try:
            arrival.file.flush()
            os.fsync(arrival.file.fileno())
        except OSError as error:
            self.abandon(policy)
            raise _failure(error, arrival.path) from error
        found = arrival.digest.hexdigest()
        if arrival.size != offer.size or found != offer.sha256:
            self.abandon(policy)
            raise DamagedCheckpoint(
                f"{arrival.path.name}: {arrival.size} bytes with sha256 {found[:12]}... arrived, "
                f"{offer.size} with {offer.sha256[:12]}... were offered"
            )
        arrival.file.close()
        score = offer.score if offer.score is not None and math.isfinite(offer.score) else None
        manifest = Manifest(policy, offer.version, _name(offer), offer.size, offer.sha256, score)
        before = self.best(policy)
        beside = self.folder / f"{manifest.file}.json"
        coming = beside.with_name(f"{beside.name}{COMING}")
        try:
            write_whole(coming, json.dumps(asdict(manifest), indent=1).encode())
            arrival.path.rename(self.folder / manifest.file)  # from here on `coming` is the one that fits
            coming.rename(beside)
            sync_folder(self.folder)
        except OSError as error:
            self.abandon(policy)
            raise _failure(error, arrival.path) from error
        del self._open[policy]
        best = score is not None and (before is None or before.score is None or score > before.score)
        self._rotate(policy)
        return {**asdict(manifest), "version": list(manifest.version), "best": best}

    def abandon(self, policy: str) -> None:
        """Drop the open offer of a policy, if there is one, and what arrived of it."""
        arrival = self._open.pop(policy, None)
        if arrival is not None:
            with contextlib.suppress(OSError):  # a full disk complains again about what was buffered
                arrival.file.close()
            with contextlib.suppress(OSError):  # what cannot be removed is swept at the next start
                arrival.path.unlink()

    def _rotate(self, policy: str) -> None:
        manifests = self.manifests(policy)
        best = self.best(policy)
        for manifest in manifests[self.keep :]:
            if manifest != best:
                beside = self.folder / f"{manifest.file}.json"
                going = beside.with_name(f"{beside.name}{GOING}")
                beside.rename(going)
                (self.folder / manifest.file).unlink(missing_ok=True)
                going.unlink()

    def close(self) -> None:
        """Drop what is open."""
        for policy in list(self._open):
            self.abandon(policy)

    # --- reading

    def lacks(self, file: str) -> bool:
        """Whether a file is gone. One that cannot be looked at just now is not."""
        try:
            return not (self.folder / file).exists()
        except OSError:
            return False

    def manifests(self, policy: str | None = None) -> list[Manifest]:
        """Of every checkpoint (of one policy) that has a readable manifest, the newest version first."""
        return _manifests(self.folder, policy)

    def best(self, policy: str) -> Manifest | None:
        """The one with the highest score; of equals the oldest."""
        scored = [manifest for manifest in reversed(self.manifests(policy)) if manifest.score is not None]
        return max(scored, key=lambda manifest: manifest.score or 0.0, default=None)

    def newest_valid(self, policy: str) -> tuple[tuple[Path, Manifest] | None, list[tuple[str, str]]]:
        """The newest checkpoint whose size and sha256 are right, and (file, reason) of those passed over on the way."""
        return newest_valid(self.folder, policy)


def newest_valid(folder: Path, policy: str) -> tuple[tuple[Path, Manifest] | None, list[tuple[str, str]]]:
    """As `CheckpointStore.newest_valid`, without a store: changes nothing in the folder."""
    coming = [found for path in folder.glob(f"{policy}~*.json{COMING}") if (found := _manifest(path)) is not None]
    there = [manifest for manifest in coming if flaw(folder, manifest) is None]
    skipped = [
        (path.name, "its manifest cannot be read")
        for path in sorted(folder.glob(f"{policy}~*.checkpoint.json"))
        if _manifest(path) is None
    ]
    for manifest in sorted([*there, *_manifests(folder, policy)], key=lambda manifest: manifest.version, reverse=True):
        reason = flaw(folder, manifest)
        if reason is None:
            return (folder / manifest.file, manifest), skipped
        skipped.append((manifest.file, reason))
    return None, skipped + [(name, "it has no manifest") for name in _alone(folder, policy)]


def flaw(folder: Path, manifest: Manifest) -> str | None:
    """What is wrong with a checkpoint on disk, or None: reads it through."""
    path = folder / manifest.file
    try:
        with os.fdopen(open_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != manifest.size:
                return f"it has {size} bytes, its manifest says {manifest.size}"
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, RequestError) as error:
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return None if found == manifest.sha256 else f"its sha256 is {found[:12]}..., not {manifest.sha256[:12]}..."


def read_chunk(path: Path, index: int) -> bytes:
    """The chunk `index` of a file: 1 MiB, less at the end, empty beyond it. DamagedCheckpoint if it cannot be read."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            file.seek(index * CHUNK)
            return file.read(CHUNK)
    except (OSError, RequestError) as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _name(offer: CheckpointOffer) -> str:
    # "~" stands in no policy's name: `a~...` is never mistaken for a checkpoint of `a-1`.
    return f"{offer.policy}~{offer.version[0]}.{offer.version[1]}.checkpoint"


def _manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.of(json.loads(read(path)))
    except (OSError, RequestError, ValueError, KeyError, TypeError):
        return None


def _alone(folder: Path, policy: str) -> list[str]:
    """List a policy's checkpoints without a manifest, sorted by name."""
    names = {path.name for path in folder.glob(f"{policy}~*")}
    return sorted(name for name in names if name.endswith(".checkpoint") and f"{name}.json" not in names)


def _manifests(folder: Path, policy: str | None) -> list[Manifest]:
    paths = folder.glob(f"{policy or '*'}~*.checkpoint.json")
    found = [manifest for manifest in map(_manifest, paths) if manifest is not None]
    return sorted(found, key=lambda manifest: (manifest.version, manifest.policy), reverse=True)


def _failure(error: OSError, path: Path) -> RunError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return CheckpointsFull(f"no room for {path}: free some space; the next offer is tried again")
    return RunError(f"{path} cannot be written: {error.strerror}; check the run directory and its disk")
