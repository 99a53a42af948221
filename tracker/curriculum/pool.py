"""The curriculum as a fold: which tasks there are, what came of them, and what is owed to the ledger because of it.

Invariants: the fold draws no random number and reads no clock. The tracker's choices (which minted tasks are
accepted, who draws what, who rests until when, who is evicted, the random state after) are facts that it applies; the
decisions are in `tracker.curriculum.decisions`. An id is used once, ever. An outcome that cannot count changes no
score, and is answered by a fact. Applying a fact costs the same whatever the size of the pool.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from broker.delivery import body_text
from tracker.curriculum.counters import LabelTally
from tracker.curriculum.entry import Entry
from tracker.curriculum.presentations import Generating
from tracker.curriculum.settings import CurriculumSettings
from tracker.curriculum.state import Candidate, PoolState
from tracker.facts import Fact


class Curriculum(PoolState):
    """The fold. Without a `curriculum` fact it has no settings, and no pool."""

    version = 4
    kinds = frozenset(
        [
            "curriculum",
            "mint",
            "pool_accept",
            "draw",
            "outcome",
            "rollout_error",
            "draw_returned",
            "outcome_refused",
            "late_outcome",
            "pool_rest",
            "pool_ready",
            "pool_evict",
            "generate",
            "generation_failed",
            "generation_ended",
            "liveness",
            "epoch",
        ]
    )

    def apply(self, fact: Fact) -> None:
        """Take one fact."""
        self.taker(fact.kind)(fact)

    def taker(self, kind: str) -> Callable[[Fact], None]:
        """What takes facts of this kind."""
        taker: Callable[[Fact], None] = getattr(self, f"_{kind}")
        return taker

    # --- settings

    def _curriculum(self, fact: Fact) -> None:
        body = fact.body
        known = {field.alias or name for name, field in CurriculumSettings.model_fields.items()}
        settings = CurriculumSettings.model_validate({k: v for k, v in body["settings"].items() if k in known})
        before = self.settings
        self.launch, self.exhausted, self.generate_after, self.streak = body["launch"], "", 0, 0
        if "random" in body:
            self.random = body["random"]
        if before == settings:
            return
        self.settle(settings, body.get("migrated", {}))

    # --- tasks come

    def _mint(self, fact: Fact) -> None:
        body = fact.body
        work = self.presentations.generating.get(body.get("generation") or "")
        mine = work is not None and (work.source, work.incarnation) == (fact.source, fact.incarnation)
        if mine and body.get("last", True):
            del self.presentations.generating[body["generation"]]
        if self.settings is not None:
            form, policy = self.settings.form, body.get("policy")
            found = [
                Candidate(item["task"], item["label"], policy, body_text(item["body"]), form)
                for item in body["tasks"]
                if "label" in item
            ]
            if found:
                self.candidates[fact.position] = found

    def _pool_accept(self, fact: Fact) -> None:
        candidates = self.candidates.pop(fact.body["of"], [])
        declined = {index for index, _, _ in fact.body["declined"]}
        self.counts.declined += len(declined)
        if "until" in fact.body:  # nothing of it was new: as good as a failure, and paused for as one
            self._trouble(f"no task that was given was taken: {fact.body['declined'][0][2]}", fact.body["until"])
        elif fact.body["accepted"]:
            self.streak = 0
        for index, candidate in enumerate(candidates):
            known = candidate.task in self.entries or self.ended.before(candidate.task, fact.position)
            if index not in declined and not known and isinstance(candidate.label, str):
                self._accept(candidate)

    def _accept(self, candidate: Candidate) -> None:
        assert self.urn is not None
        self.counts.minted += 1
        if self.free:
            slot = self.free.pop()
        else:
            slot = self.slots
            self.slots += 1
        task, label, policy, body, form = candidate
        entry = Entry(task, self.counts.minted, slot, label, policy, body, form, drawn_at=self.counts.draws)
        self.entries[task] = entry
        tally = self.labels.setdefault(label, LabelTally())
        tally.tasks += 1
        tally.minted += 1
        self.draws_histogram.add(0)
        self.urn.put(entry)

    # --- tasks are drawn, played, and come back

    def _draw(self, fact: Fact) -> None:
        body = fact.body
        names: list[str] = body["tasks"]
        self.random = body["random"]
        for number, name in enumerate(names, body["first"]):
            entry = self.changing(name)
            if entry is None or self.urn is None:
                continue
            self.draws_histogram.move(entry.draws, entry.draws + 1)
            entry.draws += 1
            entry.drawn_at = number
            self.labels[entry.label].draws += 1
            if not entry.resting:
                self.urn.put(entry)
        self.counts.draws += len(names)
        holder = (body["to"], body["incarnation"])
        self.presentations.draw(body["first"], names, holder, body["request"], body["deadline"])

    def _outcome(self, fact: Fact) -> None:
        body = fact.body
        number = body.get("draw")
        if number is None:
            return  # of a task that is played once: `tracker.tasks` has it
        entry = self._concerned(fact, number)
        if entry is None:
            return
        score = body["score"]
        if score is None or not 0.0 <= score <= 1.0:
            self._refuse(fact, f"a score is a number from 0 to 1, not {score if score is not None else 'NaN'}")
            self._failed(entry, permanent=False)
            return
        self.counts.outcomes += 1
        tally = self.labels[entry.label]
        tally.outcomes += 1
        tally.total += score
        entry.count += 1
        entry.total += score
        entry.strikes = 0
        assert self.scorer is not None
        assert self.urn is not None
        self.score(entry, self.scorer.observe(entry, score))
        if not entry.resting:
            self.urn.put(entry)

    def _rollout_error(self, fact: Fact) -> None:
        number = fact.body.get("draw")
        entry = self._concerned(fact, number) if number is not None else None
        if entry is not None:
            self._failed(entry, permanent=fact.body["permanent"])

    def _concerned(self, fact: Fact, number: int) -> Entry | None:
        """The task that this outcome or failure is of, its draw closed; None if it cannot count, which is owed then."""
        name = fact.body["task"]
        holder = (fact.source, fact.incarnation)
        fits = self.presentations.find(number, name, holder)
        if fits:
            self.presentations.close(number, holder)
        entry = self.changing(name)
        if entry is None and self.ended.before(name, fact.position):
            self.counts.late += 1
            late = {"task": name, "from": fact.source, "of": fact.position, "score": fact.body.get("score")}
            self.owed[f"late_outcome:{fact.position}"] = ("late_outcome", late)
        elif entry is None:
            self._refuse(fact, "no task of the pool has this id")
        elif not fits:
            self._refuse(fact, f"draw {number} of this task is not open for {fact.source}")
            return None
        return entry

    def _refuse(self, fact: Fact, reason: str) -> None:
        self.counts.refused += 1
        body = {"task": fact.body["task"], "from": fact.source, "of": fact.position, "reason": reason}
        self.owed[f"outcome_refused:{fact.position}"] = ("outcome_refused", body)

    def _failed(self, entry: Entry, *, permanent: bool) -> None:
        tally = self.labels[entry.label]
        if permanent:
            entry.permanent += 1
            tally.permanent += 1
            self.counts.permanent += 1
        else:
            entry.transient += 1
            tally.transient += 1
            self.counts.transient += 1
        if not entry.resting:  # failures at one time are one strike: they may have one cause outside of the task
            entry.strikes += 1
            entry.resting = True
            assert self.urn is not None
            self.urn.take(entry)
            self.failing[entry.name] = None
        elif permanent and entry.name not in self.doomed:
            self.failing[entry.name] = None

    def _pool_rest(self, fact: Fact) -> None:
        name = fact.body["task"]
        self.failing.pop(name, None)
        entry = self.changing(name)
        if entry is not None and entry.resting:
            entry.until = fact.body["until"]
            heapq.heappush(self.resting, (entry.until, name))

    def _pool_ready(self, fact: Fact) -> None:
        for name in fact.body["tasks"]:
            entry = self.changing(name)
            if entry is not None and entry.resting and self.urn is not None:
                entry.resting, entry.until = False, 0
                self.urn.put(entry)

    def _draw_returned(self, fact: Fact) -> None:
        for number in fact.body["draws"]:
            drawn = self.presentations.give_back(number)
            if drawn is not None:
                self.counts.returned += 1
                entry = self.changing(drawn.task)
                if entry is not None:
                    entry.returned += 1
                    self.labels[entry.label].returned += 1

    def _outcome_refused(self, fact: Fact) -> None:
        self.owed.pop(f"{fact.kind}:{fact.body['of']}", None)

    _late_outcome = _outcome_refused

    def _liveness(self, fact: Fact) -> None:
        if fact.body["state"] in ("lost", "left"):
            self.presentations.gone((fact.body["role"], fact.body["incarnation"]))

    # --- tasks go

    def _pool_evict(self, fact: Fact) -> None:
        name, reason = fact.body["task"], fact.body["reason"]
        self.failing.pop(name, None)
        self.doomed.pop(name, None)
        entry = self.entries.pop(name, None)
        if entry is None or self.urn is None:
            return
        self.urn.take(entry)
        self.free.append(entry.slot)
        self.ended.add(name, fact.position)
        self.counts.evicted += 1
        self.evictions[reason] = self.evictions.get(reason, 0) + 1
        self.draws_histogram.remove(entry.draws)
        tally = self.labels[entry.label]
        tally.tasks -= 1
        tally.evicted += 1
        tally.levels -= entry.level

    def _epoch(self, fact: Fact) -> None:
        self.epochs.close(fact.body["epoch"], self.counts, self.evictions)

    # --- new tasks are made

    def _generate(self, fact: Fact) -> None:
        body = fact.body
        self.counts.generated += 1
        work = Generating(body["most"], body["to"], body["incarnation"], body["request"], body["deadline"])
        self.presentations.generate(body["generation"], work)

    def _generation_failed(self, fact: Fact) -> None:
        body = fact.body
        name = body["generation"]
        work = self.presentations.generating.get(name)
        if work is not None and (work.source, work.incarnation) == (fact.source, fact.incarnation):
            if body.get("permanent", False):
                self.exhausted = body["reason"][:500]
            self.owed[f"generation_ended:{name}"] = (
                "generation_ended",
                {
                    "generation": name,
                    "from": fact.source,
                    "reason": body["reason"][:500],
                    "failed": not body.get("permanent", False),  # a source that is at its end did not fail
                },
            )

    def _generation_ended(self, fact: Fact) -> None:
        body = fact.body
        self.owed.pop(f"generation_ended:{body['generation']}", None)
        self.presentations.generating.pop(body["generation"], None)
        if body["failed"]:
            self._trouble(body["reason"], body["until"])

    def _trouble(self, reason: str, until: int) -> None:
        self.streak += 1
        self.trouble = reason
        self.counts.generation_failures += 1
        self.generate_after = max(self.generate_after, until)
