"""The standings as the one document that the dashboard draws, scripts read and the tracker publishes.

Invariant: it is plain JSON without a number that is not finite, its keys are the same in every phase, and what is in it
about the past rests on committed facts (the folds); only rates, waits and states are of the moment (`tracker.live`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracker.live import Live, Seen
from tracker.standings import Standings
from tracker.tallies import PolicyTally, RoleTally, finite, quantile
from tracker.tasks import Tasks


def standings_document(
    fold: Standings,
    live: Live,
    now: float,
    *,
    directory: Path | str = "",
    tasks: Tasks | None = None,
    facts: int = 0,
    seconds: float | None = None,
    pool: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The document. `now`: monotonic seconds; `facts`: the ledger's last position; `seconds`: `Core.seconds(now)`;
    `pool`: the section of `tracker.curriculum.report`, None for a run without a curriculum; `prompts`: that of
    `tracker.leaderboard`, None for a run without templates.
    """
    seconds = fold.seconds if seconds is None else seconds
    rates = live.rates()
    policies = {
        name: _policy(tally, rates.policies.get(name, (0.0, 0.0)), live.seen.get(f"learner-{name}"), live.credit(name))
        for name, tally in sorted(fold.policies.items())
    }
    names = list(dict.fromkeys([*fold.roles, *live.seen]))
    stop = {name: value if name != "env_steps" else int(value) for name, value in fold.stop.items()}
    left = max(0.0, stop["seconds"] - seconds) if "seconds" in stop else None
    document = {
        "run": fold.run,
        "directory": str(directory),
        "phase": fold.phase or "starting",
        "reason": fold.reason,
        "failed": fold.failed,
        "seconds": seconds,
        "seconds_left": left,
        "seed": fold.seed,
        "stop": stop,
        "simulation": bool(fold.config.get("simulation", False)),
        "env_steps": fold.env_steps,
        "agent_steps": fold.agent_steps,
        "env_steps_per_second": rates.env_steps,
        "agent_steps_per_second": rates.agent_steps,
        "episodes": fold.episodes,
        "epoch": fold.epoch,
        "return_mean": fold.returns.mean,
        "solved_at": fold.solved_at,
        "roles": [_role(name, fold, live, now) for name in names],
        "policies": policies,
        "waits": [
            {"who": name, "for": whom, "what": what, "seconds": length}
            for name, seen in live.seen.items()
            if seen.state in ("alive", "suspect")
            for whom, what, length in seen.waits
        ],
        "events": [{"time": time / 1e9, "source": source, "text": text} for time, source, text in fold.events],
        "restarts": {name: role.restarts for name, role in fold.roles.items() if role.spawned_at},
        "facts": {
            "stored": facts,
            "duplicates": fold.duplicates,
            "refused": fold.refused,
            "per_second": rates.facts,
        },
        "quarantined": fold.quarantined,
        "tasks": task_counts(tasks),
        "pool": pool,
        "prompts": prompts,
        "alarms": [*fold.alarms, *live.alarms.values()],
    }
    clean: dict[str, Any] = finite(document)
    return clean


def task_counts(tasks: Tasks | None) -> dict[str, int]:
    """How many tasks are in each state."""
    if tasks is None:
        return dict.fromkeys(("minted", "waiting", "leased", "done", "failed", "evicted", "returned", "late"), 0)
    return {
        "minted": tasks.minted,
        "waiting": tasks.waiting,
        "leased": tasks.leased,
        "done": tasks.done,
        "failed": tasks.failed,
        "evicted": tasks.evicted,
        "returned": tasks.returned,
        "late": tasks.late,
    }


def policy_counts(tally: PolicyTally) -> dict[str, Any]:
    """What is counted of one policy, as both the standings and the summary show it."""
    return {
        "version": list(tally.version),
        "updates": tally.updates,
        "agent_steps": tally.agent_steps,
        "episodes": tally.returns.count,
        "return_first": tally.returns.first,
        "return_mean": tally.returns.mean,
        "returns": tally.returns.sparkline,
        "losses": dict(tally.losses),
        "staleness": {"median": quantile(tally.staleness, 0.5), "p95": quantile(tally.staleness, 0.95)},
        "fragments": dict(tally.fragments),
        "checkpoint": None if tally.checkpoint is None else list(tally.checkpoint),
        "life": tally.life,
        "refusal": tally.refusal,
    }


def _policy(tally: PolicyTally, rates: tuple[float, float], learner: Seen | None, credit: int | None) -> dict[str, Any]:
    gauges = learner.rates if learner is not None else {}
    return {
        **policy_counts(tally),
        "versions_per_second": rates[0],
        "agent_steps_per_second": rates[1],
        "queue": gauges.get("queue"),
        "credit": credit,
    }


def _role(name: str, fold: Standings, live: Live, now: float) -> dict[str, Any]:
    tally = fold.roles.get(name) or RoleTally()
    seen = live.seen.get(name)
    gauges = dict(seen.rates) if seen is not None else {}
    gauges.pop("stuck", None)  # the role's state shows it
    return {
        "name": name,
        "kind": tally.kind or (seen.kind if seen is not None else ""),
        "pid": tally.pid or (seen.pid if seen is not None else None),
        "host": seen.host if seen is not None else "",
        "state": _state(tally, seen, fold.phase, stalled=seen is not None and live.stalled(name, fold.phase, now)),
        "age": now - seen.joined if seen is not None else None,
        "heard": now - seen.heard if seen is not None else None,
        "restarts": tally.restarts,
        "progress": fold.moves.get(name, 0),
        "rss_mb": gauges.pop("rss_mb", None),
        "cpu": gauges.pop("cpu", None),
        "doing": seen.doing if seen is not None else "",
        "waits": [list(wait) for wait in seen.waits] if seen is not None else [],
        "rates": gauges,
    }


def _state(tally: RoleTally, seen: Seen | None, phase: str, *, stalled: bool) -> str:
    """One of alive, suspect, lost, left, restarting, stalled."""
    if tally.spawned_at and not tally.running:
        return "left" if tally.expected or phase in ("stopping", "ended") else "restarting"
    if phase == "ended":
        return "left"
    if seen is None:  # spawned and not heard yet, or this tracker is younger than the role's last Hello
        return "restarting" if tally.restarts else (tally.state or "alive")
    return "stalled" if stalled else seen.state
