"""Scorers: each tells from a task's outcomes how much is to be learnt from it just now, as a raw score in [0, 1].

Invariant: a scorer keeps nothing of its own. All that it knows of a task is in the task's `Entry`, so that a snapshot
of the entries is a snapshot of the scorer; and it does a fixed amount of work for an outcome.
"""

from __future__ import annotations

from typing import Protocol

from tracker.curriculum.entry import Entry
from tracker.curriculum.settings import CurriculumSettings

CAP = 0.75
"""Most that a baseline can be: a task that is nearly solved at first leaves room to be seen getting better."""


class Scorer(Protocol):
    """One way of scoring."""

    def observe(self, entry: Entry, score: float) -> float:
        """Take one outcome, which `entry.count` and `entry.total` hold already. Gives the new raw score."""

    def value(self, entry: Entry) -> float:
        """The raw score of what was observed, under the settings of now."""


class LearningProgress:
    """Bidirectional learning progress (Kanitscheider et al., "Multi-task curriculum learning in a complex, visual,
    hard-exploration domain: Minecraft", 2021, section 3), on scores measured from the task's own baseline.

    The baseline is the mean of the first `min_samples` scores, capped at 0.75; before it there is no progress. An
    outcome after it moves a fast average, which a slow one follows; progress is their distance after reweighting. The
    first such outcome sets both: `initialised` says that it came, as 0 is a score like others.
    """

    def __init__(self, settings: CurriculumSettings) -> None:
        self._needed, self._alpha, self._theta = settings.min_samples, settings.alpha, settings.theta

    def observe(self, entry: Entry, score: float) -> float:
        """See `Scorer`."""
        baseline = entry.baseline
        if baseline is None:
            if entry.count >= self._needed:
                entry.baseline = min(entry.total / entry.count, CAP)
            return 0.0
        above = max(score - baseline, 0.0) / (1.0 - baseline)
        if entry.initialised:
            entry.fast += self._alpha * (above - entry.fast)
            entry.slow += self._alpha * (entry.fast - entry.slow)
        else:
            entry.initialised = True
            entry.fast = entry.slow = above
        return abs(self.reweighted(entry.fast) - self.reweighted(entry.slow))

    def value(self, entry: Entry) -> float:
        """See `Scorer`."""
        return abs(self.reweighted(entry.fast) - self.reweighted(entry.slow)) if entry.initialised else 0.0

    def reweighted(self, p: float) -> float:
        """R(p) = p (1 - θ) / (p + θ (1 - 2 p)): 0 and 1 stay, what lies near 0 is drawn apart."""
        return p * (1.0 - self._theta) / (p + self._theta * (1.0 - 2.0 * p))


class Variance:
    """The variance of the score, weighted towards the newest outcomes by `alpha`: greatest for tasks solved half of the
    time. In [0, 0.25].
    """

    def __init__(self, settings: CurriculumSettings) -> None:
        self._alpha = settings.alpha

    def observe(self, entry: Entry, score: float) -> float:
        """See `Scorer`."""
        if entry.initialised:
            apart = score - entry.average
            entry.average += self._alpha * apart
            entry.spread = (1.0 - self._alpha) * (entry.spread + self._alpha * apart * apart)
        else:
            entry.initialised = True
            entry.average = score
        return entry.spread

    def value(self, entry: Entry) -> float:
        """See `Scorer`."""
        return entry.spread


class Replay:
    """Prioritised level replay (Jiang et al., 2021): tasks are drawn by the rank of their last surprise, and by
    staleness.

    The paper's surprise is the value loss of an episode. An outcome has only its score, so here it is how far the score
    lay from the running average of those before it.
    """

    def __init__(self, settings: CurriculumSettings) -> None:
        self._alpha = settings.alpha

    def observe(self, entry: Entry, score: float) -> float:
        """See `Scorer`."""
        if entry.initialised:
            entry.spread = abs(score - entry.average)
            entry.average += self._alpha * (score - entry.average)
        else:
            entry.initialised = True
            entry.average = score
        return entry.spread

    def value(self, entry: Entry) -> float:
        """See `Scorer`."""
        return entry.spread


class Uniform:
    """Every task alike: what a curriculum is compared with."""

    def __init__(self, _: CurriculumSettings) -> None:
        pass

    def observe(self, entry: Entry, score: float) -> float:
        """See `Scorer`."""
        return 0.0

    def value(self, entry: Entry) -> float:
        """See `Scorer`."""
        return 0.0


_scorers: dict[str, type[LearningProgress | Variance | Replay | Uniform]] = {
    "learning_progress": LearningProgress,
    "variance": Variance,
    "replay": Replay,
    "uniform": Uniform,
}


def make_scorer(settings: CurriculumSettings) -> Scorer:
    """The scorer that the settings name."""
    return _scorers[settings.scorer](settings)


def forget(entry: Entry) -> None:
    """What scorers derived from the task's outcomes is unset; its scores and counts stay, and its raw score is due."""
    entry.baseline, entry.initialised = None, False
    entry.fast = entry.slow = entry.average = entry.spread = 0.0
