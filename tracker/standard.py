"""The folds of every run. Invariant: whoever reads a ledger, the tracker or a summary, reads it with these."""

from __future__ import annotations

from tracker.curriculum.pool import Curriculum
from tracker.epochs import Epochs
from tracker.folds import Fold, Folds
from tracker.standings import Standings
from tracker.tasks import Tasks
from tracker.templates import Templates


def standard_folds() -> Folds:
    """All of them, at position 0."""
    folds: dict[str, Fold] = {"standings": Standings(), "tasks": Tasks(), "epochs": Epochs()}
    return Folds({**folds, "curriculum": Curriculum(), "templates": Templates()})
