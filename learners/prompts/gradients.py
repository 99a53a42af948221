"""Beam search on textual gradients: Pryzant et al. 2023, "Automatic Prompt Optimization with 'Gradient Descent' and
Beam Search" (arXiv 2305.03495), algorithms 1 and 2.

The first template is scored on the whole validation set and is the best. Each round: every parent of the beam is asked
for children, each from a training batch of its own (transcripts, a critique, an edit that answers it); beam and
children are scored on the same validation batch, and the best of them are the next beam; the first of them is scored
on the whole validation set and is the best if it is strictly better.

Invariant: a candidate waits for its own results only. All meet at one barrier a round; the score of the leader on the
whole set is awaited beside the next round (before it where there is a budget: what it took must be known).
"""

from __future__ import annotations

import math
from functools import partial

from learners.prompts import messages, racing
from learners.prompts.machine import Part
from learners.prompts.search import Search, Template


class BeamSearch(Search):
    """The program of "textual_gradients"."""

    async def program(self) -> str:
        """All rounds, or as many as the budgets bear."""
        settings = self.settings
        beam = [await self.first()]
        leading: Part[None] | None = None
        for number in range(1, settings.rounds + 1):
            if settings.budgeted and leading is not None:
                await leading
            children = self.children_affordable(number - 1, partial(self._work, len(beam)))
            if not children:
                return self.ending(number - 1, budget=True)
            self.keep(beam, number)
            beam = await self._round(number, beam, children)
            self.keep(beam, number)
            leading = self.machine.start(self.lead(number, beam[0], leading))
        if leading is not None:
            await leading
        return self.ending(settings.rounds, budget=False)

    async def _round(self, number: int, beam: list[Template], children: int) -> list[Template]:
        """One round up to its barrier: the next beam, best first."""
        settings = self.settings
        batch = self.batch("validation", settings.validation_batch, number - 1)
        at_once = batch[: self._first_pulls(len(beam) + children, len(batch))]
        for template in beam:  # asked for now, awaited at the barrier
            self.answers(template, "validation", at_once, number)
        earlier = frozenset(self.templates)
        # The beam, repeated up to its width, and each of these branched.
        parents = [beam[slot % settings.beam % len(beam)] for slot in range(children)]
        parts = [
            self.machine.start(self._candidate((number, candidate), sequence, parents, at_once, earlier))
            for candidate, sequence in enumerate(self.sequence(children))
        ]
        written = self.settle_twins([await part for part in parts])
        arms = sorted([*beam, *written], key=lambda template: template.order)
        for template in arms:
            await self.answers(template, "validation", at_once, number)
        match settings.race:
            case "none":
                pulls = dict.fromkeys((template.identity for template in arms), len(batch))
            case "successive_rejects":
                pulls = await self._rejects(number, arms, batch)
            case "ucb":
                pulls = await self._ucb(number, arms, batch, len(at_once))
        staying = [template for template in arms if template.identity in pulls]
        means = {t.identity: self.mean(t, "validation", batch[: pulls[t.identity]]) for t in staying}
        measured = [(mean, t.order, t) for t in staying if (mean := means[t.identity]) is not None]
        best = [template for _, _, template in sorted(measured, key=lambda arm: (-arm[0], arm[1]))[: settings.beam]]
        # A candidate whose trials are all missing cannot be compared: it stays, after the measured ones.
        return best + [template for template in staying if means[template.identity] is None]

    async def _candidate(
        self,
        place: tuple[int, int],
        sequence: int,
        parents: list[Template],
        at_once: list[int],
        earlier: frozenset[str],
    ) -> Template | None:
        """Transcripts, critique, edit, and the child's first scores; None where it came to nothing."""
        number, candidate = place
        parent = parents[candidate]
        brother = (parents[: candidate + 1].count(parent), parents.count(parent))
        items = self.batch("training", self.settings.gradient_batch, sequence)
        results = await self.answers(parent, "training", items, number)
        transcripts = self.transcripts(items, results)
        if not transcripts:
            return None  # all rollouts are missing, which facts already say
        (criticism,) = await self.machine.ask([messages.critique(parent.text, transcripts, sequence)], number)
        if criticism.missing:
            return None
        critique = criticism.text.strip()[: messages.LONGEST_CRITIQUE]
        if not critique:
            self.refuse(place, parent, _empty("critique", criticism))
            return None
        wanted = messages.edit(parent.text, critique, self.placeholders, brother, sequence)
        (edited,) = await self.machine.ask([wanted], number)
        if edited.missing:
            return None
        if edited.failed:
            self.refuse(place, parent, _empty("edit", edited))
            return None
        child = self.child(messages.template_of(edited.text), parent, critique, place, earlier)
        if child is not None:
            await self.answers(child, "validation", at_once, number)
        return child

    # --- races

    def _first_pulls(self, arms: int, batch: int) -> int:
        """How many questions of the batch everybody is scored on at once, before it is known who takes part."""
        match self.settings.race:
            case "none":
                return batch
            case "successive_rejects":
                schedule = racing.rejects(arms, self.settings.beam, self._race_budget(arms, batch), batch)
                return schedule[0] if schedule else batch
            case "ucb":
                return racing.step_size(batch)

    def _race_budget(self, arms: int, batch: int) -> int:
        return max(arms, math.floor(self.settings.race_share * arms * batch))

    async def _rejects(self, number: int, arms: list[Template], batch: list[int]) -> dict[str, int]:
        """Successive rejects: who stays, and on how many questions of the batch they were scored."""
        left, had = list(arms), len(batch)
        for had in racing.rejects(len(arms), self.settings.beam, self._race_budget(len(arms), len(batch)), len(batch)):
            asked = [self.answers(template, "validation", batch[:had], number) for template in left]
            for answers in asked:
                await answers
            measured = [(mean, t) for t in left if (mean := self.mean(t, "validation", batch[:had])) is not None]
            if len(measured) > self.settings.beam:
                left.remove(min(measured, key=lambda arm: (arm[0], [-n for n in arm[1].order]))[1])
        for answers in [self.answers(template, "validation", batch[:had], number) for template in left]:
            await answers
        return {template.identity: had for template in left}

    async def _ucb(self, number: int, arms: list[Template], batch: list[int], first: int) -> dict[str, int]:
        """UCB: on how many questions of the batch each was scored."""
        pulls = [first] * len(arms)
        budget = self._race_budget(len(arms), len(batch))
        while True:
            means = [self.mean(t, "validation", batch[:had]) for t, had in zip(arms, pulls, strict=True)]
            # A missing mean counts as the best possible one, so that its arm is pulled again.
            hopeful = [1.0 if mean is None else mean for mean in means]
            step = racing.next_pulls(
                hopeful,
                pulls,
                wide=self.settings.beam,
                budget=budget,
                batch=len(batch),
                exploration=self.settings.exploration,
            )
            if not step:
                return {template.identity: had for template, had in zip(arms, pulls, strict=True)}
            asked = [self.answers(arms[arm], "validation", batch[:had], number) for arm, had in step.items()]
            for answers in asked:
                await answers
            for arm, had in step.items():
                pulls[arm] = had

    # --- what a round takes

    def _work(self, wide: int, children: int) -> tuple[int, int]:
        """Answers and completions of a round with so many children, at most."""
        whole = len(self.workload.validation)
        batch = min(self.settings.validation_batch, whole)
        arms = wide + children
        compared = arms * batch if self.settings.race == "none" else self._race_budget(arms, batch)
        return children * min(
            self.settings.gradient_batch, len(self.workload.training)
        ) + compared + whole, 2 * children


def _empty(what: str, completed: object) -> str:
    reason = getattr(completed, "reason", "")
    return f"the {what} {'failed: ' + reason if getattr(completed, 'failed', False) else 'is empty'}"
