"""The tracker's choices for the pool: who draws what, what is accepted, who rests, who goes, who makes new tasks.

Invariant: deciding changes nothing. It reads the pool as it is committed and gives facts, with the random state after
each draw in the fact that rests on it; only applying those facts moves the pool.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.delivery import MAX_BODY
from tracker.curriculum.counters import LABELS
from tracker.curriculum.dice import Dice
from tracker.curriculum.entry import Entry
from tracker.curriculum.pool import Curriculum
from tracker.curriculum.settings import CurriculumSettings, differences
from tracker.curriculum.state import Candidate
from tracker.leases import Request

REST_SECONDS = 300.0
"""Longest rest of a task that fails, and longest pause of generation."""
TEXT = 256
"""Most characters of a task's id and of its label."""
DRAWN_BYTES = 2 * 2**20
"""Bytes of drawn tasks, ids and labels among them, after which an answer gets no more of them: with the last one (a
body has 1 MiB at most) and those of the queue (`tracker.assigning.ANSWER_BYTES`) it fits into one header (8 MiB)."""
EVICTIONS = 4096
"""Most evictions in one commit; more wait for the next."""

FULL = "the pool is full"

OwnFacts = list[tuple[str, dict[str, Any]]]


@dataclass(slots=True)
class Choices:
    """Facts to commit, and by request how many tasks it gets by them."""

    facts: OwnFacts = field(default_factory=list)
    given: dict[Request, int] = field(default_factory=dict)


def begin(pool: Curriculum, wanted: CurriculumSettings | None, launch: int, seed: int) -> OwnFacts:
    """The fact with which a launch says what holds from now on; none when that is said.

    RequestError: a setting changed that shapes the pool, and `wanted.migrate` does not name it.
    """
    if wanted is None or pool.launch >= launch:
        return []
    body: dict[str, Any] = {"launch": launch, "settings": wanted.to_plain()}
    if pool.settings is None:
        return [("curriculum", {**body, "changed": {}, "migrated": {}, "random": Dice.seeded(seed).text})]
    changed, migrated = differences(pool.settings.to_plain(), wanted)
    told = {name: list(values) for name, values in changed.items()}
    return [("curriculum", {**body, "changed": told, "migrated": migrated})]


def decide(
    pool: Curriculum,
    now: int,
    requests: Sequence[tuple[Request, int]] = (),
    lost: Iterable[tuple[str, str, str]] = (),
    lease_seconds: float = 60.0,
    *,
    taken: Callable[[str], bool] = lambda _: False,
    closing: bool = False,
) -> Choices:
    """Decide everything that is due at `now` (the run's clock, ns). `requests` come with the number of tasks to add.

    `lost`: incarnations that will send nothing more. `taken`: whether an id is in use outside of the pool. `closing`:
    an epoch ends behind these facts.
    """
    choices = Choices()
    facts = choices.facts
    gone = list(lost)
    facts += [(kind, dict(body)) for kind, body in pool.owed.values() if kind != "generation_ended"]
    _returns(pool, now, gone, facts)
    _generation_ends(pool, now, gone, facts)
    settings = pool.settings
    if settings is None:
        return choices
    _failures(pool, settings, now, facts)
    room = _accepts(pool, settings, now, taken, facts)
    deadline = now + int(lease_seconds * 1e9)
    _draws(pool, now, requests, deadline, room, choices)
    if closing:
        _evictions(pool, settings, facts)
    return choices


def epoch_due(pool: Curriculum) -> bool:
    """Whether `epoch_outcomes` outcomes have come since the last epoch fact."""
    due = pool.settings.epoch_outcomes if pool.settings is not None else None
    return due is not None and pool.counts.outcomes - pool.epochs.mark["outcomes"] >= due


def dry(pool: Curriculum) -> str:
    """Why nobody will ever be given a task again; empty as long as somebody may be."""
    settings = pool.settings
    if settings is None or pool.entries or pool.candidates or pool.presentations.generating or pool.owed:
        return ""
    gone = ", ".join(f"{count} by {reason}" for reason, count in pool.evictions.items())
    empty = f"the pool is empty{f' (evicted: {gone})' if gone else ''}"
    if pool.exhausted:
        return f"{empty} and there is nothing more to make: {pool.exhausted}"
    if pool.streak >= settings.failures:
        return f"{empty} and making tasks failed {pool.streak} times in a row, the last time: {pool.trouble}"
    return ""


def _returns(pool: Curriculum, now: int, lost: Sequence[tuple[str, str, str]], facts: OwnFacts) -> None:
    returning: dict[int, None] = {}
    for source, incarnation, reason in lost:
        held = sorted(pool.presentations.held.get((source, incarnation), ()))
        if held:
            facts.append(("draw_returned", {"draws": held, "from": source, "reason": reason}))
            returning.update(dict.fromkeys(held))
    late: dict[str, list[int]] = {}
    for number in pool.presentations.expired(now):
        if number not in returning:
            late.setdefault(pool.presentations.open[number].source, []).append(number)
    for source, numbers in late.items():
        facts.append(("draw_returned", {"draws": numbers, "from": source, "reason": "expired"}))


def _generation_ends(pool: Curriculum, now: int, lost: Sequence[tuple[str, str, str]], facts: OwnFacts) -> None:
    ended = {body["generation"]: dict(body) for kind, body in pool.owed.values() if kind == "generation_ended"}
    gone = {(source, incarnation): reason for source, incarnation, reason in lost}
    for name, work in pool.presentations.generating.items():
        if name in ended:
            continue
        reason = gone.get((work.source, work.incarnation))
        if reason is not None or work.deadline <= now:
            body = {"generation": name, "from": work.source, "reason": reason or "expired", "failed": reason is None}
            ended[name] = body
    base = pool.settings.backoff_seconds if pool.settings is not None else 1.0
    streak = pool.streak
    for body in ended.values():
        facts.append(("generation_ended", {**body, "until": now + _pause(base, streak) if body["failed"] else now}))
        streak += bool(body["failed"])


def _pause(base: float, before: int) -> int:
    """Length of the next rest in ns, after so many of them in a row."""
    return int(min(REST_SECONDS, base * 2.0 ** min(before, 60)) * 1e9)


def _failures(pool: Curriculum, settings: CurriculumSettings, now: int, facts: OwnFacts) -> None:
    gone = 0
    for name in pool.failing:
        entry = pool.entries[name]
        if entry.permanent >= settings.permanent_failures:
            facts.append(_eviction(entry, "permanent failure", f"{entry.permanent} permanent failures"))
        elif entry.strikes >= settings.failures:
            facts.append(_eviction(entry, "transient failures", f"{entry.strikes} transient failures in a row"))
        else:
            until = now + _pause(settings.backoff_seconds, max(entry.strikes - 1, 0))
            counts = {"transient": entry.transient, "permanent": entry.permanent}
            facts.append(("pool_rest", {"task": name, "label": entry.label, "until": until, **counts}))
    for name, reason in pool.doomed.items():
        if name in pool.failing:
            continue
        gone += 1
        if gone > EVICTIONS:
            break
        facts.append(_eviction(pool.entries[name], reason, "the setting was changed, and migrated so"))
    while pool.resting and pool.resting[0][0] <= now and not _rests(pool, pool.resting[0]):
        heapq.heappop(pool.resting)  # of a rest that has ended: forgetting it changes no answer
    over: list[tuple[int, str]] = []
    if pool.resting and pool.resting[0][0] <= now:
        over = [rest for rest in pool.resting if rest[0] <= now and _rests(pool, rest)]
    ready = [name for _, name in sorted(over) if name not in pool.failing and name not in pool.doomed]
    if ready:
        facts.append(("pool_ready", {"tasks": ready}))


def _rests(pool: Curriculum, rest: tuple[int, str]) -> bool:
    entry = pool.entries.get(rest[1])
    return entry is not None and entry.resting and entry.until == rest[0]


def _accepts(
    pool: Curriculum, settings: CurriculumSettings, now: int, taken: Callable[[str], bool], facts: OwnFacts
) -> int:
    """Accept what was minted, while there is room. Gives the room that is left."""
    room = settings.capacity - len(pool.entries)
    names: set[str] = set()
    labels: set[str] = set()
    for position, candidates in pool.candidates.items():
        declined: list[list[Any]] = []
        for index, candidate in enumerate(candidates):
            why = _unfit(candidate, settings)
            if not why and (candidate.task in pool.entries or candidate.task in pool.ended or candidate.task in names):
                why = "the id was used already"
            elif not why and taken(candidate.task):
                why = "the id is that of a task outside of the pool"
            elif not why and room <= 0:
                why = FULL
            if not why and candidate.label not in pool.labels and candidate.label not in labels:
                if len(pool.labels) + len(labels) >= LABELS:
                    why = f"the run has {LABELS} different labels already"
                else:
                    labels.add(candidate.label)
            if why:
                declined.append([index, candidate.task, why])
            else:
                names.add(candidate.task)
                room -= 1
        body: dict[str, Any] = {"of": position, "accepted": len(candidates) - len(declined), "declined": declined}
        if declined and not body["accepted"] and all(why != FULL for _, _, why in declined):
            body["until"] = now + _pause(settings.backoff_seconds, pool.streak)  # or it would be asked again at once
        facts.append(("pool_accept", body))
    return room


def _unfit(candidate: Candidate, settings: CurriculumSettings) -> str:
    if not isinstance(candidate.label, str):
        return f"a label is a text, not {type(candidate.label).__name__}"
    if not 1 <= len(candidate.label) <= TEXT:
        return f"a label has 1 to {TEXT} characters, not {len(candidate.label)}"
    if not 1 <= len(candidate.task) <= TEXT:
        return f"an id has 1 to {TEXT} characters, not {len(candidate.task)}"
    if len(candidate.body) > MAX_BODY:  # as written here it may be longer than its source wrote it
        return f"a body has at most {MAX_BODY} characters, not {len(candidate.body)}"
    if candidate.form != settings.form:
        return f"it was minted under schema {candidate.form}, the run has {settings.form}"
    return ""


def _draws(  # noqa: PLR0917
    pool: Curriculum,
    now: int,
    requests: Sequence[tuple[Request, int]],
    deadline: int,
    room: int,
    choices: Choices,
) -> None:
    settings = pool.settings
    assert settings is not None
    room -= sum(work.most for work in pool.presentations.generating.values())
    works = len(pool.presentations.generating)
    made, drawn = pool.counts.generated, pool.counts.draws
    resting = bool(pool.exhausted) or now < pool.generate_after
    dice = Dice.of(pool.random)
    for request, most in requests:
        given = 0
        whose = {"to": request.source, "incarnation": request.incarnation, "request": request.request}
        if request.generate and most > 0 and room > 0 and works < settings.generating and not resting:
            wanted = min(room, settings.generate)
            room -= wanted
            works += 1
            made += 1
            until = now + int(settings.generate_seconds * 1e9)
            body = {"generation": f"generation-{made}", "most": wanted, **whose, "deadline": until}
            choices.facts.append(("generate", body))
            given += 1
        names: list[str] = []
        size = 0
        while given + len(names) < most and size < DRAWN_BYTES and pool.urn is not None:
            entry = pool.urn.draw(dice, drawn + len(names))
            if entry is None:
                break
            names.append(entry.name)
            size += sum(len(text.encode()) for text in (entry.name, entry.label, entry.body))
        if names:
            body = {**whose, "deadline": deadline, "first": drawn + 1, "tasks": names, "random": dice.text}
            choices.facts.append(("draw", body))
            drawn += len(names)
        choices.given[request] = given + len(names)


def _evictions(pool: Curriculum, settings: CurriculumSettings, facts: OwnFacts) -> None:
    """Of the worst by score, those that had their presentations: at most `evict_share` of the pool."""
    assert pool.urn is not None
    ranking = pool.urn.ranking
    size = len(pool.entries) - len(pool.failing) - len(pool.doomed)
    quota = min(
        math.ceil(size * settings.evict_share), size - math.ceil(settings.capacity * settings.keep_share), EVICTIONS
    )
    left = int(len(ranking) * settings.worst_share)
    for group in ranking.worst_first():
        if quota <= 0 or left <= 0:
            return
        for entry in heapq.nsmallest(min(left, len(group)), group, key=lambda entry: (entry.raw, entry.order)):
            left -= 1
            if entry.count >= settings.min_presentations and quota > 0:
                quota -= 1
                note = f"score {entry.raw:.4g}, among the worst {settings.worst_share:.0%} after {entry.count} outcomes"
                facts.append(_eviction(entry, "score", note))


def _eviction(entry: Entry, reason: str, note: str) -> tuple[str, dict[str, Any]]:
    seen = {"raw": entry.raw, "mean": entry.mean, "outcomes": entry.count, "draws": entry.draws}
    return "pool_evict", {"task": entry.name, "label": entry.label, "reason": reason, "note": note, **seen}
