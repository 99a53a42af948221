"""The same optimisation, candidate by candidate: a re-enactment of the schedule of agent-lightning's APO.

Invariant: it asks for the same completions as the search that it is compared with (same names, same decisions, nothing
asked twice) through the same client; only the order differs. Candidates are made one after another (transcripts side by
side, then the critique, then the edit), then scored one after another (a batch side by side), then the leader is.

    python -m bench.prompt_one_by_one '{"run": ..., "seed": N, "at_once": N}'
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from actors.prompts.rollout import Answers
from actors.rollout import LeasedTask, Parameters, RolloutContext
from bench.children import options
from learners.prompts.gradients import BeamSearch
from learners.prompts.requests import Request, read
from learners.prompts.search import Template
from learners.prompts.settings import checked
from learners.prompts.workload import workload_of


class OneByOne(BeamSearch):
    """Textual gradients without anything side by side but the rollouts of one batch. `race` is "none"."""

    async def program(self) -> str:
        """All rounds."""
        beam = [await self.first()]
        for number in range(1, self.settings.rounds + 1):
            self.keep(beam, number)
            beam = await self._round(number, beam, self.settings.proposals)
            self.keep(beam, number)
            await self.lead(number, beam[0], None)
        return self.ending(self.settings.rounds, budget=False)

    async def _round(self, number: int, beam: list[Template], children: int) -> list[Template]:
        batch = self.batch("validation", self.settings.validation_batch, number - 1)
        earlier = frozenset(self.templates)
        parents = [beam[slot % self.settings.beam % len(beam)] for slot in range(children)]
        made = [
            await self._candidate((number, candidate), sequence, parents, [], earlier)
            for candidate, sequence in enumerate(self.sequence(children))
        ]
        arms = sorted([*beam, *self.settle_twins(made)], key=lambda template: template.order)
        for template in arms:
            await self.answers(template, "validation", batch, number)
        means = {template.identity: self.mean(template, "validation", batch) for template in arms}
        return sorted(arms, key=lambda t: (-means[t.identity], t.order))[: self.settings.beam]


async def optimise(run: dict[str, Any], seed: int, at_once: int) -> dict[str, Any]:
    """The whole search; seconds from its first request to its end, and what it came to."""
    settings = checked(run["learner"]["settings"], "textual_gradients")
    search = OneByOne(settings, workload_of(run, "textual_gradients"), seed * 7919)
    rollout = Answers(RolloutContext("actor-0", 0, seed, {}, run=run))
    slots = asyncio.Semaphore(at_once)
    began = time.time()

    async def done(request: Request) -> tuple[str, Any]:
        async with slots:
            texts = {name: template.text for name, template in search.templates.items()}
            published = Parameters((1, 0), {"templates": texts})
            name = f"answerer/{request.name}"
            outcome = await rollout.run(LeasedTask(name, "answerer", request.body), {"answerer": published})
        return request.name, read(outcome.result)

    search.begin()
    tasks = 0
    while search.reason is None:
        batch = search.machine.take()
        tasks += len(batch)
        for name, result in await asyncio.gather(*map(done, batch)):
            search.machine.give(name, result)
    spent = time.time() - began
    await rollout.close()
    return {"seconds": spent, "tasks": tasks, "best": search.best.identity, "best_mean": search.best_mean}


def main() -> None:
    """One search."""
    asked = options()
    print(json.dumps(asyncio.run(optimise(asked["run"], asked["seed"], asked["at_once"]))), flush=True)


if __name__ == "__main__":
    main()
