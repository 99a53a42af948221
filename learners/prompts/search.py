"""What both searches share: templates and their lineage, scores, children, the best, what was spent, facts.

Invariants: a template is tested once, whoever writes it again; a child whose placeholders differ from its parent's
costs no rollout; a rollout that failed because of its template counts as 0 in every mean, and a missing one counts in
none; a score is asked for once (template, split, item); and decisions and facts depend on results by their names alone,
never on the order in which they arrive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from actors.scoring.template import MAX_TEMPLATE, identity, placeholders, refusal
from broker.errors import RequestError, RunError
from learners.prompts.budget import Spent, affordable, spent_on
from learners.prompts.machine import Asked, Machine, Part
from learners.prompts.messages import Transcript
from learners.prompts.requests import Answer, Result, Split
from learners.prompts.settings import SearchSettings


@dataclass(frozen=True)
class Workload:
    """What is optimised: the template to begin with, and the tasks of both splits."""

    template: str
    training: Sequence[Mapping[str, Any]]
    validation: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Template:
    """A template that is tested, and where it comes from."""

    text: str
    parent: str | None = None
    """The parent's identity; None of the first template."""
    critique: str = ""
    """What it answers; empty where the model reflected and edited in one."""
    round: int = 0
    candidate: int = 0
    """Its place among the children of its round."""

    @cached_property
    def identity(self) -> str:
        """Its name: a hash of its text."""
        return identity(self.text)

    @property
    def order(self) -> tuple[int, int]:
        """Who was first."""
        return (self.round, self.candidate)


class Search:
    """The state of a search. A subclass is a program: `program` runs the rounds and gives the reason of its end."""

    def __init__(
        self, settings: SearchSettings, workload: Workload, seed: int, results: Mapping[str, Result] | None = None
    ) -> None:
        self.settings, self.workload, self.seed = settings, workload, seed
        self.machine = Machine(dict(results or {}))
        self.placeholders = placeholders(workload.template)
        self.templates: dict[str, Template] = {}
        """Every template that was accepted for a test, by identity."""
        self.kept: list[Template] = []
        """The beam, or the pool: those whose children may come."""
        self.leaders: list[Template] = []
        """Those whose score on the whole validation set is still awaited."""
        self.best = Template(workload.template)
        self.best_mean = 0.0
        self.scored = False
        """Whether the first template has its score: from then on it is known what a rollout takes."""
        self.round = 0
        self.changes = 0
        """Grows whenever what `published` gives may have changed."""
        self.reason: str | None = None
        """Why there is nothing left to do."""
        self.failure: str | None = None
        """Why the search cannot go on; None if it can."""
        self.facts: list[tuple[str, dict[str, Any]]] = []
        """(kind, body), in the order in which they are to be said."""
        self._proposed = 0
        self._ended_stages: dict[int, Spent] = {-1: Spent()}
        if settings.calls is not None and settings.calls < len(workload.validation):
            raise RequestError(
                f"learner.settings.calls: {settings.calls} calls do not even score the first template on the "
                f"{len(workload.validation)} validation tasks; allow more, or take fewer tasks"
            )

    def begin(self) -> None:
        """Run the program to its first wait."""
        self.machine.start(self._run())

    async def program(self) -> str:
        """The search; why it ended."""
        raise NotImplementedError

    async def _run(self) -> None:
        try:
            self.reason = await self.program()
        except RunError as error:
            self.failure = str(error)

    # --- scores

    def answers(self, template: Template, split: Split, items: Sequence[int], stage: int) -> Asked:
        """Ask for the answers to these items."""
        name = template.identity
        return self.machine.ask([Answer(name, split, item) for item in items], stage)

    def rewards(self, template: Template, split: Split, items: Sequence[int]) -> list[float | None]:
        """Return the rewards of `items` in order, with None for a missing trial."""
        name = template.identity
        results: Any = [self.machine.results[Answer(name, split, item).name] for item in items]
        return [None if result.missing else result.reward for result in results]

    def mean(self, template: Template, split: Split, items: Sequence[int]) -> float | None:
        """Return the mean of the measured rewards, in which a failed rollout is a 0. None if all are missing."""
        rewards = [reward for reward in self.rewards(template, split, items) if reward is not None]
        return math.fsum(rewards) / len(rewards) if rewards else None

    @property
    def everything(self) -> list[int]:
        """The items of the whole validation set."""
        return list(range(len(self.workload.validation)))

    def batch(self, split: Split, size: int, number: int) -> list[int]:
        """The n-th batch of a split, from 0: a pass over all of it in a new random order, batch by batch, and again."""
        count = len(self.workload.training if split == "training" else self.workload.validation)
        size = min(size, count)
        passes, place = divmod(number, count // size)
        order = list(range(count))
        Random(f"{self.seed}/{split}/{passes}").shuffle(order)
        return sorted(order[place * size : (place + 1) * size])

    def transcripts(self, items: Sequence[int], results: Sequence[Any]) -> list[Transcript]:
        """Return the rollouts of training items for a critique, without the missing ones."""
        pairs = zip(items, results, strict=True)
        return [Transcript(self.workload.training[item], result) for item, result in pairs if not result.missing]

    # --- templates

    async def first(self) -> Template:
        """Score the first template on the whole validation set: it is the first best.

        RequestError if not one rollout succeeded, RunError if all are missing: there is nothing to learn from.
        """
        seed = Template(self.workload.template)
        self._tell_template(seed)
        results = await self.answers(seed, "validation", self.everything, 0)
        mean = self.mean(seed, "validation", self.everything)
        if mean is None:
            raise RunError(f"every rollout of the first template is missing, the first one because: {_why(results[0])}")
        if all(result.failed for result in results):
            first = next(result for result in results if not result.missing)
            raise RequestError(
                f"not one of the {len(results)} rollouts of the first template succeeded, the first one because: "
                f"{_why(first)}; repair that, and start a new run"
            )
        self.scored = True
        self.best, self.best_mean = seed, mean
        self.keep([seed], 0)
        self._tell_round(0, seed)
        return seed

    def sequence(self, children: int) -> range:
        """Numbers for the next so many children: never used twice in a search."""
        self._proposed += children
        return range(self._proposed - children, self._proposed)

    def child(
        self, text: str | None, parent: Template, critique: str, place: tuple[int, int], earlier: frozenset[str]
    ) -> Template | None:
        """Make the child to test and record it as a fact; None (and a fact with the reason) if it is refused.

        `text` is None if the reply has no template; `place` is round and candidate; `earlier` has the identities of
        all templates of earlier rounds.
        """
        child = Template(text or "", parent.identity, critique, *place)
        if text is None:
            why: str | None = "the reply does not have the required <template>...</template>"
        elif not text:
            why = "the edit is empty"
        else:
            why = refusal(parent.text, text)
        if why is None and child.identity in earlier:
            why = f"it was tested already, as {child.identity}"
        if why is not None:
            self.refuse(place, parent, why, child.text)
            return None
        known = self.templates.get(child.identity)
        if known is None or child.order < known.order:
            self.templates[child.identity] = child
        self._tell_template(child)
        return child

    def refuse(self, place: tuple[int, int], parent: Template, reason: str, text: str = "") -> None:
        """Tell that a candidate came to nothing."""
        body = {"text": text[:MAX_TEMPLATE], "parent": parent.identity, "round": place[0], "candidate": place[1]}
        self.facts.append(("refused_template", body | {"reason": reason}))

    def settle_twins(self, children: Sequence[Template | None]) -> list[Template]:
        """Children of a round that is over, each text once: of twins the first candidate's stands, others are told."""
        standing: dict[str, Template] = {}
        for child in children:
            if child is None:
                continue
            first = standing.setdefault(child.identity, child)
            if first is not child:
                parent = self.templates[child.parent or ""]
                why = f"candidate {first.candidate} of this round wrote it too, as {child.identity}"
                self.refuse(child.order, parent, why, child.text)
        return list(standing.values())

    def keep(self, kept: list[Template], round_: int) -> None:
        """A round ends with these templates, or begins."""
        self.kept, self.round = kept, round_
        self.changes += 1

    def _tell_template(self, template: Template) -> None:
        self.changes += 1
        self.templates.setdefault(template.identity, template)
        body = {
            "template": template.identity,
            "text": template.text,
            "parent": template.parent,
            "critique": template.critique,
            "round": template.round,
            "candidate": template.candidate,
            "placeholders": sorted(placeholders(template.text)),
        }
        self.facts.append(("template", body))

    # --- the best

    async def lead(self, round_: int, leader: Template, before: Part[None] | None) -> None:
        """Score the leader of a round on the whole validation set: the best if it is strictly better."""
        self.leaders.append(leader)
        self.changes += 1
        kept = list(self.kept)
        await self.answers(leader, "validation", self.everything, round_)
        if before is not None:
            await before  # the best is decided round after round
        self.leaders.remove(leader)
        self.changes += 1
        mean = self.mean(leader, "validation", self.everything)
        if mean is not None and mean > self.best_mean:
            self.best, self.best_mean = leader, mean
        self._tell_round(round_, leader, kept)

    def _tell_round(self, round_: int, leader: Template, kept: Sequence[Template] | None = None) -> None:
        usage = self.spent(round_).total
        body = {
            "round": round_,
            "rounds": self.settings.rounds,
            "beam": [template.identity for template in (self.kept if kept is None else kept)],
            "leader": leader.identity,
            "leader_mean": self.mean(leader, "validation", self.everything),
            "best": self.best.identity,
            "best_mean": self.best_mean,
            "calls": usage.calls,
            "tokens": usage.tokens,
            "cost": usage.cost,
        }
        self.facts.append(("round", body))

    def ending(self, rounds: int, budget: bool) -> str:
        """The reason of an end in good order."""
        why = "the budget bears no further round" if budget else "all rounds are done"
        mean = f"{self.best_mean:.4g} over {len(self.workload.validation)} validation tasks"
        return f"{why} ({rounds} of {self.settings.rounds}): the best template is {self.best.identity}, mean {mean}"

    # --- what was spent

    def spent(self, stage: int) -> Spent:
        """What the stages up to this one took, once all that they asked for is there. Stage 0 is the first template."""
        if stage not in self._ended_stages:
            names = self.machine.stages.get(stage, ())
            own = spent_on(self.machine.results[name] for name in names)
            self._ended_stages[stage] = self.spent(stage - 1) + own
        return self._ended_stages[stage]

    def children_affordable(self, stage: int, work: Any) -> int:
        """How many children the round after this stage may have. `work` as in `learners.prompts.budget.affordable`."""
        if not self.settings.budgeted:
            return self.settings.proposals
        return affordable(self.settings, self.spent(stage), self.settings.proposals, work)

    def published(self) -> dict[str, Any]:
        """The policy's parameters: the templates that runners may need, the best one, the round."""
        live = (
            [t for t in self.templates.values() if t.round >= self.round - 1] + self.kept + self.leaders + [self.best]
        )
        texts = {template.identity: template.text for template in sorted(live, key=lambda template: template.order)}
        return {"templates": texts, "best": self.best.identity, "round": self.round}


def _why(result: Result) -> str:
    return result.reason or "it did not say why"
