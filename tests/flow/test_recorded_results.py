"""Work that is paid for: its results are recorded, delivered whatever is killed, and never paid for again."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

from broker.names import task_name
from tests.flow.running import Running, processes_in, until

TASKS = 6
ROUNDS = 4
OWN = '''
import asyncio
import json
import os
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from actors.rollout import Outcome
from broker.station import Spec, Station
from learners.algorithm import Task

HERE = Path(__file__).parent


class Rounds:
    """Six tasks a round, four rounds. It takes nothing of the round that the file `hold` names."""

    def __init__(self, context):
        self.round, self.total, self.seen, self.open, self.said = 0, 0.0, {}, False, []

    def mint(self):
        if self.open or self.round == 4:
            return ()
        self.open = True
        return [Task(f"{self.round}.{n}", {"round": self.round}) for n in range(6)]

    def accept(self, fragment):
        while self.round == int((HERE / "hold").read_text() or -1):
            time.sleep(0.01)
        assert not fragment.arrays
        if fragment.task.startswith(f"{self.round}."):
            self.seen[fragment.task] = fragment.note["value"]

    def ready(self):
        return len(self.seen) == 6

    def update(self):
        self.total += sum(value for _, value in sorted(self.seen.items()))
        self.said.append(("total", {"round": self.round, "total": self.total}))
        self.round, self.seen, self.open = self.round + 1, {}, False
        return {"total": self.total}

    def facts(self):
        said, self.said = self.said, []
        return said

    def finished(self):
        return "4 rounds were made" if self.round == 4 else None

    def parameters(self):
        return {"round": self.round}

    def snapshot(self):
        return {"round": self.round, "total": self.total}

    def restore(self, tree):
        self.round, self.total = tree["round"], tree["total"]


class Pay:
    """Notes in the file `paid` what it was run for."""

    def __init__(self, context):
        self.actor = context.actor

    async def run(self, task, parameters):
        assert parameters["p"].tree["round"] >= task.body["round"]
        with (HERE / "paid").open("a") as paid:
            paid.write(task.task + chr(10))
        await asyncio.sleep(0.02)
        value = len(task.task.partition("@")[0]) + task.body["round"] / 10
        return Outcome(score=0.5, result={"value": value, "by": self.actor}, facts=[("call", {"task": task.task})])


class Moves:
    """One task after the other, until their answers came from two addresses."""

    def __init__(self, context):
        self.n, self.open, self.last, self.from_ = 0, False, None, []

    def mint(self):
        if self.open:
            return ()
        self.open, self.n = True, self.n + 1
        return [Task(f"ask {self.n}", {})]

    def accept(self, fragment):
        self.last = fragment.note

    def ready(self):
        return self.last is not None

    def update(self):
        if self.last["address"] not in self.from_:
            self.from_.append(self.last["address"])
        self.last, self.open = None, False
        return {"addresses": float(len(self.from_))}

    def finished(self):
        return "it moved" if len(self.from_) == 2 else None

    def parameters(self):
        return {}

    def snapshot(self):
        return {}

    def restore(self, tree):
        pass


class Ask:
    def __init__(self, context):
        self.services = context.services

    async def run(self, task, parameters):
        while True:
            address = await self.services.found("echo")
            try:
                answer = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=2).read())
                return Outcome(result={"address": address, **json.loads(answer)})
            except OSError:
                await asyncio.sleep(0.05)


def serve(plain, ending):
    said = json.dumps({"torch": "torch" in sys.modules, "word": plain["settings"]["word"], "pid": os.getpid()})

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    station = Station.open(Spec.of(plain), ending, serves=f"http://127.0.0.1:{server.server_port}")
    station.serve()
    station.close("the run is ending")
'''
RUN = """
name = "paid"
[actors]
processes = 2
concurrency = 3
rollout = "own:{rollout}"
[policies]
names = ["p"]
[learner]
algorithm = "own:{algorithm}"
"""


def written(home: Path, algorithm: str = "Rounds", rollout: str = "Pay", more: str = "", hold: int = 0) -> str:
    (home / "own.py").write_text(OWN)
    (home / "own.toml").write_text(RUN.format(algorithm=algorithm, rollout=rollout) + more)
    held(home, hold)
    return "own.toml"


def held(home: Path, number: int) -> None:
    """The learner takes nothing of this round."""
    new = home / "hold.new"
    new.write_text(str(number))
    new.replace(home / "hold")


def paid(home: Path) -> Counter[str]:
    """How often each name was run."""
    return Counter(task_name(line)[0] for line in (home / "paid").read_text().splitlines())


def recorded(run: Running, number: int) -> bool:
    """Whether all of a round is recorded, and nothing of it delivered."""
    names = {task_name(f.body["task"])[0] for f in run.facts("outcome")}
    ready = {f"{number}.{n}" for n in range(TASKS)} <= names
    if ready:
        assert not [f for f in run.facts("delivered") if f.body["task"].startswith(f"{number}.")]
    return ready


def check_finished(run: Running, home: Path) -> None:
    assert run.wait(60) == 0, run.told()
    ended = run.last("phase")
    assert ended is not None
    assert (ended.body["phase"], ended.body["reason"], ended.body["failed"]) == ("ended", "4 rounds were made", False)
    assert paid(home) == {f"{number}.{n}": 1 for number in range(ROUNDS) for n in range(TASKS)}
    names = Counter(task_name(f.body["task"])[0] for f in run.facts("outcome"))
    assert names == paid(home), "one outcome each"
    assert not run.facts("late_outcome")
    delivered = {task_name(f.body["task"])[0] for f in run.facts("delivered")}
    assert delivered == set(names)
    calls = Counter(task_name(f.body["task"])[0] for f in run.facts("call"))
    assert calls == names
    rounds = {(f.body["round"], round(f.body["total"], 3)) for f in run.facts("total")}
    assert rounds == {(0, 18.0), (1, 36.6), (2, 55.8), (3, 75.6)}
    floors = {tuple(f.body["version"]) for f in run.facts("mint")}
    assert len(floors) >= ROUNDS


def test_whatever_is_killed_what_is_recorded_is_delivered_and_not_paid_again(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path)) as run:
        run.until(lambda: recorded(run, 0), "the first round is recorded", 60)
        before = [run.kill("actor-0"), run.kill("actor-1")]
        for spawned in before:
            run.restarted(spawned)
        again = run.until(lambda: run.facts("lease_returned")[TASKS - 1 :], "their tasks came back")
        leased = {f.body["task"] for f in run.facts("assign")}
        assert leased == {f"0.{n}" for n in range(TASKS)}
        assert again

        held(tmp_path, 1)
        run.until(lambda: recorded(run, 1), "the second round is recorded")
        learner = run.kill("learner-p")  # it has no checkpoint: it begins at the first round
        held(tmp_path, 2)
        run.restarted(learner)
        run.until(lambda: recorded(run, 2), "the third round is recorded")
        tracker = run.kill("tracker")
        run.restarted(tracker)
        held(tmp_path, -1)
        check_finished(run, tmp_path)
    twice = Counter(f.body["round"] for f in run.facts("total"))
    assert twice[0] == 2, "the second life said the first round again"
    assert json.loads((run.directory / "summary.json").read_text())["tasks"]["late"] == 0


def test_a_run_that_was_killed_goes_on_without_paying_again(tmp_path: Path) -> None:
    with Running(tmp_path, written(tmp_path, hold=1), "--set", "learner.checkpoint_seconds=0.05") as run:
        run.until(lambda: recorded(run, 1) and run.last("checkpoint"), "the second round is recorded", 60)
        run.launcher.kill()
        for fact in run.facts("spawned"):
            with suppress(ProcessLookupError):
                os.kill(fact.body["pid"], signal.SIGKILL)
        run.launcher.wait()
        until(lambda: not processes_in(run.directory), "the nursery has left too", 5.0)
        run.expected_status = -signal.SIGKILL
        run.end()
    assert sum(paid(tmp_path).values()) == 2 * TASKS
    held(tmp_path, -1)
    with Running(tmp_path, "--resume") as again:
        check_finished(again, tmp_path)
        (resumed,) = again.facts("resumed")
        assert resumed.body["from"] == [1, 1]
    brought = [f.body["task"] for f in again.facts("delivered") if f.body["task"].startswith("1.")]
    assert sorted(brought) == [f"1.{n}@life-2" for n in range(TASKS)]


def test_an_endpoint_that_falls_is_found_where_it_comes_back(tmp_path: Path) -> None:
    service = '[services.echo]\nmain = "own:serve"\nsettings = { word = "hello" }\n'
    with Running(tmp_path, written(tmp_path, "Moves", "Ask", service)) as run:
        run.until(lambda: run.facts("outcome")[3:], "it answers", 60)
        before = run.kill("endpoint-echo")
        after = run.restarted(before)
        assert run.wait(30) == 0, run.told()
    assert run.facts("phase")[-1].body["reason"] == "it moved"
    results = [f.body["result"] for f in run.facts("outcome")]
    assert len({result["address"] for result in results}) == 2
    assert [result["pid"] for result in (results[0], results[-1])] == [before.body["pid"], after.body["pid"]]
    assert {(result["torch"], result["word"]) for result in results} == {(False, "hello")}
    (fell, left) = [f.body for f in run.facts("exited") if f.body["role"] == "endpoint-echo"]
    assert (fell["signal"], fell["expected"], left["status"], left["expected"]) == ("SIGKILL", False, 0, True)
    assert not run.facts("rollout_error")
