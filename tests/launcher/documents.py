"""Example standings and summaries, in the shape that the tracker publishes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker.names import new_incarnation
from tracker.ledger import LEDGER, Ledger

NOW = 1_763_700_000.0


def role(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "pid": 4000 + len(name), "host": "millpond", "state": "alive", "age": 83.4,
        "restarts": 0, "rss_mb": 212.5, "cpu": 87.2, "doing": "", "waits": [], "rates": {}, **more,
    }  # fmt: skip


def policy(place: int = 0, **more: Any) -> dict[str, Any]:
    returns = [-30.0 + 14 * (1 - math.exp(-step / 18)) + math.sin(step * 1.7 + place) * 0.8 for step in range(60)]
    return {
        "version": [1, 812 + place], "versions_per_second": 9.81, "agent_steps": 411_520 + place,
        "agent_steps_per_second": 4938.2, "episodes": 4938,
        "return_first": -29.61 + place, "return_mean": -17.248 + place,
        "returns": returns,
        "losses": {"policy": -0.01234, "value": 1.2345, "entropy": 1.5432},
        "staleness": {"median": 1, "p95": 3},
        "fragments": {"consumed": 12_860, "stale": 3, "refused": 0, "lost": 0, "dropped": 0},
        "queue": 2, "credit": 6, "checkpoint": [1, 790 + place], **more,
    }  # fmt: skip


def spread(**more: Any) -> dict[str, Any]:
    """A run with three agents, each with a policy of its own."""
    learners = [role(f"learner-agent_{n}", "learner", doing="updating v812", cpu=34.0, rss_mb=301.0) for n in range(3)]
    waiting = role("actor-1", "actor", waits=[["learner-agent_1", "credit", 2.1]], restarts=1, age=12.0, cpu=55.0)
    return {
        "run": "spread", "directory": "runs-out/spread-1", "phase": "running", "reason": "", "failed": False,
        "seconds": 83.4, "seconds_left": 96.6, "seed": 7, "stop": {"seconds": 180}, "simulation": False,
        "env_steps": 137_173, "agent_steps": 411_520, "env_steps_per_second": 1646.1, "agent_steps_per_second": 4938.2,
        "episodes": 4938, "epoch": 13, "return_mean": -17.248, "solved_at": None,
        "roles": [role("tracker", "tracker", doing="committing", cpu=6.4, rss_mb=88.0), *learners,
                  role("actor-0", "actor", doing="stepping", cpu=92.0, rates={"env/s": 812.0}), waiting],
        "policies": {f"agent_{n}": policy(n) for n in range(3)},
        "waits": [{"who": "actor-1", "for": "learner-agent_1", "what": "credit", "seconds": 2.1}],
        "events": [{"time": NOW - 60 + 3 * n, "source": who, "text": text} for n, (who, text) in enumerate(EVENTS)],
        "restarts": {"actor-1": 1}, "facts": {"stored": 12_345, "duplicates": 0, "refused": 0, "per_second": 148.2},
        "quarantined": 0, "tasks": {"waiting": 0, "leased": 0, "done": 0, "returned": 0, "late": 0},
        "alarms": [], **more,
    }  # fmt: skip


EVENTS = [
    ("launcher", "spawned tracker, pid 4007"),
    ("launcher", "spawned learner-agent_0, pid 4015"),
    ("launcher", "spawned actor-0, pid 4007"),
    ("launcher", "spawned actor-1, pid 4008"),
    ("tracker", "phase running"),
    ("tracker", "checkpoint agent_0 v610, 301 kB"),
    ("tracker", "checkpoint agent_1 v611, 301 kB"),
    ("launcher", "actor-1 was killed by SIGKILL"),
    ("launcher", "spawned actor-1 again, pid 4031, attempt 2"),
    ("tracker", "actor-1 came back"),
    ("tracker", "checkpoint agent_0 v790, 301 kB"),
    ("tracker", "checkpoint agent_2 v792, 301 kB"),
]


def crowd(actors: int = 64, **more: Any) -> dict[str, Any]:
    """One policy and very many actors."""
    crew = [role("tracker", "tracker"), role("learner-shared", "learner")]
    return spread(
        roles=[*crew, *(role(f"actor-{n}", "actor", doing="stepping") for n in range(actors))],
        policies={"shared": policy()}, waits=[], **more,
    )  # fmt: skip


def pooled(labels: int = 6, **more: Any) -> dict[str, Any]:
    """A run with a curriculum, as `tracker.curriculum.report` shows its pool."""
    ends = [
        {
            "task": f"t{n}",
            "label": f"size {n}",
            "progress": 0.41 - 0.1 * n,
            "score_mean": 0.62,
            "outcomes": 40,
            "draws": 44,
        }
        for n in range(4)
    ]
    counts = {"draws": 12_345, "outcomes": 12_300, "transient": 7, "permanent": 2, "evicted": 31, "minted": 431}
    tallies = {
        f"size {n}": {
            "tasks": 40 + n,
            "minted": 60,
            "draws": 4000 - 400 * n,
            "outcomes": 3900,
            "score_mean": 0.875,
            "progress_mean": 0.0625,
            "evicted": 5,
            "transient": 7 * (n == 1),
            "permanent": 0,
        }
        for n in range(labels)
    }
    pool = {
        "scorer": "learning_progress", "capacity": 1000, "tasks": 400, "drawable": 398, "few_samples": 30,
        "eligible": 368, "resting": 2, "open": 34, "progress_mean": 0.1234, "without_progress": 120,
        "labels": tallies, "counts": counts, "evictions": {"score": 29, "permanent failure": 2},
        "epoch": {"draws": 345, "evicted": 3, "evictions": {"score": 3}}, "top": ends, "bottom": ends[::-1],
        "generation": {"open": 1, "failures_in_a_row": 0, "exhausted": ""},
    }  # fmt: skip
    return spread(pool=pool, **more)


def searched(
    templates: int = 5, failed: int = 0, failures: Sequence[dict[str, Any]] = (), **more: Any
) -> dict[str, Any]:
    """A run that searches prompts, as `tracker.leaderboard` shows it."""
    board = [
        {
            "template": f"{n:016x}", "text": f"Answer number {n}. {{question}}", "parent": f"{0:016x}" if n else None,
            "round": n % 3, "candidate": n, "mean": 0.875 - n / 100, "interval": [0.6 - n / 100, 0.95], "trials": 32,
            "failed": 1, "open": 4 * (n == 2), "best": n == 0, "beam": n < 4,
        }
        for n in range(min(templates, 20))
    ]  # fmt: skip
    usage = {"calls": 1234, "failed": 21, "throttled": 17, "retries": 19, "tokens_in": 56_000, "tokens_out": 7_000}
    search = {
        "round": 2, "rounds": 3, "best": f"{0:016x}", "best_mean": 0.875, "templates": templates, "refused": 3,
        "rewards": 812, "in_flight": {"templates": 1, "rollouts": 4, "completions": 2}, "leaderboard": board,
        "usage": {"answer": usage | {"cost": 0.25}, "critique": usage | {"throttled": 0, "cost": 0.5}},
        "spent": usage | {"tokens": 63_000, "cost": 0.75}, "failed": failed, "failures": list(failures),
    }  # fmt: skip
    return spread(prompts={"answerer": search}, policies={"answerer": policy()}, **more)


def summary(**more: Any) -> dict[str, Any]:
    """What is left of the run of `spread` when it has ended."""
    return {
        "run": "spread", "state": "ended", "reason": "180 seconds have run", "failed": False, "seconds": 180.2,
        "env_steps": 296_000, "agent_steps": 888_000, "directory": "runs-out/spread-1",
        "policies": {
            f"agent_{n}": {"version": [1, 1770 + n], "return_first": -29.6, "return_mean": -16.1 + n,
                           "returns": policy(n)["returns"], "episodes": 11_840,
                           "staleness": {"median": 1.0, "p95": 3.0}, "losses": {"policy": -0.01, "value": 0.9},
                           "fragments": {"consumed": 27_750, "stale": 4, "lost": 0}}
            for n in range(3)
        },
        "facts": {"stored": 26_700, "duplicates": 0}, "restarts": {"actor-1": 1}, **more,
    }  # fmt: skip


def fill(directory: Path, episodes: int = 250, *, ended: bool = True) -> None:
    """A run directory as a run of three agents leaves it: a run file and a real ledger."""
    (directory / "run.toml").write_text('name = "spread"\n')
    agents = [f"agent_{n}" for n in range(3)]
    launcher, actor, tracker = new_incarnation(), new_incarnation(), new_incarnation()
    told: list[tuple[str, str, str, dict[str, Any]]] = [
        ("launcher", launcher, "run", {"name": "spread", "seed": 7, "life": 1, "resumed": False, "config": {}}),
        ("launcher", launcher, "spawned", {"role": "actor-0", "kind": "actor", "pid": 4007, "attempt": 1}),
        ("tracker", tracker, "phase", {"phase": "running", "reason": "", "failed": False}),
        *(
            ("actor-0", actor, "episode", {
                "length": 25, "returns": dict.fromkeys(agents, -30.0 + 0.05 * n), "seconds": 0.1,
                "policies": dict(zip(agents, agents, strict=True)), "lengths": dict.fromkeys(agents, 25),
            })
            for n in range(episodes)
        ),
        ("actor-0", actor, "progress", {
            "env_steps": 25 * episodes, "agent_steps": dict.fromkeys(agents, 25 * episodes),
        }),
        ("tracker", tracker, "clock", {"seconds": 180.0}),
        ("tracker", tracker, "phase", {"phase": "ended", "reason": "180 seconds have run", "failed": False}),
    ]  # fmt: skip
    if not ended:
        told.pop()
    last: dict[str, int] = {}
    rows = []
    for moment, (source, incarnation, kind, body) in enumerate(told):
        last[source] = last.get(source, 0) + 1
        rows.append((source, incarnation, last[source], int(NOW * 1e9) + moment, kind, json.dumps(body)))
    ledger = Ledger(directory / LEDGER)
    with ledger.commit():
        ledger.append(rows)
    ledger.close()
