"""A process that has the run token and names itself as it likes: what it says out of its role changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zmq

from broker import messages as m
from broker.clock import now
from broker.names import new_incarnation
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Codec, Identity
from tests.flow.running import Running
from tests.flow.wiring import Reactors, Sockets

FUTURE = "f" * 32
OFFER = m.CheckpointOffer(offer=2**62, policy="agent", version=(9, 9), size=1, sha256="0" * 64)
FORBIDDEN: list[tuple[str, m.Message, str | None]] = [
    ("actor-9", OFFER, None),
    ("actor-9", m.RestoreRequest(policy="agent"), None),
    ("learner-other", m.RestoreRequest(policy="agent"), None),
    ("intruder", m.Hello(role="actor", pid=1), None),
    ("actor-9", m.Hello(role="launcher", pid=1), None),
    ("actor-9", m.Hello(role="actor", pid=1, address="ipc:///nowhere"), None),
    ("learner-agent", m.Hello(role="learner", pid=1, policy="other", address="ipc:///nowhere"), None),
    ("tracker", m.Hello(role="tracker", pid=1), None),
    ("launcher", m.TaskRequest(request=1, count=1), None),
    ("actor-0", m.Hello(role="actor", pid=1), FUTURE),
    ("learner-agent", m.Hello(role="learner", pid=1, policy="agent", address="ipc:///nowhere"), FUTURE),
    ("launcher", m.Hello(role="launcher", pid=1), FUTURE),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("finished", {"policy": "agent", "reason": "done"}),
    ("stop_request", {"reason": "enough", "failed": False}),
    ("stop_request", {"reason": "enough", "failed": True}),
    ("exited", {"role": "learner-agent", "pid": 1, "attempt": 1, "status": 1, "signal": None, "expected": False,
                "last_words": ""}),
    ("phase", {"phase": "ended", "reason": "", "failed": False}),
    ("life", {"policy": "agent", "life": 7, "incarnation": FUTURE}),
    ("mint", {"policy": "agent", "tasks": [{"task": "t", "body": {}}]}),
    ("alarm", {"text": "fire"}),
]  # fmt: skip


def test_an_insider_out_of_its_role_changes_nothing(tmp_path: Path, reactors: Reactors, sockets: Sockets) -> None:
    run = Attacked(tmp_path, "cartpole")
    with run:
        run.learning()
        token = (run.directory / "token").read_text().strip()
        address = json.loads((run.directory / "tracker.json").read_text())["address"]
        watcher = TrackerSpoke(reactors(), Identity(token, "dashboard-1", new_incarnation()), "dashboard", address)
        run.until(lambda: watcher.directory and watcher.incarnation, "the directory came")
        learner = watcher.directory["learner-agent"]
        hubs = {"tracker": (address, watcher.incarnation), "learner-agent": (learner.address, learner.incarnation)}
        pushes = {hub: sockets(zmq.PUSH) for hub in hubs}
        for hub, push in pushes.items():
            push.connect(hubs[hub][0])
        began = new_incarnation()

        def say(name: str, message: m.Message, incarnation: str | None = None, hub: str = "tracker") -> None:
            codec = Codec(Identity(token, name, incarnation or began), "spoke")
            pushes[hub].send(codec.encode(message, hub, hub=hubs[hub][1]))

        for name, message, incarnation in FORBIDDEN:
            say(name, message, incarnation)
        facts = tuple((now(0), kind, json.dumps(body)) for kind, body in REFUSED)
        say("actor-9", m.Hello(role="actor", pid=1))
        say("actor-9", m.Facts(first=1, items=facts))
        say("launcher", m.Hello(role="launcher", pid=1), hub="learner-agent")
        say("actor-9", m.Facts(first=1, items=facts), hub="learner-agent")
        run.until(lambda: len(run.facts("refused")) == len(REFUSED), "every fact is refused")
        run.until(lambda: quarantined(run, "tracker") == len(FORBIDDEN), "every message is counted")
        run.until(lambda: quarantined(run, "learner-agent") == 2, "so they are by the learner")
        learned = len(run.versions())
        run.until(lambda: len(run.versions()) > learned + 3, "the run goes on")
        say("actor-9", m.Farewell())
    assert {fact.body["kind"] for fact in run.facts("refused")} == {kind for kind, _ in REFUSED}
    assert run.last("phase").body["reason"] == "interrupted"  # type: ignore[union-attr]
    assert len(run.facts("life")) == 1
    assert max(fact.body["attempt"] for fact in run.facts("spawned")) == 1, "nobody was superseded"
    assert not [fact for fact in run.facts("checkpoint") if fact.body["version"] == [9, 9]]


class Attacked(Running):
    """A run in whose ledger there may be refused facts and quarantined frames."""

    def check(self) -> None: ...


def quarantined(run: Running, source: str) -> int:
    return sum(fact.body["count"] for fact in run.facts("quarantine", source))
