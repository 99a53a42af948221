"""The record of a run's agents and spaces: written when the run begins, compared when it is resumed or loaded.

Invariant: a policy is trained further, or plays, only in an environment with the agents and spaces of its run. A run
directory of an older version has no record, and gets one when it is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from broker import files
from broker.errors import RequestError
from launcher.directory import RunDirectory
from launcher.plan import spec_words
from launcher.probing import Spaces

LARGEST_RECORD = 64 * 1024 * 1024


def keep(where: RunDirectory, spaces: Spaces | None) -> None:
    """Write the record of a run that has none. RequestError if it has one, and the environment differs from it."""
    if spaces is not None and not compare(where, spaces):
        files.write_whole(where.spaces_file, json.dumps({"kind": spaces.kind, "agents": spaces.agents}).encode())


def compare(where: RunDirectory, spaces: Spaces | None) -> bool:
    """Tell whether there is a record. RequestError names both environments if they differ."""
    try:
        stored = json.loads(files.read(where.spaces_file, LARGEST_RECORD))["agents"]
    except FileNotFoundError:
        return False
    except (ValueError, LookupError, TypeError):
        raise RequestError(f"{where.spaces_file}: cannot be read: remove it if the environment is unchanged") from None
    differences = differing(stored, spaces.agents if spaces is not None else {})
    if differences:
        raise RequestError(
            f"{where.path}: its environment has changed since the run began: {'; '.join(differences)}; "
            "restore the environment's code and settings, or start a new run"
        )
    return True


def differing(stored: Mapping[str, Any], agents: Mapping[str, Any]) -> list[str]:
    """Describe the differences. Keys that the stored specs do not have are ignored."""
    if stored.keys() != agents.keys():
        return [f"its agents were {', '.join(stored)}, and are now {', '.join(agents) or 'none'}"]
    differences = []
    for agent, specs in stored.items():
        for role, verb in (("observation", "saw"), ("action", "did")):
            before, now = specs[role], agents[agent][role]
            if not _same(before, now):
                differences.append(f"{agent} {verb} {_described(before)}, and now {_described(now)}")
    return differences


def _same(stored: Any, now: Any) -> bool:
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        return all(key in now and _same(value, now[key]) for key, value in stored.items())
    if isinstance(stored, list) and isinstance(now, list):
        return len(stored) == len(now) and all(map(_same, stored, now))
    return bool(stored == now)


def _described(spec: Mapping[str, Any]) -> str:
    """Describe a spec briefly, with a box's bounds."""
    bounds = f" from {spec['low']} to {spec['high']}" if spec.get("low") else ""
    return spec_words(spec) + f"{bounds:.120}"
