"""A world for prompt searches that is a function: what it replies depends on the seed and the request alone.

It is no endpoint and no simulation of one; it is here so that searches can be driven in any order of arrival.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from learners.algorithm import AlgorithmContext, Fragment, Task
from learners.prompts.algorithm import GepaSearch, PromptSearch, TextualGradients
from learners.prompts.search import Workload

MARKS = ("Think.", "Be brief.", "Give units.", "Check it.", "One word.")
SEED = "Answer the question.\n{question}"
TEMPLATE = re.compile(r"<template>\n(.*?)\n</template>", re.DOTALL)


def share(*parts: Any) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8], 16) / 2**32


@dataclass(frozen=True)
class World:
    seed: int = 0
    items: int = 7
    failing: float = 0.1
    """Share of rollouts and completions that fail."""
    missing: float = 0.0
    """Share of rollouts and completions that are missing."""
    spoiled: float = 0.3
    """Share of critiques that are empty, and of edits that break the placeholders or change nothing."""

    @property
    def workload(self) -> Workload:
        tasks = [{"question": f"what is {n}?", "answer": str(n)} for n in range(self.items)]
        return Workload(SEED, tasks, tasks[: max(1, self.items - 2)])

    def reply(self, task: Task, texts: dict[str, str]) -> dict[str, Any]:
        """The result of a task, as a runner would report it."""
        note = self.measured(task, texts)
        if share(self.seed, "missing", task.body) < self.missing:
            note |= {"reward": None, "text": "", "failed": True, "missing": "endpoint", "reason": "no answer"}
        return note

    def measured(self, task: Task, texts: dict[str, str]) -> dict[str, Any]:
        """The same, where nothing is missing."""
        body = task.body
        usage = [{"endpoint": "answer", "calls": 1, "tokens_in": 10, "tokens_out": 2, "cost": 0.001}]
        if body["do"] == "answer":
            dice = share(self.seed, body)
            if dice < self.failing:
                told: dict[str, Any] = {"reward": 0.0, "failed": True, "reason": "timed out", "answer": ""}
            else:
                quality = sum(mark in texts[body["template"]] for mark in MARKS) / len(MARKS)
                reward = round(min(1.0, quality * (0.6 + dice)), 2)
                told = {"reward": reward, "failed": False, "reason": None, "answer": f"{dice:.3f}"}
            return {"do": "answer", "runner": "r", **body, **told, "usage": usage}
        said = body["messages"][-1]["content"]
        dice = share(self.seed, body)
        parent = TEMPLATE.search(said)
        assert parent is not None
        mark = MARKS[int(dice * 1000) % len(MARKS)]
        if body["role"] == "critique":
            text = "" if dice < self.spoiled else f"it lacks: {mark}"
        elif dice < self.spoiled:
            broken = [parent[1], "no placeholders", f"{parent[1]} {{other}}", f"{parent[1]} \\boxed{{1}}", ""]
            text = broken[int(dice * 1000) % len(broken)]
            text = text and f"<template>{text}</template>"
        else:
            text = f"<template>\n{mark} {parent[1]}\n</template>"
        failed = share(self.seed, "fails", body) < self.failing
        return {"do": "complete", "role": body["role"], "text": text, "failed": failed, "reason": None, "usage": usage}


@dataclass
class Told:
    """What came of a search."""

    facts: list[str] = field(default_factory=list)
    paid: Counter[str] = field(default_factory=Counter)
    reason: str = ""
    best: str = ""

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(fact)[1] for fact in dict.fromkeys(self.facts) if json.loads(fact)[0] == kind]


def make(
    algorithm: str, world: World, settings: dict[str, Any], seed: int = 0, max_missing_share: float = 1.0
) -> PromptSearch:
    kinds: dict[str, Callable[..., PromptSearch]] = {"textual_gradients": TextualGradients, "gepa": GepaSearch}
    run = {"prompts": {"max_missing_share": max_missing_share}}
    context = AlgorithmContext("p", settings=settings, seed=seed, run=run)
    return kinds[algorithm](context, world.workload)


def play(
    fresh: Callable[[], PromptSearch],
    world: World,
    disorder: random.Random | None = None,
    *,
    repeats: float = 0.0,
    falls: float = 0.0,
    share_slow: float = 0.15,
    last: frozenset[str] = frozenset(),
    gives_up: bool = False,
    recorded: dict[str, dict[str, Any]] | None = None,
) -> Told:
    """Drive a search to its end as the learner's loop and the tracker do.

    In order of asking, or with `disorder`: results come in any order, some come again, and the learner falls and comes
    back, from any snapshot that was taken or from none; what is recorded is delivered again and not paid again. What
    is missing is told as given up, where the tracker `gives_up`. `recorded`: what the ledger has of an earlier launch.
    """
    told, texts = Told(), dict[str, str]()
    recorded = {} if recorded is None else recorded
    search, waiting, kept = fresh(), dict[str, Task](), list[Any]()
    slow: dict[str, bool] = {}
    published = search.parameters()
    while True:
        told.facts += [json.dumps(fact, sort_keys=True) for fact in search.facts()]
        if search.ready():
            search.update()
            published = search.parameters()
            continue
        for task in search.mint():
            assert task.task not in waiting
            waiting[task.task] = task
            if task.body["do"] == "answer":  # whoever runs it finds its template
                texts[task.body["template"]] = published["templates"][task.body["template"]]
        reason = search.finished()
        if reason is not None:
            told.reason, told.best = reason, published["best"]
            return told
        assert waiting, "it waits for nothing"
        names = list(waiting)
        if disorder:  # some come only when nothing else is left to come
            slow.update((name, name in last or disorder.random() < share_slow) for name in names if name not in slow)
            names = [name for name in names if not slow[name]] or names
        name = disorder.choice(names) if disorder else names[0]
        task = waiting.pop(name)
        if name not in recorded:
            told.paid[name] += 1
            recorded[name] = world.reply(task, texts)
        if gives_up and recorded[name].get("missing"):
            search.given_up(name, recorded[name]["reason"] or "")
        else:
            search.accept(Fragment({}, (1, 0), 1, "actor-0", name, recorded[name]))
        if disorder and disorder.random() < repeats:
            again = disorder.choice(list(recorded))
            search.accept(Fragment({}, (1, 0), 1, "actor-1", again, recorded[again]))
        if disorder and disorder.random() < 0.1:
            kept.append(search.snapshot())
        if disorder and disorder.random() < falls:
            search, waiting = fresh(), {}
            if kept and disorder.random() < 0.7:
                search.restore(disorder.choice(kept))
            published = search.parameters()
