"""The searches as algorithms of a learner: `textual_gradients` and `gepa`.

Each is a program (`learners.prompts.search`) behind the protocol of `learners.algorithm`: what it asks for is minted,
the notes of fragments are its results, templates are the parameters, and a snapshot is the results so far.

Invariant: a task is minted only when the parameters that are published hold its template; and since names are made of
content and decisions of results, a learner restored from any snapshot, or from none, mints no name that an
uninterrupted one would not, and finds the same best template. A missing trial is in no snapshot: its task is minted
again, and then the ledger answers that it is missing or, in a resumed run, the task is run again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from broker.errors import RunError
from learners.algorithm import AlgorithmContext, Fragment, Task, Tree
from learners.prompts.budget import exhausted, room
from learners.prompts.gepa import Gepa
from learners.prompts.gradients import BeamSearch
from learners.prompts.missing import too_many
from learners.prompts.requests import Result, Usage, given_up, packed, read, unpacked
from learners.prompts.search import Search, Workload
from learners.prompts.settings import checked
from learners.prompts.workload import workload_of


class PromptSearch:
    """One policy's search. See `learners.algorithm.Algorithm` for what each part promises."""

    name: str
    program: type[Search]

    def __init__(self, context: AlgorithmContext, workload: Workload | None = None) -> None:
        self.settings = checked(context.settings, self.name)
        self.policy = context.policy
        self._seed = context.seed
        self._max_missing_share = float(context.run.get("prompts", {}).get("max_missing_share", 0.1))
        self._workload = workload or workload_of(context.run, self.name)
        self._begin({})

    def _begin(self, results: Mapping[str, Result]) -> None:
        self.search = self.program(self.settings, self._workload, self._seed, results)
        self._used = Usage()
        self._missing: dict[str, Result] = {}
        """Missing results by name."""
        for result in results.values():
            self._count(result.usage)
        self._under_way: set[str] = set()
        """Names that were minted, without a result."""
        self._published = 0
        """The search's `changes` as they were published."""
        self.search.begin()

    def accept(self, fragment: Fragment) -> None:
        """Take a result. One that came before changes nothing; ValueError for one that is none."""
        if fragment.task is None:
            raise ValueError("a result names its task")
        self._take(fragment.task, read(fragment.note))

    def given_up(self, task: str, reason: str) -> None:
        """Record a task that no actor could run as missing."""
        self._take(task, given_up(task.removeprefix(f"{self.policy}/"), reason))

    def _take(self, task: str, result: Result) -> None:
        name = task.removeprefix(f"{self.policy}/")
        self._under_way.discard(name)
        if self.search.machine.give(name, result):
            self._count(result.usage)
            if result.missing:
                self._missing[name] = result

    def ready(self) -> bool:
        """Whether there is something to publish: new templates, a new beam, a new best."""
        return self._published != self.search.changes

    def update(self) -> Mapping[str, float]:
        """Make it the next version; how far the search is, by name."""
        search = self.search
        self._published = search.changes
        return {"round": search.round, "best_mean": search.best_mean, "templates": len(search.templates)}

    def mint(self) -> Sequence[Task]:
        """Return the tasks that the search asks for; none once a budget is spent or the search cannot go on."""
        if self.ready() or self._exhausted() or self._failure(ended=False):
            return ()
        asked = self.search.machine.take(self._room())
        self._under_way.update(request.name for request in asked)
        return [Task(f"{self.policy}/{request.name}", request.body) for request in asked]

    def facts(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Templates, refused ones and rounds since the last call; after a restore, all of them again."""
        told, self.search.facts = self.search.facts, []
        return [(kind, {"policy": self.policy, **body}) for kind, body in told]

    def finished(self) -> str | None:
        """Return why nothing is left to do: the search has ended, or a budget is spent and no task is under way.

        RunError if the search cannot go on because too many trials are missing.
        """
        if self.ready() or self.search.facts:
            return None
        reason = self.search.reason
        if reason is None and not self._under_way and (spent := self._exhausted()):
            reason = f"{spent}: the best template is {self.search.best.identity}, mean {self.search.best_mean:.4g}"
            if not self.search.scored:
                reason = f"{spent}, and the first template is not scored on all validation tasks; allow more"
        if failure := self._failure(ended=reason is not None):
            raise RunError(failure)
        return reason

    def parameters(self) -> Tree:
        """The templates that runners may need, the best one, the round."""
        self._published = self.search.changes
        return self.search.published()

    def snapshot(self) -> Tree:
        """Return the measured results so far, from which everything else follows."""
        results = {name: packed(result) for name, result in self.search.machine.results.items() if not result.missing}
        text = json.dumps({"algorithm": self.name, "results": results}, ensure_ascii=False, separators=(",", ":"))
        # One array, and no tree of texts: a tree has at most 100,000 nodes.
        return {"results": np.frombuffer(zlib.compress(text.encode("utf-8", "surrogatepass"), 1), np.uint8)}

    def restore(self, tree: Tree) -> None:
        """Run the search again over a snapshot's results. RunError for one of another algorithm."""
        kept = json.loads(
            zlib.decompress(np.asarray(tree["results"], np.uint8).tobytes()).decode("utf-8", "surrogatepass")
        )
        if kept["algorithm"] != self.name:
            raise RunError(f"this checkpoint is of learner.algorithm {kept['algorithm']!r}, not of {self.name!r}")
        self._begin({name: unpacked(plain) for name, plain in kept["results"].items()})

    def _count(self, usage: Usage) -> None:
        used = self._used
        self._used = Usage(used.calls + usage.calls, used.tokens + usage.tokens, used.cost + usage.cost)

    def _room(self) -> int | None:
        """How many requests may be handed out now. Later rounds are measured before they begin, by what was learned."""
        if self.search.scored or not self.settings.budgeted:
            return None
        return room(self.settings, self._used, len(self.search.machine.results), len(self._under_way))

    def _failure(self, *, ended: bool) -> str | None:
        return too_many(self._missing, self.search.machine.asked, self._max_missing_share, ended=ended) or (
            self.search.failure
        )

    def _exhausted(self) -> str | None:
        return exhausted(self.settings, self._used) if self.settings.budgeted else None


class TextualGradients(PromptSearch):
    """`learner.algorithm = "textual_gradients"`: `learners.prompts.gradients`."""

    name = "textual_gradients"
    program = BeamSearch


class GepaSearch(PromptSearch):
    """`learner.algorithm = "gepa"`: `learners.prompts.gepa`."""

    name = "gepa"
    program = Gepa
