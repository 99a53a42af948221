"""Checkpoints on their way: offers and chunks up from learners, restore points and chunks down to them.

Invariants: an offer is `durable` only when the fact of this very content is on disk; a restore point names the position
of a fact that is on disk; only a learner of the plan uploads, for its own policy and one checkpoint at a time; a folder
that cannot be read or written is an alarm. `tracker.checkpoints` writes the files, and `tracker.core` decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from broker import messages as m
from broker.errors import DamagedCheckpoint, RequestError, RunError
from broker.hub import Hub
from tracker.checkpoints import CheckpointStore, read_chunk
from tracker.core import Core
from tracker.exchange import Life
from tracker.live import Live

ALARM = "checkpoints"


class Transfers:
    """All transfers of one incarnation of the tracker. Checkpoints on disk without a fact get theirs at once."""

    def __init__(self, store: CheckpointStore, core: Core, live: Live, hub: Hub) -> None:
        self._store, self._core, self._live, self._hub = store, core, live, hub
        self._offers: dict[str, int] = {}
        """By policy: the number of the offer being fetched."""
        self._unacknowledged: dict[tuple[str, str], tuple[str, int, int]] = {}
        """By (file, sha256): (learner, offer, chunks) of checkpoints whose fact is not on disk yet."""
        self._restoring: dict[str, tuple[Path, int]] = {}
        """By policy: the checkpoint being fetched and the position that names it."""
        self._skipped: set[tuple[str, str]] = set()
        self._gone: set[str] = set()
        """Checkpoint files that are gone, and for which an alarm was raised."""
        for body in core.unrecorded(store.manifests()):
            core.record("checkpoint", body)

    # --- up

    def offered(self, source: str, incarnation: str, offer: m.CheckpointOffer) -> None:
        """A learner offers a checkpoint."""
        if source != f"learner-{offer.policy}" or source not in self._core.settings.learners:
            return
        if offer.score is None:
            tally = self._core.standings.policies.get(offer.policy)
            offer = offer.model_copy(update={"score": tally.returns.mean if tally is not None else None})
        try:
            chunks = self._store.begin(incarnation, offer)
        except (RunError, RequestError, OSError) as error:
            self._live.alarms[ALARM] = str(error)
            return
        if chunks is not None:
            self._offers[offer.policy] = offer.offer
            self._hub.offer(source, offer.offer, chunks, "fetching")

    def arrived(self, source: str, chunk: m.Chunk, payload: bytes | memoryview) -> None:
        """A chunk of an offer. With the last one the checkpoint is on disk, and its fact is to be committed."""
        policy = next((name for name in self._offers if f"learner-{name}" == source), None)
        if policy is None or self._offers[policy] != chunk.offer:
            return
        try:
            chunks = self._store.write(policy, chunk.index, payload)
            self._hub.offer(source, chunk.offer, chunks, "fetching")
            if self._store.complete(policy):
                body = self._store.finish(policy)
                del self._offers[policy]
                self._core.record("checkpoint", body)
                self._unacknowledged[body["file"], body["sha256"]] = (source, chunk.offer, chunks)
                self._live.alarms.pop(ALARM, None)
        except (RunError, RequestError, OSError) as error:
            self._store.abandon(policy)
            self._offers.pop(policy, None)
            self._live.alarms[ALARM] = str(error)
            self._hub.offer(source, chunk.offer, 0, "refused")

    def committed(self, body: dict[str, Any]) -> None:
        """A `checkpoint` fact is on disk: its learner may forget the content."""
        waiting = self._unacknowledged.pop((body["file"], body["sha256"]), None)
        if waiting is not None and body["policy"] not in self._offers:  # a newer offer has taken the older one's place
            self._hub.offer(*waiting, "durable")

    def look(self) -> None:
        """Raise an alarm for each policy whose newest checkpoint file is gone; the run goes on to the next one."""
        for policy, tally in self._core.standings.policies.items():
            file = next(reversed(tally.positions), None)
            if file is not None and file not in self._gone and self._store.lacks(file):
                self._gone.add(file)
                what = f"the checkpoint {self._store.folder / file} is gone: put it back"
                now = f"until the next checkpoint of {policy}, `--resume` begins at an older one, or from the start"
                self._core.record("alarm", {"text": f"{what}; {now}"})

    # --- down

    def begin(self, life: Life) -> None:
        """Tell a learner where it begins. It asks again until it hears."""
        try:
            newest, skipped = self._store.newest_valid(life.policy)
        except OSError as error:  # it asks again
            self._live.alarms[ALARM] = str(error)
            return
        reasons = tuple(f"{file}: {reason}"[:4000] for file, reason in skipped[:64])
        for file, reason in skipped:
            if (file, reason) not in self._skipped:
                self._skipped.add((file, reason))
                self._core.record("checkpoint_skipped", {"policy": life.policy, "file": file, "reason": reason})
        tally = self._core.standings.policy(life.policy)
        seen = tally.version if tally.updates else None
        point = m.RestorePoint(
            policy=life.policy, incarnation=life.incarnation, life=life.life, skipped=reasons, seen=seen
        )
        if newest is not None:
            path, manifest = newest
            position = tally.positions.get(manifest.file)
            if position is None:
                return  # its fact is not on disk yet
            self._restoring[life.policy] = (path, position)
            point = point.model_copy(
                update={
                    "position": position,
                    "version": manifest.version,
                    "size": manifest.size,
                    "sha256": manifest.sha256,
                }
            )
        self._hub.publish(f"learner-{life.policy}", point)

    def asked(self, source: str, request: m.RestoreRequest) -> None:
        """A learner asks for a chunk of what its restore point named."""
        path, position = self._restoring.get(request.policy, (None, 0))
        if path is None or request.position != position or request.index is None:
            return
        try:
            content = read_chunk(path, request.index)
        except DamagedCheckpoint as error:  # the learner gives up, begins anew, and gets the one before
            self._live.alarms[ALARM] = str(error)
            return
        self._hub.publish(source, m.Chunk(offer=position, index=request.index), content)
