"""The state of the pool: everything that the fold of the curriculum knows, and its plain form.

Invariant: a state restored from its snapshot goes on exactly as the one that it was taken from, down to the order in
which equal tasks stand, so that the same random state draws the same tasks.
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

from tracker.curriculum.counters import Counts, Epochs, LabelTally
from tracker.curriculum.dice import Dice
from tracker.curriculum.drawing import Urn
from tracker.curriculum.entry import Entry, packed, unpacked
from tracker.curriculum.gini import Histogram
from tracker.curriculum.presentations import Presentations
from tracker.curriculum.scorers import Scorer, make_scorer
from tracker.curriculum.settings import CurriculumSettings


class Candidate(NamedTuple):
    """A task that was minted with a label and is not in the pool yet. `label` is as it came: it may be anything."""

    task: str
    label: Any
    policy: str | None
    body: str
    form: int


class PoolState:
    """What there is; `tracker.curriculum.pool` moves it, `decisions` and `report` read it."""

    def __init__(self) -> None:
        self.settings: CurriculumSettings | None = None
        self.launch = 0
        self.random = Dice(0).text
        """The random state after the last draw."""
        self.entries: dict[str, Entry] = {}
        self.gone: dict[str, int] = {}
        """Every evicted task, with how many outcomes came after."""
        self.labels: dict[str, LabelTally] = {}
        self.counts = Counts()
        self.evictions: dict[str, int] = {}
        """By reason; they only grow."""
        self.epochs = Epochs()
        self.presentations = Presentations()
        self.candidates: dict[int, list[Candidate]] = {}
        """By the position of their mint."""
        self.owed: dict[str, tuple[str, dict[str, Any]]] = {}
        """Facts that what was read calls for and that are not in the ledger yet."""
        self.failing: dict[str, None] = {}
        """Tasks that failed, while it is not decided whether they rest or go."""
        self.doomed: dict[str, str] = {}
        """Tasks that a migration evicts, and why."""
        self.resting: list[tuple[int, str]] = []
        """Heap of (until, task); an entry whose task does not rest until then is passed over."""
        self.streak = 0
        """Failures of generation in a row."""
        self.trouble = ""
        """Why the last one failed."""
        self.generate_after = 0
        """Wall clock (ns) before which no generation work is leased."""
        self.exhausted = ""
        """Why there is nothing more to generate in this launch."""
        self.draws_histogram = Histogram()
        """Of draws, over the tasks in the pool."""
        self.scorer: Scorer | None = None
        self.urn: Urn | None = None
        self.free: list[int] = []
        """Slots that were used and are not now."""
        self.slots = 0

    # --- snapshots

    _plainly = ("launch", "random", "streak", "trouble", "generate_after", "exhausted")

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            **{name: getattr(self, name) for name in self._plainly},
            "settings": None if self.settings is None else self.settings.to_plain(),
            "entries": packed(self.entries.values()),
            "gone": dict(self.gone),
            "labels": {label: tally.plain() for label, tally in self.labels.items()},
            "counts": self.counts.plain(),
            "evictions": dict(self.evictions),
            "epochs": self.epochs.plain(),
            "presentations": self.presentations.plain(),
            "candidates": [[position, [list(c) for c in found]] for position, found in self.candidates.items()],
            "owed": [[key, kind, dict(body)] for key, (kind, body) in self.owed.items()],
            "failing": list(self.failing),
            "doomed": dict(self.doomed),
            "slots": [self.slots, list(self.free)],
            "orders": None if self.urn is None else self.urn.orders(),
        }

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        for name in self._plainly:
            setattr(self, name, plain[name])
        self.entries = {entry.name: entry for entry in unpacked(plain["entries"])}
        self.gone, self.evictions, self.doomed = dict(plain["gone"]), dict(plain["evictions"]), dict(plain["doomed"])
        self.labels = {label: LabelTally(*tally) for label, tally in plain["labels"].items()}
        self.counts = Counts(**plain["counts"])
        self.epochs = Epochs.of(plain["epochs"])
        self.presentations = Presentations.of(plain["presentations"])
        self.candidates = {position: [Candidate(*c) for c in found] for position, found in plain["candidates"]}
        self.owed = {key: (kind, dict(body)) for key, kind, body in plain["owed"]}
        self.failing = dict.fromkeys(plain["failing"])
        self.slots, self.free = plain["slots"][0], list(plain["slots"][1])
        self.resting = [(entry.until, entry.name) for entry in self.entries.values() if entry.until]
        heapq.heapify(self.resting)
        self.draws_histogram = Histogram(entry.draws for entry in self.entries.values())
        if plain["settings"] is not None:
            self.settings = CurriculumSettings.model_validate(plain["settings"])
            self.scorer, self.urn = make_scorer(self.settings), Urn(self.settings)
            self.urn.refill(self.entries.values(), plain["orders"])
