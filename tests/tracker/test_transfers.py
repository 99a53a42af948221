from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from broker.messages import CheckpointOffer, Chunk, RestorePoint, RestoreRequest
from tests.tracker import bodies as b
from tracker.checkpoints import CheckpointStore, Manifest
from tracker.core import Core
from tracker.exchange import Now, Restoring, Settings
from tracker.live import Live
from tracker.standard import standard_folds
from tracker.transfers import Transfers


class Shell:
    """What the role does around the transfers: commits happen when the test says so."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(learners=frozenset({"learner-p", "learner-q"}))
        self.core = Core(settings, standard_folds(), b.TWO)
        self.live = Live()
        self.offers: list[tuple[str, int, str]] = []
        self.points: list[RestorePoint] = []
        self.chunks: list[bytes] = []
        self.store = CheckpointStore(folder)
        self.transfers = Transfers(self.store, self.core, self.live, self)  # type: ignore[arg-type]

    def offer(self, name: str, offer: int, chunks: int, state: str) -> None:
        self.offers.append((name, offer, state))

    def publish(self, recipient: str, message: Any, payload: bytes = b"") -> None:
        if isinstance(message, RestorePoint):
            self.points.append(message)
        else:
            self.chunks.append(payload)

    def upload(self, number: int, content: bytes, policy: str = "p", version: int | None = None) -> None:
        digest = hashlib.sha256(content).hexdigest()
        version = number if version is None else version
        offer = CheckpointOffer(offer=number, policy=policy, version=(1, version), size=len(content), sha256=digest)
        self.transfers.offered(f"learner-{policy}", b.ONE, offer)
        chunk = Chunk(offer=number, index=0)
        self.transfers.arrived(f"learner-{policy}", chunk, content)

    def gather(self) -> None:
        self.core.gather(Now(0, 0.0))

    def commit(self) -> None:
        batch = self.core.gather(Now(0, 0.0))
        position = self.core.folds.position
        out = self.core.committed(range(position + 1, position + 1 + len(batch.rows)))
        for life in out.lives:
            self.transfers.begin(life)
        for fact in out.facts:
            if fact.kind == "checkpoint":
                self.transfers.committed(fact.body)

    @property
    def durable(self) -> list[tuple[str, int]]:
        return [(name, number) for name, number, state in self.offers if state == "durable"]


def test_only_the_committed_checkpoint_is_acknowledged(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.upload(1, b"one")
    shell.gather()  # the batch with its fact is offered to a full disk, while others arrive
    shell.upload(1, b"two", policy="q")
    shell.upload(2, b"other bytes of the same version", version=1)
    assert shell.durable == []
    shell.commit()
    assert shell.durable == [("learner-p", 1)]
    shell.commit()
    assert shell.durable == [("learner-p", 1), ("learner-q", 1), ("learner-p", 2)]
    shell.commit()
    assert len(shell.durable) == 3


def test_an_offer_that_was_replaced_is_not_acknowledged_over_the_newer(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.upload(1, b"one")
    newer = CheckpointOffer(offer=2, policy="p", version=(1, 2), size=3, sha256="0" * 64)
    shell.transfers.offered("learner-p", b.ONE, newer)
    shell.commit()
    assert shell.offers[-1] == ("learner-p", 2, "fetching")
    shell.store.close()


def test_a_restore_point_names_a_fact_that_is_on_disk(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.core.handle(Restoring("p", b.ONE))
    shell.gather()
    shell.upload(1, b"one")
    shell.commit()
    assert shell.points == []  # it asks again
    shell.core.handle(Restoring("p", b.ONE))
    shell.commit()
    (point,) = shell.points
    assert point.position == shell.core.standings.policies["p"].positions["p~1.1.checkpoint"] == 4
    assert (point.life, point.version, point.size) == (1, (1, 1), 3)
    shell.transfers.asked("learner-p", RestoreRequest(policy="p", position=4, index=0))
    assert shell.chunks == [b"one"]
    (tmp_path / "p~1.1.checkpoint").unlink()
    shell.transfers.asked("learner-p", RestoreRequest(policy="p", position=4, index=0))
    assert "cannot be read" in shell.live.alarms["checkpoints"]


def test_a_checkpoint_without_a_fact_gets_one(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.upload(7, b"one")
    back = Shell(tmp_path)  # the tracker was killed before the commit
    back.core.handle(Restoring("p", b.ONE))
    back.commit()
    assert [point.position for point in back.points] == [1]
    assert back.core.standings.checkpoints == 1
    assert back.durable == []


def test_of_several_without_a_fact_one_is_the_best(tmp_path: Path) -> None:
    core = Core(Settings(), standard_folds(), "1" * 32)
    kept = [Manifest("p", (1, n), f"p~1.{n}.checkpoint", 1, "", score) for n, score in ((3, 5.0), (2, None), (1, 10.0))]
    assert [(body["version"], body["best"]) for body in core.unrecorded(kept)] == [
        ([1, 1], True), ([1, 2], False), ([1, 3], False),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [b"onx", b"on"])
def test_bytes_that_were_not_offered_are_refused(tmp_path: Path, wrong: bytes) -> None:
    shell = Shell(tmp_path)
    digest = hashlib.sha256(b"one").hexdigest()
    offer = CheckpointOffer(offer=1, policy="p", version=(1, 1), size=3, sha256=digest)
    shell.transfers.offered("learner-p", b.ONE, offer)
    shell.transfers.arrived("learner-p", Chunk(offer=1, index=0), wrong)
    assert shell.offers[-1] == ("learner-p", 1, "refused")
    assert "checkpoints" in shell.live.alarms
    shell.upload(2, b"one")
    shell.commit()
    assert shell.durable == [("learner-p", 2)]
    assert shell.live.alarms == {}


def test_a_checkpoint_that_was_removed_is_an_alarm_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "checkpoints")
    shell.upload(1, b"one")
    shell.commit()
    shell.transfers.look()
    shell.commit()
    assert not shell.core.standings.alarms
    shutil.rmtree(shell.store.folder)
    for _ in range(2):
        shell.transfers.look()
        shell.commit()
    (alarm,) = shell.core.standings.alarms
    assert "p~1.1.checkpoint is gone" in alarm
    shell.upload(2, b"two")
    shell.commit()
    assert shell.offers[-1] == ("learner-p", 2, "durable")
    assert (shell.store.folder / "p~1.2.checkpoint").read_bytes() == b"two"


def test_an_offer_opens_a_file_for_a_learner_of_the_plan_alone(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    offer = CheckpointOffer(offer=1, policy="p", version=(1, 1), size=3, sha256="0" * 64)
    for number in range(100):
        shell.transfers.offered("learner-p", b.ONE, offer.model_copy(update={"policy": f"p{number}"}))
        shell.transfers.offered(f"learner-x{number}", b.ONE, offer.model_copy(update={"policy": f"x{number}"}))
        shell.transfers.offered("actor-0", b.ONE, offer)
    assert list(tmp_path.iterdir()) == shell.offers == []
    shell.transfers.offered("learner-p", b.ONE, offer)
    assert shell.offers == [("learner-p", 1, "fetching")]
    shell.store.close()


def test_a_folder_that_cannot_be_read_is_an_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(tmp_path)

    def none_left(*_: Any) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(shell.store, "best", none_left)
        shell.upload(1, b"one")
        assert shell.offers[-1] == ("learner-p", 1, "refused")
        patch.setattr(shell.store, "newest_valid", none_left)
        shell.core.handle(Restoring("p", b.ONE))
        shell.commit()
    assert "Too many open files" in shell.live.alarms["checkpoints"]
    shell.upload(2, b"two")
    shell.commit()
    assert shell.durable == [("learner-p", 2)]
