"""The state of the pool: everything that the fold of the curriculum knows, and its plain form.

Invariant: a state restored from its snapshot goes on exactly as the one that it was taken from, down to the order in
which equal tasks stand, so that the same random state draws the same tasks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

from tracker.curriculum.counters import Counts, Epochs, LabelTally
from tracker.curriculum.cut import Cut, packed_slots, unpacked, unpacked_slots
from tracker.curriculum.dice import Dice
from tracker.curriculum.drawing import Urn
from tracker.curriculum.entry import Entry
from tracker.curriculum.gini import Histogram
from tracker.curriculum.presentations import Presentations
from tracker.curriculum.scorers import Scorer, forget, make_scorer
from tracker.curriculum.settings import CurriculumSettings
from tracker.ended import Ended
from tracker.parts import PIECE, pieces, whole


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
        self.ended = Ended()
        """Ids of all that were evicted: never used again."""
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
        self.cut: Cut | None = None
        """The entries of a snapshot that is being written down."""

    def score(self, entry: Entry, raw: float) -> None:
        """An entry's raw score is another one now."""
        before = entry.level
        entry.raw = raw
        self.labels[entry.label].levels += entry.level - before

    def settle(self, settings: CurriculumSettings, ways: dict[str, str]) -> None:
        """Other settings hold; `ways` says how what does not fit them is migrated."""
        self.settings, self.scorer = settings, make_scorer(settings)
        self.urn = Urn(settings)
        for entry in self.entries.values():
            if self.cut is not None:
                self.cut.keep(entry)
            if "scorer" in ways:
                forget(entry)
            self.score(entry, self.scorer.value(entry))
        if ways.get("schema") == "evict":
            self.doomed = dict.fromkeys((entry.name for entry in self.entries.values()), "schema")
        excess = len(self.entries) - len(self.doomed) - settings.capacity
        if excess > 0:
            staying = [entry for entry in self.entries.values() if entry.name not in self.doomed]
            for entry in heapq.nsmallest(excess, staying, key=lambda entry: (entry.raw, -entry.count, entry.order)):
                self.doomed[entry.name] = "capacity"
        for entry in self.entries.values():
            entry.resting |= entry.name in self.doomed
            if not entry.resting:
                self.urn.put(entry)

    # --- snapshots

    _plainly = ("launch", "random", "streak", "trouble", "generate_after", "exhausted")

    def changing(self, name: str) -> Entry | None:
        """The entry of this task, for whoever is about to change it: a snapshot under way keeps it as it was."""
        entry = self.entries.get(name)
        if entry is not None and self.cut is not None:
            self.cut.keep(entry)
        return entry

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values."""
        return whole(self.parts())

    def parts(self) -> Iterator[dict[str, Any]]:
        """The same in parts, of the moment at which the first is taken, whatever changes meanwhile."""
        cut = self.cut = Cut(self.entries.values())
        opened, returned = self.presentations.draws()
        orders = {} if self.urn is None else self.urn.orders()
        yield {
            **{name: getattr(self, name) for name in self._plainly},
            "settings": None if self.settings is None else self.settings.to_plain(),
            "entries": [],
            "open": [],
            "returned": [],
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
            **{f"{which} in order": [] for which in orders},
        }
        for columns in cut.columns(PIECE):
            yield {"entries": [columns]}
        if self.cut is cut:
            self.cut = None
        yield from pieces("open", opened)
        yield from pieces("returned", returned)
        for which, entries in orders.items():
            for slots in packed_slots(entries):
                yield {f"{which} in order": [slots]}

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        for name in self._plainly:
            setattr(self, name, plain[name])
        self.entries = {entry.name: entry for columns in plain["entries"] for entry in unpacked(columns)}
        self.evictions, self.doomed = dict(plain["evictions"]), dict(plain["doomed"])
        self.labels = {label: LabelTally(*tally) for label, tally in plain["labels"].items()}
        self.counts = Counts(**plain["counts"])
        self.epochs = Epochs.of(plain["epochs"])
        self.presentations = Presentations.of(plain["presentations"], plain["open"], plain["returned"])
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
            slots = {entry.slot: entry for entry in self.entries.values()}
            names = ("all", "few", "ranking", "part")
            self.urn.refill({which: unpacked_slots(plain[f"{which} in order"], slots) for which in names})
