"""Facts as sources write them, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from tracker.facts import Fact, decode, forbidden_kinds

ONE = "0" * 15 + "1" + "a" * 16
TWO = "0" * 15 + "2" + "a" * 16


def writers(kind: str) -> list[str]:
    """Names of those who may write facts of this kind; all names for kinds that no role has to itself."""
    names = ("actor-0", "actor-1", "learner-p", "launcher")
    return [name for name in names if kind not in forbidden_kinds(name, pooled=True)] or list(names)


def episode(value: float | None = 1.0, *, agents: int = 1, policy: str = "p") -> dict[str, Any]:
    names = [f"agent_{index}" for index in range(agents)]
    return {
        "length": 25,
        "returns": dict.fromkeys(names, value),
        "policies": dict.fromkeys(names, policy),
        "lengths": dict.fromkeys(names, 25),
        "seconds": 0.1,
    }


def progress(env_steps: int = 100, agent_steps: int = 100, policy: str = "p") -> dict[str, Any]:
    return {"env_steps": env_steps, "agent_steps": {policy: agent_steps}, "dropped": {}}


def update(number: int = 1, staleness: int = 1, policy: str = "p") -> dict[str, Any]:
    return {
        "policy": policy,
        "version": [1, number],
        "agent_steps": 64,
        "staleness": {str(staleness): 2},
        "losses": {"policy": 0.5, "value": None},
        "consumed": 2,
        "stale": 1,
        "refused": 0,
        "lost": 0,
        "seconds": 0.1,
    }


def checkpoint(number: int, policy: str = "p") -> dict[str, Any]:
    about = {"policy": policy, "version": [1, number], "file": f"{policy}~{number}", "size": 1, "sha256": "0" * 64}
    return {**about, "score": None, "best": False}


def fragments(policy: str = "p") -> dict[str, Any]:
    counts = {"consumed": 3, "stale": 4, "refused": 5, "lost": 6}
    return {"policy": policy, "agent_steps": 36, "staleness": {"1": 2, "7": 1}, **counts}


def quarantine(count: int = 2) -> dict[str, Any]:
    return {"source": "learner-p", "reason": "foreign", "count": count, "text": "another run's token", "size": 7}


def life(number: int, policy: str = "p", incarnation: str = TWO) -> dict[str, Any]:
    return {"policy": policy, "life": number, "incarnation": incarnation}


def run(launch: int = 1, stop: dict[str, Any] | None = None) -> dict[str, Any]:
    config = {"stop": stop or {}}
    return {"name": "spread", "seed": 7, "life": launch, "resumed": launch > 1, "config": config}


def spawned(role: str, attempt: int = 1, pid: int = 100) -> dict[str, Any]:
    return {"role": role, "kind": "actor", "pid": pid, "attempt": attempt}


def exited(role: str, *, expected: bool = False, signal: str | None = "SIGKILL") -> dict[str, Any]:
    own = {"role": role, "pid": 100, "attempt": 1, "status": None, "signal": signal}
    return {**own, "expected": expected, "last_words": "Traceback\nValueError: no"}


def template(name: str, text: str | None = None, *, place: tuple[int, int] = (0, 0), parent: str | None = None) -> Any:
    """A template whose identity is `name`, sixteen times."""
    told = {"round": place[0], "candidate": place[1], "critique": "too vague", "placeholders": ["question"]}
    own = {"policy": "p", "template": name * 16, "text": text or f"{name}: {{question}}"}
    return {**own, "parent": None if parent is None else parent * 16, **told}


def refused_template(place: tuple[int, int] = (1, 1), reason: str = "it lost {question}") -> dict[str, Any]:
    own = {"policy": "p", "text": "no", "parent": "a" * 16, "round": place[0], "candidate": place[1]}
    return {**own, "reason": reason}


def prompt_round(number: int, best: str, best_mean: float | None = 0.5) -> dict[str, Any]:
    own = {"policy": "p", "round": number, "rounds": 3, "beam": [best * 16], "leader": best * 16, "leader_mean": 0.5}
    return {**own, "best": best * 16, "best_mean": best_mean, "calls": 9, "tokens": 90, "cost": 0.25}


def usage(calls: int = 1, endpoint: str = "answer") -> dict[str, Any]:
    own = {"endpoint": endpoint, "calls": calls, "failed": calls - 1, "throttled": calls - 1, "retries": calls - 1}
    return {**own, "tokens_in": 10 * calls, "tokens_out": 2, "cost": 0.25 * calls}


def answer(name: str, item: int, split: str = "validation") -> tuple[str, dict[str, Any]]:
    """A task's name and its body."""
    body = {"do": "answer", "template": name * 16, "item": item, "split": split, "attempt": 1}
    return f"p/answer/{name * 16}/{split}/{item}/1", body


def answered(
    name: str, item: int, reward: float, *, split: str = "validation", failed: bool = False, reason: str | None = None
) -> dict[str, Any]:
    task, body = answer(name, item, split)
    told = {
        "runner": "actor-0",
        "reward": reward,
        "reason": reason,
        "failed": failed,
        "answer": "42",
        "usage": [usage()],
    }
    return {"task": task, "score": reward, "policy": "p", "result": {**body, **told}}


def missing(body: dict[str, Any], reason: str = "answer: 429 (out of quota)") -> dict[str, Any]:
    """The outcome of a trial that measured nothing."""
    result = {**body["result"], "reward": None, "failed": True, "missing": "account", "reason": reason}
    return {**body, "score": None, "missing": True, "result": result}


def completed(task: str, role: str = "critique", *, failed: bool = False) -> dict[str, Any]:
    told = {"role": role, "text": "hm", "failed": failed, "reason": None, "usage": [usage(3, "critic")]}
    return {"task": task, "score": None, "policy": "p", "result": {"do": "complete", **told}}


def minted(*tasks: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"policy": "p", "version": [1, 0], "tasks": [{"task": name, "body": body} for name, body in tasks]}


def text(body: Any) -> str:
    return json.dumps(body)


def facts(*bodies: tuple[str, str, Any], start: int = 1, time: int = 1_000_000_000) -> list[Fact]:
    """Facts from (source, kind, body), as they are once they were stored and read again."""
    return [
        Fact(position, source, ONE, position, time + position, kind, decode(kind, text(body)))
        for position, (source, kind, body) in enumerate(bodies, start)
    ]
