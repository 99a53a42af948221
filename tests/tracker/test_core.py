from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.liveness import Event
from tests.tracker import bodies as b
from tracker.core import Core
from tracker.exchange import Committed, Joined, Life, Now, Restoring, Settings
from tracker.leases import Request
from tracker.ledger import Ledger, LedgerFull
from tracker.requests import PARKED
from tracker.standard import standard_folds
from tracker.summary import summarise

SECOND = 10**9


class Shell:
    """What the role does around the core: a real ledger, and a clock that the test holds."""

    def __init__(self, path: Path, incarnation: str = b.TWO, **settings: Any) -> None:
        self.ledger = Ledger(path / "ledger.sqlite")
        self.folds = standard_folds()
        self.folds.restore(self.ledger)
        self.core = Core(Settings(**settings), self.folds, incarnation)
        self.seconds = 0.0
        self.sent: dict[str, int] = {}

    @property
    def now(self) -> Now:
        return Now(1000 * SECOND + int(self.seconds * SECOND), self.seconds)

    def send(self, source: str, *facts: tuple[str, Any]) -> None:
        first = self.sent.get(source, 0) + 1
        self.sent[source] = first + len(facts) - 1
        self.core.accept(source, b.ONE, first, tuple((self.now.clock, kind, json.dumps(body)) for kind, body in facts))

    def tick(self, later: float = 0.0) -> Committed:
        self.seconds += later
        batch = self.core.gather(self.now)
        with self.ledger.commit():
            positions = self.ledger.append(batch.rows)
        return self.core.committed(positions)

    def ticks(self, count: int = 3) -> list[tuple[str, Any]]:
        return [(fact.kind, fact.body) for _ in range(count) for fact in self.tick().facts]

    def start(self) -> None:
        self.core.handle(Joined("learner-p", "learner", b.ONE))
        self.core.handle(Joined("actor-0", "actor", b.ONE))
        self.ticks()
        assert self.core.standings.phase == "running"

    @property
    def phase(self) -> tuple[str, str]:
        return self.core.standings.phase, self.core.standings.reason


def test_the_phases_of_a_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path, learners=frozenset({"learner-p"}), stop_env_steps=1000)
    shell.ticks()
    assert shell.phase == ("starting", "")
    shell.core.handle(Joined("actor-0", "actor", b.ONE))
    shell.ticks()
    assert shell.phase[0] == "starting"  # an actor alone is no run
    shell.start()
    shell.send("actor-0", ("progress", b.progress(999)))
    shell.ticks()
    assert shell.phase[0] == "running"
    shell.send("actor-0", ("progress", b.progress(1)))
    shell.send("learner-p", ("update", b.update(9)))
    shell.ticks()
    assert shell.phase == ("stopping", "1,000 env steps were reached")
    shell.core.handle(Event("actor-0", b.ONE, "left"))
    shell.core.record("checkpoint", b.checkpoint(9))
    shell.ticks()
    assert shell.phase[0] == "stopping"
    shell.core.handle(Event("learner-p", b.ONE, "left"))
    shell.ticks()
    assert shell.phase == ("ended", "1,000 env steps were reached")
    assert not shell.core.standings.failed


def test_a_learner_that_falls_as_the_run_ends_fails_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path, learners=frozenset({"learner-p"}), stop_env_steps=1000)
    shell.ticks()
    shell.start()
    shell.send("actor-0", ("progress", b.progress(1000)))
    shell.send("learner-p", ("update", b.update(9)))
    shell.core.record("checkpoint", b.checkpoint(9))
    shell.ticks()
    assert shell.phase[0] == "stopping"
    shell.core.handle(Event("actor-0", b.ONE, "left"))
    shell.send("launcher", ("stop_request", {"reason": "learner-p ended with SIGKILL", "failed": True}))
    shell.ticks()
    assert shell.phase[0] == "stopping"
    shell.core.handle(Event("learner-p", b.ONE, "lost"))
    shell.ticks()
    assert shell.phase == ("ended", "1,000 env steps were reached, but learner-p ended with SIGKILL")
    assert shell.core.standings.failed


def test_seconds_count_over_all_lives_and_the_remainder_is_run(tmp_path: Path) -> None:
    shell = Shell(tmp_path, stop_seconds=100.0)
    shell.start()
    shell.tick(60.0)
    shell.ledger.close()

    back = Shell(tmp_path, "3" * 32, stop_seconds=100.0)  # the tracker alone came back, 5 s later: the run went on
    back.seconds = 65.0
    back.ticks()
    assert back.phase[0] == "running"
    assert back.core.phases.seconds(back.now) == pytest.approx(65.0, abs=0.01)
    back.core.standings.phases.clear()
    back.tick(5.0)
    back.ledger.close()

    again = Shell(tmp_path, "4" * 32, stop_seconds=100.0, launch=2)  # a new launch, much later
    again.seconds = 9000.0
    again.start()
    assert again.core.phases.seconds(again.now) == pytest.approx(70.0, abs=0.01)
    again.tick(29.0)
    again.ticks()
    assert again.phase[0] == "running"
    again.tick(1.1)
    again.ticks(1)
    assert again.phase == ("stopping", "100 seconds were reached")


def test_a_mean_return_stops_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path, stop_return=5.0)
    shell.start()
    shell.send("actor-0", *[("episode", b.episode(5.0))] * 99)
    shell.ticks()
    assert shell.phase[0] == "running"
    shell.send("actor-0", ("episode", b.episode(5.0)))
    shell.ticks()
    assert shell.phase == ("stopping", "a mean return of 5 over 100 episodes was reached")


def test_it_ends_when_every_policy_has_finished(tmp_path: Path) -> None:
    shell = Shell(tmp_path, learners=frozenset({"learner-p", "learner-q"}))
    shell.core.handle(Joined("learner-q", "learner", b.ONE))
    shell.start()
    shell.send("learner-p", ("finished", {"policy": "p", "reason": "3 rounds were made"}))
    shell.ticks()
    shell.core.handle(Restoring("p", b.TWO))  # its next life has to say it for itself
    shell.send("learner-q", ("finished", {"policy": "q", "reason": "the budget is spent"}))
    shell.ticks()
    assert shell.phase == ("running", "")
    shell.send("learner-p", ("finished", {"policy": "p", "reason": "4 rounds were made"}))
    shell.ticks()
    assert shell.phase == ("stopping", "p: 4 rounds were made; q: the budget is spent")
    assert not shell.core.standings.failed
    shell.ledger.close()


def test_a_policy_that_cannot_go_on_fails_the_run_at_once(tmp_path: Path) -> None:
    shell = Shell(tmp_path, learners=frozenset({"learner-p", "learner-q"}))
    shell.core.handle(Joined("learner-q", "learner", b.ONE))
    shell.start()
    shell.send("learner-p", ("finished", {"policy": "p", "reason": "all is missing", "failed": True}))
    shell.ticks()
    assert shell.phase == ("stopping", "all is missing")
    assert shell.core.standings.failed
    shell.ledger.close()
    again = Shell(tmp_path, "3" * 32, learners=frozenset({"learner-p"}), launch=2)
    again.core.accept("launcher", b.TWO, 1, ((1, "run", json.dumps(b.run(2))),))
    again.start()
    assert again.phase == ("running", "")
    again.ledger.close()


def test_a_finished_run_that_is_resumed_asks_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path, learners=frozenset({"learner-p"}))
    shell.start()
    shell.send("launcher", ("run", b.run(1)))
    shell.send("learner-p", ("finished", {"policy": "p", "reason": "done"}))
    shell.ticks()
    assert shell.phase == ("stopping", "done")
    shell.ledger.close()
    again = Shell(tmp_path, "3" * 32, learners=frozenset({"learner-p"}), launch=2)
    again.core.accept("launcher", b.TWO, 1, ((1, "run", json.dumps(b.run(2))),))
    again.start()
    assert again.phase == ("running", "")
    again.ledger.close()


def test_the_launcher_asks_for_a_failed_stop_and_silence_has_an_end(tmp_path: Path) -> None:
    shell = Shell(tmp_path, ending_seconds=10.0)
    shell.start()
    shell.send("launcher", ("stop_request", {"reason": "actor-0 kept dying", "failed": True}))
    shell.ticks()
    assert shell.phase == ("stopping", "actor-0 kept dying")
    shell.tick(10.0)
    assert shell.phase[0] == "ended"
    assert "no farewell from actor-0, learner-p within 10 s" in shell.phase[1]
    assert shell.core.standings.failed


def test_a_stop_request_of_an_earlier_launch_stops_nothing(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    shell.send("launcher", ("stop_request", {"reason": "interrupted", "failed": False}))
    shell.ticks()
    shell.ledger.close()
    again = Shell(tmp_path, "4" * 32, launch=2)
    again.start()
    assert again.phase[0] == "running"


def test_nothing_is_durable_before_the_commit_and_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    stored = shell.ledger.last_position
    pages = shell.ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    shell.ledger._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    shell.send("actor-0", *[("alarm", {"text": "x" * 2000})] * 20)
    shell.core.handle(Event("actor-0", b.ONE, "suspect"))
    for _ in range(3):
        with pytest.raises(LedgerFull):
            shell.tick()
    assert shell.ledger.last_position == stored
    shell.send("actor-0", ("alarm", {"text": "later"}))
    shell.ledger._connection.execute("PRAGMA max_page_count = 1000000")
    assert shell.tick().durable == {("actor-0", b.ONE): 20}
    assert shell.tick().durable == {("actor-0", b.ONE): 21}
    assert shell.ledger.last_position == stored + 22


def test_duplicates_and_facts_that_are_not_believed(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    good = (5, "alarm", '{"text": "x"}')
    shell.core.accept("launcher", b.ONE, 1, (good, (5, "alarm", "{}"), (5, "phase", '{"phase": "ended"}')))
    shell.core.accept("tracker", b.ONE, 1, (good,))
    shell.core.phases.duplicates = 1
    shell.tick()
    stored = [(row[1], row[3], row[5]) for row in shell.ledger.read_all() if row[1] != "tracker" or row[2] == b.ONE]
    assert stored == [
        ("launcher", 1, "alarm"),
        ("launcher", 2, "refused"),
        ("launcher", 3, "refused"),
        ("tracker", 1, "refused"),
    ]
    assert shell.phase[0] == "running"
    shell.tick(6.0)
    assert (shell.core.standings.refused, shell.core.standings.duplicates) == (3, 1)


def test_assignments_rest_on_the_ledger_and_the_superseded_get_none(tmp_path: Path) -> None:
    shell = Shell(tmp_path, lease_seconds=30.0)
    shell.start()
    ask = Request("actor-0", b.ONE, 1, 5)
    shell.core.handle(ask)
    assert shell.tick().answers == []  # no work: it waits for some
    assert shell.tick(PARKED).answers[0].tasks == ()  # and is told so; the same request stays empty
    shell.send("learner-p", ("mint", {"policy": "p", "tasks": [{"task": "a", "body": {}}, {"task": "b", "body": {}}]}))
    shell.tick()
    shell.core.handle(ask)
    assert shell.tick().answers[0].tasks == ()
    shell.core.handle(ask._replace(request=2))
    answer = shell.tick().answers[0]
    assert [task[0] for task in answer.tasks] == ["a", "b"]
    assert answer.deadline == shell.now.clock + 30 * SECOND
    shell.core.handle(ask._replace(request=2))
    out = shell.tick()
    assert (out.answers, out.facts) == ([answer], [])

    shell.core.handle(Event("actor-0", b.ONE, "superseded"))
    shell.core.handle(Joined("actor-0", "actor", b.TWO))
    shell.core.handle(Event("actor-0", b.TWO, "alive"))
    shell.tick()
    assert shell.core.tasks.returned == 2
    shell.core.handle(ask._replace(request=3))
    shell.core.handle(ask._replace(incarnation=b.TWO))
    answers = shell.tick().answers
    assert [(answer.incarnation, len(answer.tasks)) for answer in answers] == [(b.TWO, 2)]
    shell.tick(31.0)
    assert shell.core.tasks.waiting == 2


def test_a_request_waits_for_work_and_has_it_as_soon_as_it_is_on_disk(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    shell.core.handle(Request("actor-0", b.ONE, 1, 1))
    assert shell.tick().answers == []
    assert not shell.core.due, "nothing is to be done for it"
    shell.core.handle(Request("actor-0", b.ONE, 1, 2))  # said again, and there is room for more now
    names = "abc"
    shell.send("learner-p", ("mint", {"policy": "p", "tasks": [{"task": name, "body": {}} for name in names]}))
    assert shell.tick(PARKED / 2).answers == []
    assert shell.core.due, "the tasks are on disk: it can be answered at once"
    (answer,) = shell.tick().answers
    assert [task.task for task in answer.tasks] == ["a", "b"]
    shell.core.handle(Request("actor-0", b.ONE, 1, 3))  # on its way when the answer was
    assert [[task.task for task in again.tasks] for again in shell.tick().answers] == [["a", "b"]]

    shell.send("actor-0", ("outcome", {"task": "a", "score": 1.0}), ("outcome", {"task": "b", "score": 1.0}))
    shell.core.handle(Request("actor-0", b.ONE, 2, 2, "q"))  # of another policy: nothing for it
    shell.ticks(2)
    shell.core.handle(Event("actor-0", b.ONE, "superseded"))
    shell.core.handle(Joined("actor-0", "actor", b.TWO))
    shell.core.handle(Event("actor-0", b.TWO, "alive"))
    assert [out for _ in range(3) for out in shell.tick(PARKED).answers] == [], "nobody is there to be answered"


def test_a_learner_gets_a_life_once_per_incarnation(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.ticks()
    shell.core.handle(Restoring("p", b.ONE))
    shell.core.handle(Restoring("p", b.ONE))
    assert shell.tick().lives == [Life("p", 1, b.ONE)]
    shell.core.handle(Restoring("p", b.ONE))
    out = shell.tick()
    assert (out.lives, out.facts) == ([Life("p", 1, b.ONE)], [])
    shell.core.handle(Restoring("p", b.TWO))
    assert shell.tick().lives == [Life("p", 2, b.TWO)]
    shell.core.handle(Restoring("p", b.ONE))
    assert shell.tick().lives == []


def test_who_was_silent_for_a_while_is_alive_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    for change, state in (("suspect", "suspect"), ("returned", "alive"), ("lost", "lost"), ("returned", "alive")):
        shell.core.handle(Event("actor-0", b.ONE, change))
        shell.tick()
        assert shell.core.standings.roles["actor-0"].state == state
        assert shell.core.members["actor-0"] == ("actor", b.ONE, state)
    told = [text for _, _, text in shell.core.standings.events if text.startswith("actor-0")]
    assert told == [f"actor-0 is {how}" for how in ("silent", "back", "lost", "back")]


def test_epochs_are_closed_by_facts_and_are_differences(tmp_path: Path) -> None:
    shell = Shell(tmp_path, epoch_steps=100)
    shell.start()
    shell.send("actor-0", ("progress", b.progress(250, 500)), ("episode", b.episode()))
    shell.tick()
    assert [body for kind, body in shell.ticks(2) if kind == "epoch"] == [{"epoch": 1, "env_steps": 250}]
    shell.send("actor-0", ("progress", b.progress(100, 7)))
    shell.ticks()
    closed = list(shell.core.epochs.closed)
    assert [(epoch["env_steps"], epoch["episodes"], epoch["agent_steps"]) for epoch in closed] == [
        (250, 1, {"p": 500}), (100, 0, {"p": 7}),
    ]  # fmt: skip


def test_a_restarted_tracker_waits_for_learners_before_it_ends(tmp_path: Path) -> None:
    shell = Shell(tmp_path, learners=frozenset({"learner-p"}))
    shell.start()
    shell.send("launcher", ("stop_request", {"reason": "enough", "failed": False}))
    shell.ticks()
    shell.ledger.close()
    back = Shell(tmp_path, "3" * 32, learners=frozenset({"learner-p"}))
    back.ticks()
    assert back.phase[0] == "stopping"
    back.core.handle(Joined("learner-p", "learner", b.ONE))
    back.ticks()
    assert back.phase[0] == "stopping"
    back.core.handle(Event("learner-p", b.ONE, "left"))
    back.ticks()
    assert back.phase == ("ended", "enough")


def test_a_restarted_tracker_waits_for_actors_that_run_before_it_ends(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    spawned = {"role": "actor-0", "kind": "actor", "pid": 1, "attempt": 1}
    shell.send("launcher", ("spawned", spawned), ("stop_request", {"reason": "enough", "failed": False}))
    shell.ticks()
    shell.core.handle(Event("learner-p", b.ONE, "left"))
    shell.ticks()
    shell.ledger.close()
    back = Shell(tmp_path, "3" * 32)
    back.sent = shell.sent
    back.ticks()
    assert back.phase[0] == "stopping"  # what it said meanwhile is to come again
    exited = {"role": "actor-0", "pid": 1, "attempt": 1, "status": 0, "signal": None, "expected": True}
    back.send("launcher", ("exited", {**exited, "last_words": ""}))
    back.ticks()
    assert back.phase == ("ended", "enough")


def test_what_an_actor_held_that_fell_with_the_tracker_is_given_out_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path, lease_seconds=1000.0)
    shell.start()
    shell.send("learner-p", ("mint", {"policy": "p", "tasks": [{"task": "a", "body": {}}]}))
    shell.tick()
    shell.core.handle(Request("actor-0", b.ONE, 1, 1))
    assert [task.task for task in shell.tick().answers[0].tasks] == ["a"]
    shell.ledger.close()
    back = Shell(tmp_path, "3" * 32, lease_seconds=1000.0)
    back.core.handle(Joined("actor-0", "actor", b.TWO))
    back.core.handle(Request("actor-0", b.TWO, 1, 1))
    answers = [answer for _ in range(3) for answer in back.tick().answers]
    assert [[task.task for task in answer.tasks] for answer in answers] == [["a"]]
    assert back.core.tasks.returned == 1


def test_snapshots_are_due_at_the_end(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.start()
    assert not shell.core.snapshot_due(shell.now)
    shell.tick(61.0)
    assert shell.core.snapshot_due(shell.now)
    assert not shell.core.snapshot_due(shell.now)


def test_a_fact_that_a_fold_passed_over_is_an_alarm_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fold: Any, fact: Any) -> None:
        raise KeyError(fact.body["policy"])

    monkeypatch.setattr("tracker.templates.Templates._update", broken)
    shell = Shell(tmp_path)
    shell.send("learner-p", ("update", b.update(1)), ("update", b.update(2)))
    assert shell.tick().durable == {("learner-p", b.ONE): 2}
    alarm = "templates fold passed over the update fact at position 3 of learner-p: KeyError: 'p'"
    assert [body for kind, body in shell.ticks() if kind == "alarm"] == [{"text": alarm}]
    assert list(shell.core.standings.alarms) == [alarm]
    assert shell.core.standings.policies["p"].updates == 2
    shell.ledger.close()
    again = Shell(tmp_path, "0" * 15 + "3" + "a" * 16)  # no snapshot: every fact is read again
    assert again.folds.alarms == (alarm,)
    assert [kind for kind, _ in again.ticks() if kind == "alarm"] == []
    assert summarise(tmp_path)["alarms"] == [alarm]


def test_a_ledger_with_a_fact_that_fits_no_more_is_read(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ledger.commit():
        body = {"task": "t@life-" + "9" * 5000, "score": 1.0, "policy": "p", "result": {"do": "answer"}}
        ledger.append([("actor-0", b.ONE, 1, 1, "outcome", json.dumps(body))])
    summary = summarise(tmp_path)
    assert summary["unreadable"] == 1
    assert summary["alarms"] == [
        "every fold passed over the outcome fact at position 1 of actor-0: ValueError: its body does not fit its kind"
    ]
    shell = Shell(tmp_path)
    shell.start()
