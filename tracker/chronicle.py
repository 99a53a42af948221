"""What happened, in a person's words: one line for each fact that a person would want to hear of.

Invariant: a line is at most 240 characters on one line of text, whatever a source wrote into its fact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LONGEST = 240


def version_text(version: Any) -> str:
    """A version as people write it: `1.250` is number 250 of life 1."""
    return ".".join(str(part) for part in version)


def last_line(text: str) -> str:
    """The last line that is not empty: in a traceback, the error itself."""
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _exited(body: Any) -> str:
    how = body["signal"] or ("nobody saw how" if body["status"] is None else f"status {body['status']}")
    if body["expected"]:
        return f"{body['role']} ended ({how})"
    words = last_line(body["last_words"])
    return f"{body['role']} died ({how}){': ' + words if words else ''}"


def _environment_error(body: Any) -> str:
    frames = [line.strip() for line in str(body["traceback"]).splitlines() if line.strip().startswith('File "')]
    where = f" at {frames[-1].rpartition('/')[2].replace(chr(34), '')}" if frames else ""
    when = ", ".join(f"{key} {body[key]}" for key in ("seed", "episode", "step") if isinstance(body.get(key), int))
    raised = "an environment raised " if frames else ""
    return f"{raised}{last_line(body['traceback'])}{where}{f' ({when})' if when else ''}"


def _liveness(body: Any) -> str | None:
    said = {"suspect": "is silent", "lost": "is lost", "returned": "is back", "left": "has left"}.get(body["state"])
    return None if said is None else f"{body['role']} {said}"


def _run(body: Any) -> str:
    return f"{body['name']} {'resumed' if body['resumed'] else 'launched'}, launch {body['life']}, seed {body['seed']}"


def _spawned(body: Any) -> str | None:
    return (
        f"{body['role']} started again (attempt {body['attempt']}, pid {body['pid']})" if body["attempt"] > 1 else None
    )


def _checkpoint(body: Any) -> str:
    best = ", the best so far" if body.get("best") else ""
    return f"checkpoint of {body['policy']} {version_text(body['version'])} kept ({body['size'] / 1e6:.1f} MB{best})"


def _resumed(body: Any) -> str:
    start = f"from {version_text(body['from'])}" if body.get("from") else "afresh"
    lost = f", {body['updates_lost']} updates lost" if body["updates_lost"] else ""
    return f"{body['policy']} begins life {body['life']} {start}{lost}"


def _evict(body: Any) -> str | None:
    if "life" in body:
        return None  # there may be many, and `resumed` says why
    return f"task {body['task']} was given up: {body['reason']}"


def _phase(body: Any) -> str:
    return f"run {body['phase']}" + (f": {body['reason']}" if body["reason"] else "")


def _pool_accept(body: Any) -> str | None:
    declined = body["declined"]
    if not declined:
        return None
    of = body["accepted"] + len(declined)
    index, task, why = declined[0]
    if all(reason == why for _, _, reason in declined):
        return f"{len(declined)} of {of} minted tasks were not taken: {why}"
    return f"{len(declined)} of {of} minted tasks were not taken, number {index}, {task}, because {why}"


def _pool_evict(body: Any) -> str | None:
    if body["reason"] == "score":
        return None  # there are many, and the pool's section counts them
    return f"task {body['task']} was evicted: {body['note']}"


def _generation_failed(body: Any) -> str:
    how = "ends the source" if body.get("permanent", False) else "failed"
    return f"{body['generation']} {how}: {last_line(body['reason'])}"


def _curriculum(body: Any) -> str | None:
    told = ", ".join(f"{name} {before} -> {after}" for name, (before, after) in body["changed"].items())
    ways = ", ".join(f"{name} by {way}" for name, way in body["migrated"].items())
    return f"the curriculum goes on with {told}{' (migrated: ' + ways + ')' if ways else ''}" if told else None


_words: dict[str, Callable[[Any], str | None]] = {
    "run": _run,
    "spawned": _spawned,
    "exited": _exited,
    "stop_request": lambda body: f"asked to stop: {body['reason']}",
    "alarm": lambda body: f"alarm: {body['text']}",
    "environment_error": _environment_error,
    "rollout_error": lambda body: f"rollout of {body['task']} raised {last_line(body['traceback'])}",
    "resumed": _resumed,
    "finished": lambda body: (
        f"{body['policy']} {'cannot go on' if body.get('failed') else 'has finished'}: {body['reason']}"
    ),
    "phase": _phase,
    "checkpoint": _checkpoint,
    "checkpoint_skipped": lambda body: f"checkpoint {body['file']} was skipped: {body['reason']}",
    "liveness": _liveness,
    "curriculum": _curriculum,
    "generation_failed": _generation_failed,
    "pool_accept": _pool_accept,
    "pool_evict": _pool_evict,
    "outcome_refused": lambda body: f"an outcome of {body['task']} was refused: {body['reason']}",
    "evict": _evict,
    "given_up": _evict,
    "duplicate_task": lambda body: f"{body['policy']} minted {body['task']} again: a name is used once in a run",
    "refusal": lambda body: f"{body['policy']} refused experience of {body['from']}: {body['reason']}",
    "quarantine": lambda body: f"{body['count']} messages of {body['source']} were not believed: {body['reason']}",
    "refused": lambda body: f"a {body['kind']} fact was refused: {body['reason']}",
}
TOLD = frozenset(_words)


def words(kind: str, body: Any) -> str | None:
    """The line for a fact, or None where there is nothing to tell."""
    line = _words[kind](body)
    return None if line is None else " ".join(line.split())[:LONGEST]
