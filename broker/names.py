"""Names and their roles, topics, incarnations, and the ids of tasks.

Invariants: a topic ends with a zero byte, so that a subscription to `actor-1` never matches `actor-10`; a task's id
tells the name that its algorithm gave it and the life that minted it.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

from broker.clock import now

ALL = "all"
STANDINGS = "standings"
RESERVED = frozenset({ALL, STANDINGS})
LIFE = "@life-"
"""Stands in a task's id, between its name and the life that minted it, from the second life on."""


def topic(name: str) -> bytes:
    """The topic that reaches exactly the spoke of this name (or `all`, `standings`)."""
    return name.encode("ascii") + b"\0"


@lru_cache(4096)
def role_of(name: str) -> str | None:
    """Return the role of a name: launcher, tracker, learner-POLICY, actor-N, endpoint-NAME or dashboard-NAME."""
    role, _, rest = name.partition("-")
    if role in {"launcher", "tracker"}:
        return role if name == role else None
    if role == "actor":
        return role if rest.isdecimal() else None
    return role if role in {"learner", "endpoint", "dashboard"} and rest else None


def policy_of(name: str) -> str | None:
    """Return the policy of a learner's name; None for every other role."""
    return name.removeprefix("learner-") if role_of(name) == "learner" else None


def new_incarnation(clock: int = 0) -> str:
    """32 hex digits: the start time by the run's clock and 64 random bits. Later incarnations compare greater."""
    return f"{now(clock):016x}{secrets.token_hex(8)}"


def new_token() -> str:
    """A run token: 128 random bits as 32 hex digits."""
    return secrets.token_hex(16)


def task_id(name: str, life: int) -> str:
    """Return the id of the task that a policy's learner minted under this name in this life.

    `task_name` inverts it: a name that itself looks like an id gets the mark of the life in the first life too.
    """
    return f"{name}{LIFE}{life}" if life > 1 or task_name(name) != (name, 1) else name


def task_name(task: str) -> tuple[str, int]:
    """The name and the life of a task's id."""
    name, mark, life = task.rpartition(LIFE)
    return (name, int(life)) if mark and life.isdecimal() and len(life) <= 18 else (task, 1)
