"""Reflective evolution along a Pareto front: Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform
Reinforcement Learning" (arXiv 2507.19457), algorithms 1 and 2, for one prompt (so without the choice of a module, and
without merging, which is between modules).

A pool of templates, each scored on every validation task. A proposal draws a parent from the front per instance
(`learners.prompts.pareto`), shows a model its transcripts on a minibatch of training tasks, and gets a new template;
if that does better on the same minibatch it is scored on the whole validation set and joins the pool. The best is the
one of the highest mean there.

What differs from algorithm 1: the proposals of a round are made side by side, all from the pool as it was when the
round began, since waiting for each other would make them sequential; and a parent that had full reward on its whole
minibatch is not reflected upon, since no child can do better.

Invariant: a proposal waits for its own results only, from its minibatch to its last validation score; the pool changes
at one barrier a round.
"""

from __future__ import annotations

import math
from random import Random

from learners.prompts import messages, pareto
from learners.prompts.search import Search, Template


class Gepa(Search):
    """The program of "gepa"."""

    async def program(self) -> str:
        """All rounds, or as many as the budgets bear."""
        pool = [await self.first()]
        for number in range(1, self.settings.rounds + 1):
            proposals = self.children_affordable(number - 1, self._work)
            if not proposals:
                return self.ending(number - 1, budget=True)
            self.keep(pool, number)
            scores = [self.rewards(template, "validation", self.everything) for template in pool]
            front = pareto.front(scores)
            earlier = frozenset(self.templates)
            parts = [
                self.machine.start(
                    self._proposal((number, candidate), sequence, pool[self._draw(front, sequence)], proposals, earlier)
                )
                for candidate, sequence in enumerate(self.sequence(proposals))
            ]
            accepted = self.settle_twins([await part for part in parts])
            pool = [*pool, *accepted]
            self._join(number, pool, accepted)
        return self.ending(self.settings.rounds, budget=False)

    async def _proposal(
        self, place: tuple[int, int], sequence: int, parent: Template, proposals: int, earlier: frozenset[str]
    ) -> Template | None:
        """One proposal, from its minibatch to its scores; None where it came to nothing."""
        number, candidate = place
        items = self.batch("training", self.settings.gradient_batch, sequence)
        before = await self.answers(parent, "training", items, number)
        transcripts = self.transcripts(items, before)
        if not transcripts:
            return None  # all rollouts are missing, which facts already say
        if all(transcript.result.reward == 1.0 for transcript in transcripts):
            self.refuse(place, parent, "its parent had full reward on the whole minibatch: there is nothing to improve")
            return None
        wanted = messages.reflection(parent.text, transcripts, self.placeholders, (candidate + 1, proposals), sequence)
        (reflected,) = await self.machine.ask([wanted], number)
        if reflected.missing:
            return None
        if reflected.failed:
            self.refuse(place, parent, f"the reflection failed: {reflected.reason}")
            return None
        child = self.child(messages.template_of(reflected.text), parent, "", place, earlier)
        if child is None:
            return None
        await self.answers(child, "training", items, number)
        pairs = zip(self.rewards(child, "training", items), self.rewards(parent, "training", items), strict=True)
        both = [(after, earned) for after, earned in pairs if after is not None and earned is not None]
        if both and math.fsum(after for after, _ in both) <= math.fsum(earned for _, earned in both):
            return None  # without a pair to compare, the child goes on
        await self.answers(child, "validation", self.everything, number)
        return child

    def _draw(self, front: dict[int, int], sequence: int) -> int:
        return pareto.draw(front, Random(f"{self.seed}/parent/{sequence}"))

    def _join(self, number: int, pool: list[Template], accepted: list[Template]) -> None:
        """The round's end: who joined, and the best of all."""
        for template in accepted:
            mean = self.mean(template, "validation", self.everything)
            if mean is not None and mean > self.best_mean:
                self.best, self.best_mean = template, mean
        self.keep(pool, number)
        measured = [(mean, t) for t in accepted if (mean := self.mean(t, "validation", self.everything)) is not None]
        _, leader = max(measured, key=lambda arm: (arm[0], [-n for n in arm[1].order]), default=(0.0, self.best))
        scores = [self.rewards(template, "validation", self.everything) for template in pool]
        self._tell_round(number, leader, [pool[place] for place in pareto.front(scores)])

    def _work(self, proposals: int) -> tuple[int, int]:
        """Answers and completions of a round with so many proposals, at most."""
        minibatch = min(self.settings.gradient_batch, len(self.workload.training))
        return proposals * (2 * minibatch + len(self.workload.validation)), proposals
