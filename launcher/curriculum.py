"""What can be wrong with `[curriculum]` though each key alone is right.

Invariant: what contradicts itself between the tracker's keys and the actors', or in the rest of the run file, is found
before a process starts.
"""

from __future__ import annotations

from actors.curriculum.settings import DrawingSettings
from launcher.runfile import Curriculum, RunFile


def curriculum_mistakes(run: RunFile) -> list[tuple[str, str]]:
    """(path, what is wrong and how to mend it) of every contradiction."""
    asked = run.curriculum
    if asked is None:
        return []
    wrong = []
    named = asked.sources
    if len(named) != 1:
        found = f"has {' and '.join(named)}" if named else "does not say where tasks come from"
        wrong.append(("curriculum", f"{found}: give exactly one of tasks, generator and levels"))
    if asked.generating == 0:
        wrong.append(("curriculum.generating", "is 0: nobody would ask the source for tasks; give 1 or more"))
    if run.actors.rollout == "environments":
        wrong += _of_environments(run, asked)
    else:
        wrong += [
            (
                f"curriculum.{key}",
                "is for actors.rollout = 'environments': a rollout of your own gives its scores itself",
            )
            for key in ("score", "score_low", "score_high")
            if getattr(asked, key) is not None
        ]
    if asked.levels is not None and run.environment is None:
        if asked.levels.attribute is not None:
            wrong.append(("curriculum.levels.attribute", "asks an environment for its levels: give environment.id"))
        if asked.levels.settings:
            wrong.append(("curriculum.levels.settings", "is for an environment's constructor: give environment.id"))
    return wrong


def _of_environments(run: RunFile, asked: Curriculum) -> list[tuple[str, str]]:
    wrong = []
    if run.actors.vector:
        wrong.append(("actors.vector", "Gymnasium's vector forms reset by themselves, without a task; set it to false"))
    if asked.score is None:
        told = 'say how an episode becomes a score from 0 to 1: "return" (with score_low and score_high), '
        wrong.append(("curriculum.score", f'{told}a key of the last info, or "package.module:callable"'))
    ends = (asked.score_low, asked.score_high)
    if asked.score == "return":
        if None in ends:
            wrong.append(
                ("curriculum.score_low", "score = 'return' needs score_low and score_high, the returns of 0 and 1")
            )
        elif ends[0] == ends[1]:
            wrong.append(("curriculum.score_high", f"equals score_low ({ends[0]:g}): no return would tell tasks apart"))
    elif ends != (None, None):
        wrong.append(("curriculum.score_low", "score_low and score_high are for score = 'return'"))
    return wrong


def check_source(run: RunFile) -> None:
    """RequestError: a list or a grid of the run file is wrong. Reads the list's file; runs nothing of the user's."""
    if run.curriculum is not None:
        from actors.curriculum.sources import check_listed

        check_listed(DrawingSettings.read(run.to_plain()["curriculum"]), run.folder, run.curriculum.capacity)
