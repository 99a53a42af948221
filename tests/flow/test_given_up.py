"""Tasks of which nothing comes: whoever minted them hears of it, and waits for them no longer."""

from __future__ import annotations

import json
from pathlib import Path

from tests.flow.running import Running

OWN = '''
import os
import signal

from actors.rollout import Outcome
from learners.algorithm import Task


class Collect:
    """Mints four tasks, and has finished when each has a result or was given up."""

    def __init__(self, context):
        self.minted, self.results, self.reasons, self.learned, self.said = False, {}, {}, False, False

    def mint(self):
        if self.minted:
            return ()
        self.minted = True
        bodies = {"good": {}, "raises": {}, "unfit": {}, "kills": {}}
        return [Task(name, body) for name, body in bodies.items()]

    def accept(self, fragment):
        self.results[fragment.task] = fragment.note

    def given_up(self, task, reason):
        self.reasons[task] = reason

    def ready(self):
        return len(self.results) + len(self.reasons) == 4 and not self.learned

    def update(self):
        self.learned = True

    def facts(self):
        if self.said or not self.learned:
            return ()
        self.said = True
        return [("heard", {"results": self.results, "reasons": self.reasons})]

    def finished(self):
        return "nothing is waited for" if self.said else None

    def parameters(self):
        return {}

    snapshot = parameters

    def restore(self, tree):
        pass


class Stumble:
    def __init__(self, context):
        pass

    def run(self, task, parameters):
        if task.task == "raises":
            raise RuntimeError("it slipped")
        if task.task == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(result={"value": "x" * 300_000 if task.task == "unfit" else 1.0})
'''
RUN = """
name = "stumbling"
[actors]
processes = 2
rollout = "own:Stumble"
[policies]
names = ["p"]
[learner]
algorithm = "own:Collect"
[supervision]
restarts = 9
"""


def test_an_algorithm_hears_of_every_task_that_was_given_up(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "own.toml").write_text(RUN)
    with Running(tmp_path, "own.toml") as run:
        run.restarts.update({"actor-0", "actor-1"})  # whoever has the task that kills
        assert run.wait(90) == 0, run.told()
    ended = run.last("phase")
    assert ended is not None
    assert (ended.body["reason"], ended.body["failed"]) == ("nothing is waited for", False)
    (heard,) = run.facts("heard")
    assert heard.body["results"] == {"good": {"value": 1.0}}
    reasons = heard.body["reasons"]
    for name in ("raises", "kills"):
        assert reasons[name].startswith("5 leases ended without an outcome, the last one: ")
    assert reasons["unfit"].startswith("ValueError: the body of a 'outcome' fact has 300")
    assert {f.body["task"] for f in run.facts("given_up")} == {"raises", "kills", "unfit"}
    delivered = {f.body["task"]: f.body.get("given_up", False) for f in run.facts("delivered")}
    expected = {"good": False, "raises": True, "kills": True, "unfit": True}
    assert delivered.items() <= expected.items()
    assert len(delivered) >= 3, "the run may end before it is recorded that the last one was delivered"
    killed = [f for f in run.facts("exited") if f.body["signal"] == "SIGKILL"]
    assert len(killed) == 5
    tasks = json.loads((run.directory / "summary.json").read_text())["tasks"]
    assert [tasks[name] for name in ("minted", "done", "failed", "evicted")] == [4, 1, 3, 0]
