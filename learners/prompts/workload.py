"""The workload of a run file: `[prompts]` with its template and its tasks.

Invariant: what it gives can be optimised: the template has a placeholder, and every task fills all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.scoring import dataset
from actors.scoring.template import placeholders, template_error
from broker.errors import RequestError
from learners.prompts.search import Workload


def workload_of(run: Mapping[str, Any], algorithm: str) -> Workload:
    """What the resolved run file `run` asks to optimise. RequestError names the key, or the file, line and field."""
    prompts = run.get("prompts")
    if not prompts:
        raise RequestError(f"learner.algorithm {algorithm!r} improves a prompt: the run file needs a section [prompts]")
    template = prompts["template"]
    if error := template_error(template):
        raise RequestError(f"prompts.template: {error}")
    if not placeholders(template):
        raise RequestError(
            "prompts.template: has no placeholder, so that every task would get the same prompt; write for example"
            " {question} where the task's field of that name belongs"
        )
    training, validation = (
        dataset.load(prompts[split], (), prompts.get(f"{split}_items"), prompts.get(f"{split}_sha256"), template)
        for split in ("training", "validation")
    )
    return Workload(template, training, validation)
