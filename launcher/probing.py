"""The launcher's probe: asks the run's environment for its agents and spaces, and plays it for a moment.

Invariant: the environment is made in a process of its own (`launcher.inquiry`), never in the launcher.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actors.environments.settings import EnvironmentSettings
from launcher.inquiry import Inquiry
from launcher.runfile import RunFile

MODULE = "actors.probe"
MOST_COPIES = 3


@dataclass(frozen=True)
class Spaces:
    """What the environment is: its kind, and the plain specs of each agent's spaces, in the agents' order."""

    kind: str
    agents: dict[str, dict[str, Any]]
    """Agent -> {"observation": plain ObservationSpec, "action": plain ActionSpec}"""
    warnings: list[str] = field(default_factory=list)
    """Properties of the environment that are likely to hinder learning, although it can be played."""


class Probe:
    """One question to the environment, asked at once and answered later, so that other things go on meanwhile."""

    def __init__(self, run: RunFile, *, play: bool = True, module: str = MODULE) -> None:
        """With `play` the environment is also played, as actors will. Otherwise only its spaces are read."""
        self._inquiry: Inquiry | None = None
        if run.environment is not None:
            plain, environment = run.to_plain(), run.environment
            stepped = run.actors.rollout == "environments"
            question = {
                "environment": EnvironmentSettings.of(plain).model_dump(mode="json"),
                "play": play and stepped,
                "copies": min(run.actors.environments, MOST_COPIES),
                "seed": run.seed,
                "curriculum": plain.get("curriculum") if stepped else None,
                "folder": run.folder,
            }
            about, seconds = f"environment {environment.id}", environment.start_seconds
            key = "environment.start_seconds"
            self._inquiry = Inquiry(about, module, question, run.folder, seconds=seconds, key=key)

    def answer(self) -> Spaces | None:
        """The spaces, or None for a run without an environment. RequestError says what is wrong with it."""
        if self._inquiry is None:
            return None
        reply = self._inquiry.answer()
        return Spaces(reply["kind"], reply["agents"], reply["warnings"])

    def close(self) -> None:
        """End the process and what it started. A second call does nothing."""
        if self._inquiry is not None:
            self._inquiry.close()
