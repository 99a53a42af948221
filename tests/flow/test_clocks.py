"""A run whose host's wall clock is set back by hours, in its midst and before it is resumed."""

from __future__ import annotations

from pathlib import Path

from tests.flow.running import Running

HOURS = 2 * 3600
WALL_CLOCK = """
import time
from pathlib import Path

def ahead(seconds=time.time, nanoseconds=time.time_ns, file=Path({file!r})):
    time.time = lambda: seconds() + float(file.read_text())
    time.time_ns = lambda: nanoseconds() + int(file.read_text()) * 10**9

ahead()
"""
"""Runs in every interpreter that is started with this folder on its path, before anything else."""


def test_a_wall_clock_that_is_set_back_costs_nothing(tmp_path: Path) -> None:
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(WALL_CLOCK.format(file=str(ahead)))
    environment = {"PYTHONPATH": str(tmp_path)}
    with Running(tmp_path, "cartpole", environment=environment) as run:
        run.learning()
        ahead.write_text(str(-HOURS))
        before = [run.kill(role) for role in ("actor-0", "learner-agent")]
        after = [run.restarted(fact) for fact in before]
        assert after[0].time > before[0].time, "times of facts go on"
        run.until(lambda: [version for version in run.versions() if version[0] == 2], "the next life learns")
        newest = run.kill("tracker")
        run.restarted(newest)
        learned = len(run.versions())
        run.until(lambda: len(run.versions()) > learned + 3, "it is learned under the next tracker")
        incarnation = run.facts("liveness")[-1].incarnation
        run.until(lambda: {f.source for f in run.facts("progress")} >= {"actor-0", "actor-1"}, "all actors are heard")
    ahead.write_text(str(-2 * HOURS))
    with Running(tmp_path, "--resume", environment=environment) as resumed:
        resumed.restarts = run.restarts
        resumed.until(
            lambda: [version for version in resumed.versions() if version[0] == 3], "the resumed run learns", 45
        )
        assert resumed.facts("run")[-1].incarnation > incarnation
        lost = [fact.body for fact in resumed.facts("liveness") if fact.body["state"] == "lost"]
        assert not [body for body in lost if body["incarnation"] > incarnation], "nobody is superseded"
