"""Rows and episodes of `count` copies, whatever is stepped: where each episode began, and what is told when one ends.

Invariant: rows count up from 0 at a reset of all; an episode's length is the rows since its first transition, and its
seconds are counted from the moment before its reset.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from actors.conform import NO_ANSWER, RESET, STEP, unpacked
from actors.environments.vector import (
    Column,
    EnvironmentFailed,
    Episode,
    Masks,
    Observations,
    Step,
)
from actors.seeds import environment_seed


class Rows:
    """Gives each row its end. The arrays that it is made with are the stable buffers of the environment."""

    def __init__(
        self,
        count: int,
        seed: int,
        observations: Observations,
        masks: Masks,
        columns: tuple[Column, Column, Column, Column],
        *,
        name: str = "",
    ) -> None:
        """`columns` are rewards, terminated, truncated, valid; `name` names the environment in messages."""
        self.name = name
        self.seed = seed
        self.row = 0
        self._count = count
        self._observations, self._masks, self._columns = observations, masks, columns
        self.begin_all(None)

    def begin_all(self, seed: int | None) -> None:
        """All copies are about to be reset, and seeded anew if there is a seed."""
        if seed is not None:
            self.seed = seed
        self.row = 0
        self._began = [0] * self._count  # the row at which the running episode's first transition is made
        self._began_at = [perf_counter()] * self._count
        self._episode = [0] * self._count

    def begin(self, i: int) -> None:
        """Copy i is about to be reset in this row."""
        self._began[i] = self.row + 1
        self._began_at[i] = perf_counter()
        self._episode[i] += 1

    def length(self, i: int) -> int:
        """Transitions of copy i's episode, this row's included."""
        return self.row - self._began[i] + 1

    def ended(self, i: int, returns: dict[str, float], lengths: dict[str, int]) -> Episode:
        """Copy i's episode, which ends with this row."""
        return Episode(self.length(i), returns, lengths, perf_counter() - self._began_at[i], i)

    def transition_of(self, i: int) -> dict[str, int]:
        """What names copy i's next transition: its seed, and the episode and step in which it is made."""
        return {"seed": self.seed_of(i), "episode": self._episode[i], "step": max(0, self.length(i) - 1)}

    def close(self, env_steps: int, episodes: list[Episode]) -> Step:
        """The row, complete; the next begins."""
        self.row += 1
        return Step(self._observations, self._masks, *self._columns, env_steps, episodes)

    def failed(
        self, error: BaseException, i: int, answer: Any = NO_ANSWER, *, resetting: bool = False
    ) -> EnvironmentFailed:
        """Return the error of copy i, which raised in its step or reset, or gave a wrong `answer` there."""
        method, names = ("reset", RESET) if resetting else ("step", STEP)
        cause = unpacked(answer, names) or error
        step = 0 if resetting else self.length(i) - 1
        episode, seed = self._episode[i], self.seed_of(i)
        return EnvironmentFailed(cause, seed, episode, step, i, method=method, name=self.name)

    def place(self, i: int) -> tuple[int, int]:
        """Return the seed of copy i, and the number of rows since all copies were seeded."""
        return self.seed_of(i), self.row

    def seed_of(self, i: int) -> int:
        """The seed of copy i."""
        return environment_seed(self.seed, i)
