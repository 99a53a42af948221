"""The summary of a run: what was learned and what it took, from the ledger alone.

Invariant: it is a fold over committed facts, so that a running, a finished and a killed run give theirs alike, at any
time and as often as wanted; nothing is changed in the run directory but, by `write_summary`, `summary.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from broker.files import write_whole
from tracker.checkpoints import FOLDER
from tracker.curriculum.pool import Curriculum
from tracker.curriculum.report import section
from tracker.document import policy_counts, task_counts
from tracker.epochs import Epochs
from tracker.leaderboard import summary_part, template_rows
from tracker.ledger import LEDGER, LedgerReader
from tracker.lock import is_held
from tracker.standard import standard_folds
from tracker.standings import Standings
from tracker.tallies import finite
from tracker.tasks import Tasks
from tracker.templates import Templates

SUMMARY = "summary.json"


def summarise(run_dir: Path) -> dict[str, Any]:
    """The summary as plain JSON values: the keys of `headrace summary --json`.

    `state` is `ended`, `failed`, a phase of a run that goes on, or `interrupted` (no tracker holds it, and it never
    ended). RequestError: no run there. LedgerDamaged: its ledger cannot be read.
    """
    run_dir = Path(run_dir)
    folds = standard_folds()
    with LedgerReader(run_dir / LEDGER) as ledger:
        folds.restore(ledger)
    standings, tasks, epochs = folds.folds["standings"], folds.folds["tasks"], folds.folds["epochs"]
    assert isinstance(standings, Standings)
    assert isinstance(tasks, Tasks)
    assert isinstance(epochs, Epochs)
    pool = folds.folds["curriculum"]
    assert isinstance(pool, Curriculum)
    templates = folds.folds["templates"]
    assert isinstance(templates, Templates)
    state = standings.phase or "starting"
    if state == "ended":
        state = "failed" if standings.failed else "ended"
    elif not is_held(run_dir):
        state = "interrupted"
    summary: dict[str, Any] = finite(
        {
            "run": standings.run or run_dir.name,
            "directory": str(run_dir),
            "state": state,
            "reason": standings.reason,
            "failed": standings.failed,
            "seed": standings.seed,
            "simulation": bool(standings.config.get("simulation", False)),
            "launches": standings.launch,
            "seconds": standings.seconds,
            "stop": standings.stop,
            "solved_at": standings.solved_at,
            "env_steps": standings.env_steps,
            "agent_steps": standings.agent_steps,
            "episodes": standings.episodes,
            "return_first": standings.returns.first,
            "return_mean": standings.returns.mean,
            "policies": {name: policy_counts(tally) for name, tally in sorted(standings.policies.items())},
            "facts": {"stored": folds.position, "duplicates": standings.duplicates, "refused": standings.refused},
            "restarts": {name: role.restarts for name, role in standings.roles.items() if role.spawned_at},
            "tasks": task_counts(tasks),
            "templates": template_rows(templates),
            "prompts": summary_part(templates, str(run_dir)),
            "pool": section(pool),
            "pool_epochs": list(pool.epochs.closed) if pool.settings is not None else [],
            "epochs": list(epochs.closed),
            "checkpoints": {"kept": standings.checkpoints, "folder": str(run_dir / FOLDER)},
            "environment_errors": standings.environment_errors,
            "quarantined": standings.quarantined,
            "nonfinite": standings.nonfinite,
            "unreadable": folds.unreadable,
            "alarms": list(dict.fromkeys([*standings.alarms, *folds.alarms])),
            "phases": [{"phase": phase, "seconds": at, "reason": why} for phase, at, why in standings.phases],
            "events": [{"time": at / 1e9, "source": source, "text": text} for at, source, text in standings.events],
        }
    )
    return summary


def write_summary(run_dir: Path) -> Path:
    """Write `summary.json` in the run directory, whole or not at all, and give its path."""
    path = Path(run_dir) / SUMMARY
    content = json.dumps(summarise(run_dir), indent=1, allow_nan=False) + "\n"
    write_whole(path, content.encode())
    return path
