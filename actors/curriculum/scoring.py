"""From a played episode to a score: its return on a line, a value that the environment tells, or a callable's.

Invariant: a score is never clamped: what is not from 0 to 1 goes out as it is, and the tracker refuses it. Only what
misses an end by rounding (1e-9) is that end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.curriculum.settings import DrawingSettings
from actors.environments.vector import Episode
from broker import references
from broker.errors import RequestError

ROUNDING = 1e-9


@dataclass(frozen=True)
class Played:
    """An episode of a drawn task, as a callable of `curriculum.score` sees it."""

    label: str
    body: Mapping[str, Any]
    returns: Mapping[str, float]
    """Agent -> undiscounted sum of its rewards."""
    length: int
    """Env steps."""
    info: Mapping[str, Any]
    """The last info, as the environment gave it (with several agents: agent -> info)."""

    @property
    def return_mean(self) -> float:
        """The mean of the agents' returns."""
        return sum(self.returns.values()) / len(self.returns) if self.returns else 0.0

    @classmethod
    def of(cls, label: str, body: Mapping[str, Any], episode: Episode, info: Mapping[str, Any]) -> Played:
        """From what the loop has."""
        return cls(label, body, episode.returns, episode.length, info)


Score = Callable[[Played], float]


def scorer(settings: DrawingSettings) -> Score:
    """What `curriculum.score` asks for. RequestError if there is no such callable."""
    if settings.score == "return":
        low, high = settings.score_low, settings.score_high
        assert low is not None
        assert high is not None
        return lambda played: rounded((played.return_mean - low) / (high - low))
    assert settings.score is not None
    if ":" in settings.score:
        call = references.load(settings.score, "curriculum.score")
        return lambda played: rounded(float(call(played)))
    return _InfoKey(settings.score)


def rounded(score: float) -> float:
    """The score; 0 or 1 where it misses that by rounding alone."""
    for end in (0.0, 1.0):
        if abs(score - end) <= ROUNDING:
            return end
    return score


class _InfoKey:
    """Scores an episode by a key of its last info; with several agents by the mean over those whose info has the key.

    An episode without the key ends the run. Otherwise an environment that gives it only after success would leave
    every failed episode without a score, and tasks that the policy fails would be evicted.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, played: Played) -> float:
        info, key = played.info, self._key
        infos = [info] if key in info else [part for part in info.values() if isinstance(part, Mapping) and key in part]
        if not infos:
            has = ", ".join(map(str, info)) or "nothing"
            lacks = f"the last info of an episode of {played.label!r} has no {key!r} (it has: {has})"
            repair = "put it into the last info of every episode, with 0 for a failed task"
            raise RequestError(f"curriculum.score {key!r}: {lacks}; {repair}")
        return rounded(sum(float(part[key]) for part in infos) / len(infos))
