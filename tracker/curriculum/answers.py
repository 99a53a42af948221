"""What a request gets, from the queue of tasks that are played once and from the pool, as one answer.

Invariant: it is read from committed state, so that the same request has the same answer for as long as its leases last.
"""

from __future__ import annotations

import json

from tracker.curriculum.pool import Curriculum
from tracker.leases import Answer, DrawnTask, Request
from tracker.tasks import Tasks


def answered(tasks: Tasks, pool: Curriculum, request: Request) -> Answer | None:
    """The answer to a request that was answered with work already; None if it was not."""
    queued, drawn = tasks.answered(request), drawn_for(pool, request)
    if queued is None or drawn is None:
        return queued or drawn
    deadlines = [answer.deadline for answer in (queued, drawn) if answer.tasks or answer.drawn]
    return queued._replace(drawn=drawn.drawn, deadline=min(deadlines, default=0))


def drawn_for(pool: Curriculum, request: Request) -> Answer | None:
    """Of the pool alone: the draws and the generation work that the request got and that are still open."""
    presentations = pool.presentations
    answer = presentations.answered.get((request.source, request.incarnation), {}).get(request.request)
    if answer is None:
        return None
    found: list[DrawnTask] = []
    deadlines: list[int] = []
    work = presentations.generating.get(answer.generation)
    if work is not None:
        body = json.dumps({"generate": work.most})
        found.append(DrawnTask(answer.generation, None, body, None, None))
        deadlines.append(work.deadline)
    for number in range(answer.first, answer.first + answer.most):
        open_draw = presentations.open.get(number)
        entry = pool.entries.get(open_draw.task) if open_draw is not None else None
        if open_draw is not None and entry is not None:
            found.append(DrawnTask(entry.name, entry.policy, entry.body, entry.label, number))
            deadlines.append(open_draw.deadline)
    return Answer(*request[:3], min(deadlines, default=0), (), tuple(found))
