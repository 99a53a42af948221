"""Making what the roles of a run will make of their own, before there is a run: algorithms, networks, the rollout.

`headrace check` does it; `headrace run` does not, because it would take as long as a start: there the role that meets
the mistake ends the run with the same message.

Invariant: all of it is made in a process of its own (`launcher.inquiry`), each part in the way its role makes it, and
every mistake is told at once. Nothing is learned or played.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.errors import RequestError
from launcher.inquiry import Inquiry
from launcher.plan import Plan

if TYPE_CHECKING:
    from broker.station import Spec


def rehearse(plan: Plan) -> None:
    """RequestError with every mistake in what the run file names of the user's own, or in its settings."""
    inquiry = Inquiry(
        "the run's algorithm, network or rollout",
        "launcher.rehearsal",
        plan.to_plain(),
        plan.run.folder,
        seconds=plan.run.supervision.check_seconds,
        key="supervision.check_seconds",
    )
    try:
        inquiry.answer()
    finally:
        inquiry.close()


def mistakes(plan: Mapping[str, Any]) -> list[str]:
    """One message for each part that cannot be made; imports torch, and the user's modules."""
    from actors.curriculum.settings import DrawingSettings
    from actors.curriculum.sources import named
    from actors.role import networks_of, rollout_of
    from actors.services import Services
    from broker import references
    from broker.station import Spec

    def spec(kind: str, index: int, policy: str | None = None) -> Spec:
        return Spec(f"{kind}-{policy or index}", kind, index, "", "", "", dict(plan), policy)  # type: ignore[arg-type]

    run = plan["run"]
    key = f"learner.algorithm {run['learner']['algorithm']!r}"
    parts: list[tuple[str, Callable[[], Any]]] = [
        (key, partial(_learner, spec("learner", index, policy))) for index, policy in enumerate(plan["policies"])
    ]
    if run["actors"]["rollout"] == "environments":
        parts.append((f"policies.network {run['policies']['network']!r}", partial(networks_of, spec("actor", 0))))
    else:
        make = partial(rollout_of, spec("actor", 0), Services())
        parts.append((f"actors.rollout {run['actors']['rollout']!r}", make))
    for name, service in run.get("services", {}).items():
        key, main = f"services.{name}.main", service["main"]
        parts.append((f"{key} {main!r}", partial(references.load, main, key)))
    if "curriculum" in run:
        own = named(DrawingSettings.read(run["curriculum"]))
        parts += [(f"{key} {name!r}", partial(references.load, name, key)) for key, name in own]
    found = [_mistake(key, make) for key, make in parts]
    return list(dict.fromkeys(told for told in found if told))  # learners and actors make the same network


def _learner(spec: Spec) -> None:
    from learners.role import algorithm_of, kept

    kept(algorithm_of(spec))


def _mistake(key: str, make: Callable[[], Any]) -> str | None:
    try:
        make()
    except RequestError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raised = f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
        return f"{key}: making it raised {raised}. To mend it: mend that, or its settings."
    return None


def main() -> int:
    """The program: a plan as JSON on standard input, {} or {"error": message} on standard output."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the user's modules print goes to standard error
    with answer:
        found = mistakes(json.load(sys.stdin))
        answer.write(json.dumps({"error": "\n".join(found)} if found else {}) + "\n")
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
