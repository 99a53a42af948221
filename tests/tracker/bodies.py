"""Facts as sources write them, for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from tracker.facts import Fact, decode

ONE = "0" * 15 + "1" + "a" * 16
TWO = "0" * 15 + "2" + "a" * 16


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


def text(body: Any) -> str:
    return json.dumps(body)


def facts(*bodies: tuple[str, str, Any], start: int = 1, time: int = 1_000_000_000) -> list[Fact]:
    """Facts from (source, kind, body), as they are once they were stored and read again."""
    return [
        Fact(position, source, ONE, position, time + position, kind, decode(kind, text(body)))
        for position, (source, kind, body) in enumerate(bodies, start)
    ]
