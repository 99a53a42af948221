"""Folds: everything that the tracker serves is one, over the ledger, by position.

Invariant: a fold is a pure function of the facts up to a position. It reads no clock and draws no random number, so a
restored snapshot with the facts after it gives exactly the same state as all facts from the start.

A fold that raises on a fact skips it: the fact stays in the ledger, `alarms` names it, and everything else goes on.
Whether a fold raises, and what it changed before, depends only on its state and the fact, so every reader of the ledger
reaches the same state. No fact is known that makes a fold raise (tests/tracker/test_fuzz.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from tracker.disk import LedgerFull
from tracker.ended import Ended, nobody
from tracker.facts import Fact, Row
from tracker.ledger import LedgerReader
from tracker.parts import Draft
from tracker.stored import stored

ALARM = 400
"""Most characters of an alarm about a skipped fact."""
MOST_ALARMS = 64
MOST_FRESH = 20_000
"""Ids of ended tasks that a rebuild holds in memory, when it can store them."""


class Settle(Protocol):
    """Stores rows of `fresh_ended`, when so many have come together that memory should not hold them."""

    def __call__(self, rows: Iterable[tuple[str, str, int]], anew: Iterable[str] = ()) -> bool:
        """False where there is no room. What was stored before of the folds `anew` is forgotten: they begin again."""


Table = Mapping[str, Mapping[Callable[[Fact], None], str]]
"""By kind of fact, the functions that apply one, each with the name of its fold."""
EVERY_FOLD = "every"
"""Stands for a fold's name in an alarm about a fact that no fold could read."""


class Fold(Protocol):
    """One fold. `version` grows whenever old snapshots no longer fit; they are then rebuilt from the ledger."""

    version: int
    kinds: frozenset[str]

    def apply(self, fact: Fact) -> None:
        """Take one fact of one of `kinds`, in the order of positions."""

    def snapshot(self) -> Any:
        """The state as plain JSON values, which share nothing with the fold."""

    def restore(self, plain: Any) -> None:
        """Become what `snapshot` described."""


@runtime_checkable
class Taking(Protocol):
    """A fold that says what its `apply` does with facts of a kind: it takes many, and a look at each kind costs."""

    def taker(self, kind: str) -> Callable[[Fact], None]:
        """What takes facts of this kind."""


@runtime_checkable
class Remembering(Protocol):
    """A fold that must know of ids long after it has forgotten all else about them."""

    ended: Ended


class Folds:
    """Several folds that are fed together, each only with the kinds that it reads."""

    def __init__(self, folds: Mapping[str, Fold]) -> None:
        self.folds = dict(folds)
        self.position = 0
        """The newest fact that was applied."""
        self.restored = 0
        """The oldest snapshot's position that `restore` began with."""
        self.flaws: list[str] = []
        """Snapshots that were damaged, in words: their folds were rebuilt from the ledger."""
        self.unreadable = 0
        """Number of stored facts that no fold applied: their body is damaged, or does not fit its kind any more."""
        self._alarms: dict[tuple[str, str, str], str] = {}
        """The texts of `alarms`, by fold, kind of fact and type of error."""
        self.ended = {name: fold.ended for name, fold in self.folds.items() if isinstance(fold, Remembering)}
        """By a fold's name, the ids whose end it has seen."""
        self._settle: Settle | None = None
        self._table = self._takers(self.folds)

    def apply(self, positions: range, rows: Sequence[Row], bodies: Sequence[Any]) -> None:
        """Apply facts that are now in the ledger, with their decoded bodies."""
        table = self._table
        make = tuple.__new__  # as `Fact._make` does it, without a call in between
        for position, row, body in zip(positions, rows, bodies, strict=True):
            source, incarnation, sequence, time, kind, _ = row
            takers = table.get(kind)
            if takers is not None:
                fact = make(Fact, (position, source, incarnation, sequence, time, kind, body))
                for take in takers:
                    try:
                        take(fact)
                    except Exception as error:
                        self._pass_over(takers[take], fact, error)
        if len(positions):
            self.position = positions[-1]

    @property
    def alarms(self) -> tuple[str, ...]:
        """Descriptions of skipped facts: the first for each fold, kind of fact and type of error."""
        return tuple(self._alarms.values())

    def _pass_over(self, fold: str, fact: Fact, error: Exception) -> None:
        """Note that a fold could not apply a fact. Raises an error that a later attempt might not meet."""
        if isinstance(error, MemoryError):
            raise error
        what = f"{fold} fold passed over the {fact.kind} fact at position {fact.position} of {fact.source}"
        why = f"{type(error).__name__}: {error}"
        key = (fold, fact.kind, type(error).__name__)
        if key not in self._alarms and len(self._alarms) < MOST_ALARMS:
            self._alarms[key] = " ".join(f"{what}: {why}".split())[:ALARM]

    def draft(self) -> Draft:
        """Begin snapshots of all folds, as they are now."""
        return Draft(self.folds, self.position)

    def snapshots(self) -> dict[str, Any]:
        """Every fold's snapshot, by name, each with the version that can read it."""
        return {name: {"version": fold.version, "state": fold.snapshot()} for name, fold in self.folds.items()}

    def fresh_ended(self) -> list[tuple[str, str, int]]:
        """(fold, id, position of its end) of all that the ledger's table does not have yet: for the next commit."""
        return [(name, *row) for name, ended in self.ended.items() for row in ended.fresh.items()]

    def forget_ended(self) -> None:
        """What `fresh_ended` gave is in the ledger."""
        for ended in self.ended.values():
            ended.fresh.clear()

    def restore(self, ledger: LedgerReader, *, settle: Settle | None = None) -> None:
        """Bring fresh folds to the ledger's end: each from its newest fitting snapshot, then the facts after it.

        Without `settle` the ledger stays as it is, and memory holds the ids that folds made anew see the end of.
        """
        kept = ledger.snapshots()
        through = ledger.last_position  # read after them: what a tracker adds meanwhile is behind every snapshot
        self.flaws += ledger.damaged.values()
        starts = {name: self._start(name, through, *kept.get(name, (0, None))) for name in self.folds}
        self.restored = min(starts.values(), default=0)
        self._begin_ended(ledger, {name for name in self.ended if name in kept and not starts[name]}, settle)
        # Folds that stand elsewhere than the others join them one after another.
        for after, until in pairwise([*sorted(set(starts.values())), through]):
            self._read(ledger, after, until, self._takers([name for name, start in starts.items() if start <= after]))
        self.position = through

    def _begin_ended(self, ledger: LedgerReader, anew: set[str], settle: Settle | None) -> None:
        """Where folds look for ids that ended.

        A fold made anew, where there was a snapshot that does not fit, finds them anew: it may see other ends than
        before. LedgerFull if there is no room to forget those.
        """
        self._settle = settle
        if settle is not None and anew and not settle((), anew):
            raise LedgerFull(f"no room to begin {', '.join(sorted(anew))} anew in {ledger.path}: free some space")
        for name, ended in self.ended.items():
            asked = settle is not None or name not in anew
            ended.find = partial(ledger.ended_at, name) if asked else nobody

    def _start(self, name: str, through: int, position: int, kept: Any) -> int:
        """Begin with a snapshot, if it fits: its position, or 0."""
        fold = self.folds[name]
        if kept is None or position > through:
            return 0
        try:
            if kept["version"] != fold.version:
                return 0
            fold.restore(kept["state"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.flaws.append(f"the snapshot of {name} at position {position} does not fit ({error!r:.200})")
            fold.__init__()  # type: ignore[misc]  # in its place: others hold it
            if isinstance(fold, Remembering):
                fold.ended = self.ended[name]
            return 0
        return position

    def _takers(self, names: Iterable[str]) -> Table:
        table: dict[str, dict[Callable[[Fact], None], str]] = {}
        for name in names:
            fold = self.folds[name]
            for kind in fold.kinds:
                take = fold.taker(kind) if isinstance(fold, Taking) else fold.apply
                table.setdefault(kind, {})[take] = name
        return table

    def _read(self, ledger: LedgerReader, after: int, through: int, takers: Table) -> None:
        """Take stored facts: the loop that a rebuild of millions consists of."""
        make = tuple.__new__  # as `Fact._make` does it, without a call in between
        for chunk in stored(ledger, after, through, takers):
            for row in chunk:
                fact = make(Fact, row)
                if fact[6] is None:
                    self.unreadable += 1
                    self._pass_over(EVERY_FOLD, fact, ValueError("its body does not fit its kind"))
                    continue
                kind_takers = takers[fact[5]]
                for take in kind_takers:
                    try:
                        take(fact)
                    except Exception as error:
                        self._pass_over(kind_takers[take], fact, error)
            held = sum(len(ended.fresh) for ended in self.ended.values())
            if self._settle is not None and held >= MOST_FRESH and self._settle(self.fresh_ended()):
                self.forget_ended()
