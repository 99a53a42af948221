"""Facts of every kind, at random and mutated: from a seed, so that one that fails comes again."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.tracker import bodies as b
from tracker.facts import OF_THE_TRACKER

SOURCES = ("actor-0", "actor-1", "learner-p", "launcher")
TASKS = (
    "t1",
    "t2",
    "t3",
    "t4",
    "t1@life-2",
    "t2@life-3",
    "t@life-" + "9" * 5000,
    "t@life-" + "9" * 240,
    "",
    "p/answer/x",
)
GENERATIONS = tuple(f"generation-{number}" for number in range(1, 6))
TEXTS = (
    "", "NaN", "Infinity", "p", "x" * 257, "x" * 5_000, "y" * 30_000, "\0", "\x1b[2J\x1b]0;t\x07", "\x9b31m",
    "\u202eabc\u2066", "\u200b", "e\u0301" * 40, "\U0001f469\u200d\U0001f4bb", "[bold]x[/bold]", "a\nb\r\tc", "\ud800",
    "{", "'; DROP TABLE facts; --", "..", "/etc/passwd", "$.a[0]", "None", "é" * 300,
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2**31, 2**40, 2**40 + 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400, 10**4299, 0.5,
    -0.0, 1e-320, 1e300, -1e300, 1.7e308, float("nan"), float("inf"), -float("inf"), True, False,
)  # fmt: skip


class Facts:
    """A stream of (source, kind, body as JSON text)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def next(self) -> tuple[str, str, str]:
        """One fact: as its kind wants it, with a field or two mutated, or with its text cut and spliced."""
        chance = self.random
        kind = chance.choice(OF_SOURCES if chance.random() < 0.97 else OTHERS)
        source = chance.choice(b.writers(kind) if chance.random() < 0.9 else SOURCES)
        body = self.body(kind)
        for _ in range(chance.choice((0, 0, 0, 0, 0, 0, 1, 1, 2, 5))):
            body = self.mutated(body)
        text = json.dumps(body, ensure_ascii=chance.random() < 0.5)
        if chance.random() < 0.05:
            text = self.spliced(text)
        return source, kind, text

    def body(self, kind: str) -> Any:
        """A body that fits its kind, with names that others use too."""
        chance = self.random
        pick, few = chance.choice, chance.randrange(9)
        task, agent, policy = self.task(), pick(SOURCES), pick(("p", "q", "learner"))
        drawn = {"draw": chance.randrange(40)} if chance.random() < 0.5 else {}
        match kind:
            case "run":
                return b.run(few, {"seconds": few, "env_steps": pick(NUMBERS), "return": 0.5})
            case "spawned":
                return b.spawned(agent, few)
            case "exited":
                return b.exited(agent)
            case "stop_request":
                return {"reason": "enough", "failed": few > 4}
            case "alarm":
                return {"text": pick(TEXTS)}
            case "episode":
                return b.episode(chance.uniform(-9, 9), agents=few, policy=policy)
            case "progress":
                return b.progress(few, few * 3, policy)
            case "environment_error":
                return {"traceback": 'File "/x.py", line 3\nE: no', "seed": few, "episode": few, "step": few}
            case "outcome" if few < 3:
                return b.answered("a", few, 0.5, failed=few == 1)
            case "outcome" if few == 3:
                return b.completed(task)
            case "outcome":
                result = {"result": {"a": few}} if few > 6 else {}
                return {"task": task, "score": chance.random(), "policy": policy, **drawn, **result}
            case "delivered":
                return {"task": task, "given_up": few > 4}
            case "rollout_error":
                return {"task": task, "traceback": "E", "permanent": few > 5, "tell": few > 7, **drawn}
            case "update":
                return b.update(few, few, policy)
            case "fragments":
                return b.fragments(policy)
            case "finished":
                return {"policy": policy, "reason": "done"}
            case "refusal":
                return {"policy": policy, "from": agent, "reason": "ValueError: no", "steps": few}
            case "quarantine":
                return b.quarantine(few)
            case "mint" if few < 3:
                return b.minted(b.answer("a", few))
            case "mint":
                label = {"label": pick(("easy", "hard", None, 3))} if chance.random() < 0.6 else {}
                names = {self.task()[:250] for _ in range(few % 4)}
                tasks = [{"task": name, "body": {"q": few}, **label} for name in sorted(names)]
                return {"policy": policy, "version": [1, few], "tasks": tasks, "generation": pick((None, *GENERATIONS))}
            case "generation_failed":
                return {"generation": pick(GENERATIONS), "reason": "E", "permanent": few > 7}
            case "resumed":
                return {"policy": policy, "from": [1, few], "life": few, "updates_lost": few}
            case "template":
                return b.template(pick("abc"), place=(few % 3, few // 3))
            case "refused_template":
                return b.refused_template((few % 3, few // 3))
            case "round":
                return b.prompt_round(few, pick("abc"))
            case "liveness":
                return {"role": agent, "state": pick(("lost", "left", "returned")), "incarnation": b.ONE}
            case "life":
                return b.life(few, policy)
            case "checkpoint":
                about = {"file": f"{few}", "size": few, "sha256": "", "score": 0.5, "best": few > 4}
                return {"policy": policy, "version": [1, few], **about}
            case "clock":
                return {"seconds": few / 2, "duplicates": few}
            case "epoch":
                return {"epoch": few, "env_steps": few}
            case "phase":
                return {"phase": pick(("starting", "running")), "reason": "", "failed": False, "launch": 1}
            case "assign":
                return {"task": task, "to": agent, "incarnation": b.ONE, "request": few, "deadline": few * 10**9}
            case "pool_accept":
                return {"of": few, "accepted": 1, "declined": [[1, task, "no"]]}
            case "draw":
                about = {"to": agent, "incarnation": b.ONE, "request": few, "deadline": few * 10**9}
                return {**about, "first": few, "tasks": [task], "random": "00000000000000ff"}
            case "generate":
                about = {"generation": pick(GENERATIONS), "most": few, "deadline": few}
                return {**about, "to": agent, "incarnation": b.ONE, "request": few}
            case "generation_ended":
                about = {"generation": pick(GENERATIONS), "from": agent, "reason": "r"}
                return {**about, "failed": few > 4, "until": few}
            case "draw_returned":
                return {"draws": [few], "from": agent, "reason": "lost"}
            case "pool_ready":
                return {"tasks": [task]}
            case "checkpoint_skipped":
                return {"policy": policy, "file": "f", "reason": "r"}
            case _ if kind in OF_THE_TRACKER:
                about = {"task": task, "of": few, "from": agent, "reason": "lost", "until": few, "note": "n"}
                return {**about, "policy": policy, "kind": "x"}
            case _:
                return {"anything": few, "deep": {"er": [task]}}

    def task(self) -> str:
        """A task's id: mostly one of some hundred, so that facts meet."""
        return f"t{self.random.randrange(100)}" if self.random.random() < 0.8 else self.random.choice(TASKS)

    def mutated(self, body: Any) -> Any:
        """The body with one place changed."""
        chance = self.random
        holders = [holder for holder in _holders(body) if holder]
        if not holders or chance.random() < 0.03:
            return self.value()
        holder = chance.choice(holders)
        key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        match chance.randrange(7):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(TEXTS)] = self.value()
            case 2 if isinstance(holder, list):
                holder.append(self.value())
            case 3:
                holder[key] = nested(holder[key], chance.choice((1, 3, 90, 250)))
            case 4 if isinstance(holder, dict):
                holder[key] = {f"{number}": self.value() for number in range(chance.choice((2, 20)))}
            case _:
                holder[key] = self.value()
        return body

    def value(self) -> Any:
        """Anything that JSON, as Python writes it, can hold."""
        return self.random.choice(
            (None, [], {}, self.random.choice(TEXTS), self.random.choice(NUMBERS), self.random.choice(TASKS))
        )

    def spliced(self, text: str) -> str:
        """The text with a piece of it removed, doubled, or replaced."""
        chance = self.random
        start, end = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        piece = chance.choice(("", text[start:end] * 2, "\0", "}", '"', ",", "\ud800", "1e999", "\\u0000", "\\ud800"))
        return text[:start] + piece + text[end:]


OF_SOURCES = (
    "run", "spawned", "exited", "alarm", "environment_error", "update", "fragments", "finished", "refusal",
    "quarantine", "resumed", "generation_failed", "template", "refused_template", "round", "of-another-version",
    *["episode", "progress", "rollout_error", "delivered"] * 3, *["mint"] * 8, *["outcome"] * 16,
)  # fmt: skip
OTHERS = ("stop_request", *sorted(OF_THE_TRACKER) * 2)


def nested(value: Any, depth: int) -> Any:
    """The value within so many lists."""
    for _ in range(depth):
        value = [value]
    return value


def _holders(value: Any) -> list[Any]:
    found: list[Any] = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            found.append(value)
            waiting += value.values() if isinstance(value, dict) else value
    return found
