"""139 SIGKILLs over every role of a run, at random moments: nothing is lost, nothing comes twice, nothing is left."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.test_kills import nursery
from tests.flow.running import Running

KILLS = 139
ROLES = ("tracker", "learner-agent_0", "learner-agent_1", "learner-agent_2", "actor-0", "actor-1")
SETTINGS = (
    "--set", "stop.seconds=3600", "--set", "actors.environments=4", "--set", "learner.settings.batch_steps=200",
    "--set", "learner.checkpoint_seconds=0.5", "--set", "supervision.restarts=1000",
    "--set", "supervision.backoff_seconds=0",
)  # fmt: skip


@pytest.mark.soak
def test_139_kills_over_all_roles(tmp_path: Path) -> None:
    chance = random.Random(139)
    with Running(tmp_path, "spread", *SETTINGS) as run:
        run.learning(2)
        run.restarts |= set(ROLES)
        for number in range(KILLS):
            if number % 20 == 19:  # its children live on, and the next one that falls has a new nursery
                with suppress(ValueError, ProcessLookupError):
                    os.kill(nursery(run), signal.SIGKILL)
                    continue
            before = run.kill(chance.choice(ROLES))
            run.restarted(before, 60)
            if chance.random() < 0.5:
                made = len(run.facts("update"))
                run.until(lambda made=made: len(run.facts("update")) > made, "updates go on", 60)  # type: ignore[misc]
        for policy in ("agent_0", "agent_1", "agent_2"):
            made = len(run.versions(policy))
            run.until(lambda p=policy, made=made: len(run.versions(p)) > made + 3, "it learns on", 60)  # type: ignore[misc]
    killed = [fact for fact in run.facts("exited") if not fact.body["expected"]]
    assert len(killed) >= KILLS - KILLS // 20 - 1
