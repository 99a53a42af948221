"""What is impossible in a run file though each key alone is right.

Invariant: `contradictions` finds all of it at once, each with the path of the key to change and how to mend it; no
process has been started yet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from broker.addresses import check_bind, split
from broker.delivery import MAX_BODY, body_text
from broker.errors import RequestError
from launcher.curriculum import curriculum_mistakes
from launcher.mistakes import nearest
from launcher.prompting import contradictions as prompt_contradictions
from launcher.runfile import RunFile

SHIPPED = {
    "policies.network": ("mlp", "cnn"),
    "learner.algorithm": ("ppo", "textual_gradients", "gepa"),
    "actors.rollout": ("environments", "answers"),
}
"""What may be named in short; everything else is the user's own, `package.module:Name`."""
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MOST_TEXT = MAX_BODY - 32 * 1024
"""Characters of a run file: it is a fact, with what was changed in it."""
SERVICE = re.compile(r"[A-Za-z0-9_.-]{1,55}")


def contradictions(run: RunFile) -> list[tuple[str, str]]:
    """(path, what is wrong and how to mend it) of every contradiction."""
    wrong = [*_references(run), *_environment(run), *_tracker(run), *_policies(run)]
    return [*wrong, *curriculum_mistakes(run), *prompt_contradictions(run), *_numbers(run)]


def policy_mistake(name: str) -> str | None:
    """What is wrong with a policy's name (`learner-<name>` must still be a role's name), or None."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,56}", name) and name not in {".", ".."}:
        return None
    return f"{name!r} cannot name a policy: use 1 to 56 of the characters A-Z a-z 0-9 _ . -"


def leaves(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Path -> value of everything in it that is not a mapping."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _references(run: RunFile) -> list[tuple[str, str]]:
    given = {
        "policies.network": run.policies.network,
        "learner.algorithm": run.learner.algorithm,
        "actors.rollout": run.actors.rollout,
    }
    wrong = [
        (path, f'{value!r} is not known{nearest(value, SHIPPED[path])}; your own is "package.module:Name"')
        for path, value in given.items()
        if value not in SHIPPED[path] and not REFERENCE.fullmatch(value)
    ]
    for name, service in run.services.items():
        if not SERVICE.fullmatch(name):
            wrong.append((f"services.{name}", f"{name!r} cannot name a service: use 1 to 55 of A-Z a-z 0-9 _ . -"))
        if not REFERENCE.fullmatch(service.main):
            wrong.append((f"services.{name}.main", f'{service.main!r} is no function; write "package.module:function"'))
    return wrong


def _environment(run: RunFile) -> list[tuple[str, str]]:
    if run.environment is not None:
        if run.policies.names:
            return [("policies.names", "is for runs without an [environment]; map its agents with policies.agents")]
        return []
    wrong = []
    if run.actors.rollout == "environments":
        wrong.append(("environment", "is missing: actors.rollout = 'environments' steps one; give environment.id"))
    elif not run.policies.names:
        wrong.append(("policies.names", "a run without an [environment] must name its policies"))
    if run.stop.mean_return is not None:
        wrong.append(("stop.return", "there are no returns without an [environment]"))
    if run.policies.agents:
        wrong.append(("policies.agents", "there are no agents without an [environment]; use policies.names"))
    return wrong


def _tracker(run: RunFile) -> list[tuple[str, str]]:
    address = run.tracker.address
    if address == "ipc":
        return []
    try:
        if not address.startswith("tcp://"):
            raise RequestError(f'{address!r} is no address: write "ipc" or "tcp://127.0.0.1:7400"')
        check_bind(address, insecure=run.tracker.insecure)
        if split(address)[1] == 0:
            raise RequestError(f"{address!r}: everybody must know the port; give one from 1")
    except RequestError as error:
        return [("tracker.address", str(error))]
    return []


def _policies(run: RunFile) -> list[tuple[str, str]]:
    named = [("policies.names", name) for name in run.policies.names]
    named += [(f"policies.agents.{glob}", name) for glob, name in run.policies.agents.items()]
    wrong = [(path, mistake) for path, name in named if (mistake := policy_mistake(name))]
    if len(set(run.policies.names)) < len(run.policies.names):
        wrong.append(("policies.names", "names a policy twice"))
    return wrong


def _numbers(run: RunFile) -> list[tuple[str, str]]:
    wrong = []
    batch = run.learner.settings.get("batch_steps")
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        wrong.append(("learner.settings.batch_steps", f"must be a whole number of agent steps from 1 (is {batch!r})"))
    plain = run.to_plain()
    size = len(body_text(plain))
    if size > MOST_TEXT:
        longest = max(plain, key=lambda key: len(body_text({key: plain[key]})))
        told = f"the run file has {size:,} characters, most of them here; the ledger takes {MOST_TEXT:,}"
        wrong.append((longest, f"{told}: put what is long into a file of its own"))
    # Settings travel as JSON, which has no infinity and no NaN.
    wrong += [(path, "must be finite") for path, value in leaves(plain).items() if not _finite(value)]
    return wrong


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    if isinstance(value, Mapping):
        return all(_finite(item) for item in value.values())
    return not isinstance(value, float) or math.isfinite(value)
