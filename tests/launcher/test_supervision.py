"""The restart policy, without a process or a clock."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.decisions import (
    Action,
    AskStop,
    Begin,
    EndRun,
    Event,
    GiveUp,
    Interrupt,
    Kill,
    Kind,
    Progressed,
    Report,
    RoleExited,
    RoleStarted,
    Spawn,
    Stopping,
    Terminate,
    Tick,
)
from launcher.supervision import Supervisor

ROLES: dict[str, Kind] = {"actor-0": "actor", "actor-1": "actor", "learner-a": "learner", "tracker": "tracker"}


def running(**options: float) -> Supervisor:
    supervisor = Supervisor(ROLES, **options)  # type: ignore[arg-type]
    for action in supervisor.handle(Begin(), 0.0):
        assert isinstance(action, Spawn)
        supervisor.handle(RoleStarted(action.role, action.attempt, 100), 0.0)
    return supervisor


def of(kind: type, actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def test_the_tracker_is_first_then_learners_then_actors() -> None:
    actions = Supervisor(ROLES).handle(Begin(), 0.0)
    assert actions == [Spawn("tracker", 1), Spawn("learner-a", 1), Spawn("actor-0", 1), Spawn("actor-1", 1)]


def test_a_fallen_role_comes_back_after_a_wait_that_doubles() -> None:
    supervisor = running(backoff_seconds=0.5)
    report = supervisor.handle(RoleExited("actor-0", 1, -9, "words"), 10.0)
    assert report == [Report("actor-0", 1, -9, "SIGKILL", False, "words", 0.5)]
    assert supervisor.wake() == 10.5
    assert supervisor.handle(Tick(), 10.4) == []
    assert supervisor.handle(Tick(), 10.5) == [Spawn("actor-0", 2)]
    supervisor.handle(RoleStarted("actor-0", 2, 7), 10.6)
    assert supervisor.handle(RoleExited("actor-0", 2, 0), 11.0)[0] == Report("actor-0", 2, 0, None, False, "", 1.0)
    assert supervisor.roles["actor-0"].restarts == 1


def test_a_budget_spent_ends_the_run_with_the_last_words() -> None:
    supervisor = running(restarts=1, backoff_seconds=0.0)
    assert Spawn("learner-a", 2) in supervisor.handle(RoleExited("learner-a", 1, 1, "one"), 1.0)
    actions = supervisor.handle(RoleExited("learner-a", 2, 1, "two"), 2.0)
    (gave_up,) = of(GiveUp, actions)
    assert isinstance(gave_up, GiveUp)
    assert "2 times within 60 s" in gave_up.reason
    assert gave_up.last_words == "two"
    assert AskStop(gave_up.reason, True) in actions
    assert supervisor.phase == "stopping"


@pytest.mark.parametrize(("apart", "comes_back"), [(60.0, True), (59.9, False)])
def test_falls_with_progress_between_count_for_a_window(apart: float, comes_back: bool) -> None:
    supervisor = running(restarts=1, backoff_seconds=0.0)
    assert Spawn("actor-1", 2) in supervisor.handle(RoleExited("actor-1", 1, 1), 100.0)
    supervisor.handle(RoleStarted("actor-1", 2, 7), 100.0)
    supervisor.handle(Progressed("actor-1"), 101.0)
    assert (Spawn("actor-1", 3) in supervisor.handle(RoleExited("actor-1", 2, 1), 100.0 + apart)) is comes_back
    assert supervisor.failed is not comes_back


@pytest.mark.parametrize("role", ["tracker", "learner-a", "actor-0"])
@pytest.mark.parametrize(("apart", "works"), [(31.0, False), (3600.0, False), (31.0, True), (3600.0, True)])
def test_falls_without_progress_count_however_far_apart(role: str, apart: float, works: bool) -> None:
    supervisor = running(backoff_seconds=0.0)
    actions: list[Action] = []
    attempt = 1
    while attempt <= 50 and not of(GiveUp, actions):
        if works:
            supervisor.handle(Progressed(role), attempt * apart - 1.0)
        actions = supervisor.handle(RoleExited(role, attempt, 1, "why"), attempt * apart)
        attempt += 1
        supervisor.handle(RoleStarted(role, attempt, 7), attempt * apart)
    if works:
        assert attempt == 51
        return
    (gave_up,) = of(GiveUp, actions)
    assert isinstance(gave_up, GiveUp)
    assert gave_up.reason == f"{role} ended 6 times in {5 * apart:.0f} s with nothing done between, last with status 1"
    assert gave_up.last_words == "why"


def test_progress_before_a_process_is_there_is_not_its_own() -> None:
    supervisor = running(restarts=1, backoff_seconds=0.0)
    supervisor.handle(RoleExited("actor-0", 1, 1), 1.0)
    supervisor.handle(Progressed("actor-0"), 1.1)
    supervisor.handle(RoleStarted("actor-0", 2, 7), 1.2)
    assert of(GiveUp, supervisor.handle(RoleExited("actor-0", 2, 1), 1000.0))


def test_the_wait_before_a_restart_doubles_up_to_15_seconds() -> None:
    supervisor = running(restarts=9, backoff_seconds=2.0)
    now, waits = 0.0, []
    for attempt in range(1, 6):
        (report,) = supervisor.handle(RoleExited("actor-0", attempt, 1), now)
        assert isinstance(report, Report)
        assert report.restart_in is not None
        waits.append(report.restart_in)
        now += report.restart_in
        assert supervisor.handle(Tick(), now) == [Spawn("actor-0", attempt + 1)]
    assert waits == [2.0, 4.0, 8.0, 15.0, 15.0]


def test_the_tracker_has_3_seconds_for_its_last_commit_and_5_more_after_sigkill() -> None:
    supervisor = running()
    supervisor.handle(Stopping("enough"), 100.0)
    for role in ("actor-0", "actor-1", "learner-a"):
        supervisor.handle(RoleExited(role, 1, 0), 100.0)
    told = {now: supervisor.handle(Tick(), now) for now in (104.9, 105.0, 107.9, 108.0, 112.9, 113.0)}
    assert {now: [type(action) for action in actions] for now, actions in told.items()} == {
        104.9: [],
        105.0: [Terminate],
        107.9: [],
        108.0: [Kill],
        112.9: [],
        113.0: [EndRun],
    }


@pytest.mark.parametrize(("left", "status"), [(2, 2), (3, 1)])
def test_what_would_end_alike_is_not_tried_again(left: int, status: int) -> None:
    supervisor = running()
    actions = supervisor.handle(RoleExited("learner-a", 1, left, "no cuda"), 1.0)
    assert of(GiveUp, actions)
    for role in ("actor-0", "actor-1", "tracker"):
        actions = supervisor.handle(RoleExited(role, 1, 0), 2.0)
    (end,) = of(EndRun, actions)
    assert isinstance(end, EndRun)
    assert (end.status, end.failed) == (status, True)


def test_others_wait_for_a_dead_tracker() -> None:
    supervisor = running(backoff_seconds=1.0)
    supervisor.handle(RoleExited("actor-0", 1, 1), 1.0)
    supervisor.handle(RoleExited("tracker", 1, 1), 1.5)
    assert supervisor.handle(Tick(), 2.2) == []
    assert supervisor.wake() == 2.5
    assert supervisor.handle(Tick(), 2.5) == [Spawn("tracker", 2), Spawn("actor-0", 2)]


def test_the_end_in_good_order() -> None:
    supervisor = running()
    assert supervisor.handle(Stopping("180 seconds are over"), 100.0) == []
    for role in ("actor-0", "actor-1", "learner-a"):
        (report,) = supervisor.handle(RoleExited(role, 1, 0), 101.0)
        assert isinstance(report, Report)
        assert report.expected
    assert EndRun("180 seconds are over", False, 0) in supervisor.handle(RoleExited("tracker", 1, 0), 101.5)
    assert supervisor.handle(Interrupt(), 102.0) == []


@pytest.mark.parametrize(("ending", "killed_at"), [(0.0, 106.0), (30.0, 136.0)])
def test_a_learner_killed_in_the_end_fails_the_run(ending: float, killed_at: float) -> None:
    supervisor = running(ending_seconds=ending)
    supervisor.handle(Stopping("enough"), 90.0)
    for role in ("actor-0", "actor-1"):
        supervisor.handle(RoleExited(role, 1, 0), 100.0)
    assert not of(Terminate, supervisor.handle(Tick(), killed_at - 1.1))
    assert of(Terminate, supervisor.handle(Tick(), killed_at - 1.0))
    assert of(Kill, supervisor.handle(Tick(), killed_at))
    actions = supervisor.handle(RoleExited("learner-a", 1, -9), killed_at)
    assert Report("learner-a", 1, -9, "SIGKILL", False, "", None) in actions
    (gave_up,) = of(GiveUp, actions)
    assert isinstance(gave_up, GiveUp)
    assert "learner.ending_seconds" in gave_up.reason
    assert EndRun(supervisor.reason, True, 1) in supervisor.handle(RoleExited("tracker", 1, 0), killed_at)


def test_endpoints_are_there_until_nobody_needs_them() -> None:
    roles: dict[str, Kind] = {
        "actor-0": "actor",
        "endpoint-x": "endpoint",
        "learner-a": "learner",
        "tracker": "tracker",
    }
    supervisor = Supervisor(roles)
    for action in supervisor.handle(Begin(), 0.0):
        assert isinstance(action, Spawn)
        supervisor.handle(RoleStarted(action.role, action.attempt, 100), 0.0)
    assert list(supervisor.roles)[:2] == ["tracker", "endpoint-x"]
    assert supervisor.handle(RoleExited("endpoint-x", 1, -9), 1.0)[0] == Report(
        "endpoint-x", 1, -9, "SIGKILL", False, "", 0.5
    )
    assert supervisor.handle(Tick(), 1.5) == [Spawn("endpoint-x", 2)]
    supervisor.handle(RoleStarted("endpoint-x", 2, 101), 1.5)
    supervisor.handle(Stopping("enough"), 2.0)
    assert of(Terminate, supervisor.handle(RoleExited("actor-0", 1, 0), 3.0)) == []
    (ended,) = of(Terminate, supervisor.handle(RoleExited("learner-a", 1, 0), 4.0))
    assert ended == Terminate("endpoint-x", "nobody is left who needs it")
    (report,) = of(Report, supervisor.handle(RoleExited("endpoint-x", 2, 0), 4.1))
    assert isinstance(report, Report)
    assert report.expected
    assert of(EndRun, supervisor.handle(RoleExited("tracker", 1, 0), 4.2)) == [EndRun("enough", False, 0)]


def test_who_is_late_is_terminated_then_killed_and_the_next_step_has_its_own_time() -> None:
    supervisor = running()
    supervisor.handle(Stopping("enough"), 100.0)
    supervisor.handle(RoleExited("actor-0", 1, 0), 101.0)
    assert supervisor.wake() == 105.0
    (late,) = supervisor.handle(Tick(), 105.0)
    assert isinstance(late, Terminate)
    assert late.role == "actor-1"
    assert supervisor.wake() == 106.0
    (deaf,) = supervisor.handle(Tick(), 106.0)
    assert isinstance(deaf, Kill)
    (report,) = supervisor.handle(RoleExited("actor-1", 1, -9), 106.1)
    assert isinstance(report, Report)
    assert report.expected
    assert supervisor.handle(Tick(), 111.0) == []
    assert of(Terminate, supervisor.handle(Tick(), 111.1)) == [
        Terminate("learner-a", "still there 5 s after it was to end")
    ]


def test_a_tracker_that_falls_while_stopping_is_restarted_at_once() -> None:
    supervisor = running()
    supervisor.handle(Stopping("enough"), 100.0)
    assert Spawn("tracker", 2) in supervisor.handle(RoleExited("tracker", 1, -9), 101.0)


def test_the_first_interrupt_asks_the_second_aborts() -> None:
    supervisor = running()
    assert supervisor.handle(Interrupt(), 1.0) == [AskStop("interrupted", False)]
    ended = supervisor.handle(Interrupt(), 1.5)
    assert {action.role for action in ended if isinstance(action, Terminate)} == {"actor-0", "actor-1", "learner-a"}


def test_a_role_that_is_born_while_it_is_ended_is_still_ended() -> None:
    supervisor = Supervisor(ROLES)
    supervisor.handle(Begin(), 0.0)
    supervisor.handle(Interrupt(), 0.1)
    supervisor.handle(Interrupt(), 0.2)
    assert Terminate("actor-0", "the run is aborted") in supervisor.handle(RoleStarted("actor-0", 1, 9), 0.3)


def test_who_is_born_while_the_run_ends_is_told_at_once() -> None:
    supervisor = Supervisor(ROLES)
    supervisor.handle(Begin(), 0.0)
    supervisor.handle(RoleStarted("tracker", 1, 9), 0.0)
    supervisor.handle(Stopping("enough"), 0.1)
    for role in ("learner-a", "actor-0"):
        actions = supervisor.handle(RoleStarted(role, 1, 9), 0.3)
        assert actions == [Terminate(role, "the run was ending before it began")]
    killed = supervisor.handle(Tick(), 1.4)
    assert sorted(action.role for action in killed if isinstance(action, Kill)) == ["actor-0", "learner-a"]


def test_a_learner_that_falls_as_the_run_ends_is_told_and_fails_it() -> None:
    supervisor = running()
    supervisor.handle(Stopping("enough"), 1.0)
    actions = supervisor.handle(RoleExited("learner-a", 1, 1, "no room for a snapshot"), 2.0)
    (given_up,) = (action for action in actions if isinstance(action, GiveUp))
    assert given_up.last_words == "no room for a snapshot"
    kinds = [type(action) for action in actions]
    assert kinds.index(AskStop) < kinds.index(Report), "the tracker ends when it hears of the exit"
    for role in ROLES:
        actions += supervisor.handle(RoleExited(role, 1, 0), 3.0)
    (end,) = (action for action in actions if isinstance(action, EndRun))
    assert (end.status, end.failed) == (1, True)


def test_a_nursery_that_hangs_ends_the_run() -> None:
    supervisor = Supervisor(ROLES)
    supervisor.handle(Begin(), 0.0)
    supervisor.handle(RoleStarted("tracker", 1, 9), 0.0)
    assert of(GiveUp, supervisor.handle(Tick(), 60.0))


@pytest.mark.parametrize("status", [1, 2])
def test_a_tracker_given_up_aborts(status: int) -> None:
    supervisor = running(restarts=0)
    actions = supervisor.handle(RoleExited("tracker", 1, status), 1.0)
    assert len(of(Terminate, actions)) == 3
    assert not of(AskStop, actions)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["exit", "exit", "start", "start", "work", "tick", "tick", "stop", "interrupt", "stray"]),
        st.sampled_from(sorted(ROLES)),
        st.sampled_from([0, 1, -9, None, 2]),
        st.floats(0.0, 9.0) | st.floats(9.0, 90.0),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(0, 3), st.booleans())
def test_the_invariants_hold_whatever_happens(steps: list, restarts: int, obedient: bool) -> None:  # type: ignore[type-arg]
    supervisor = Supervisor(ROLES, restarts=restarts, backoff_seconds=0.5)
    alive: dict[str, int] = {}
    attempts: dict[str, int] = defaultdict(int)
    spawned: dict[str, list[float]] = defaultdict(list)
    idle: dict[str, int] = defaultdict(int)
    """Spawns since an attempt that had worked fell: that fall counts itself."""
    works: set[str] = set()
    now, ended, stopped_at = 0.0, False, None

    def give(event: Event) -> None:
        nonlocal ended, stopped_at
        if isinstance(event, RoleExited) and alive.get(event.role) == event.attempt:
            del alive[event.role]
            if event.role in works:
                idle[event.role] = 0
        tracker_was = "tracker" in alive
        stopping = supervisor.phase == "stopping" or isinstance(event, Stopping | Interrupt)
        actions = supervisor.handle(event, now)
        assert not (ended and actions)
        for action in actions:
            assert not ended  # EndRun is the last
            if isinstance(action, Spawn):
                assert action.role not in alive
                assert action.attempt == attempts[action.role] + 1
                assert action.role == "tracker" or (not stopping and (tracker_was or "tracker" in alive))
                alive[action.role] = attempts[action.role] = action.attempt
                spawned[action.role] = [t for t in spawned[action.role] if t > now - 60.0] + [now]
                assert len(spawned[action.role]) <= restarts + 1
                idle[action.role] += 1
                assert idle[action.role] <= restarts + 1
                works.discard(action.role)
            elif isinstance(action, EndRun):
                ended = True
                assert action.status in ((1, 2) if action.failed else (0,))
            elif isinstance(action, Kill) and obedient:
                killed.append(action.role)
        if supervisor.phase == "stopping" and stopped_at is None:
            stopped_at = now
        wake = supervisor.wake()
        assert ended or supervisor.phase == "idle" or wake is None or wake > now or event != Tick()

    killed: list[str] = []
    give(Begin())
    for what, role, status, seconds in steps:
        now += seconds
        match what:
            case "exit" if role in alive:
                give(RoleExited(role, alive[role], status))
            case "start" if role in alive:
                give(RoleStarted(role, alive[role], 1))
            case "work" if role in alive:
                give(Progressed(role))
                if supervisor.roles[role].state == "running":
                    works.add(role)
            case "stop":
                give(Stopping("enough"))
            case "interrupt":
                give(Interrupt())
            case "stray":
                give(RoleExited(role, attempts[role] + 5, status))
            case _:
                give(Tick())
    if stopped_at is None:
        stopped_at = now
        give(Interrupt())
    begun = now
    while not ended:  # nobody ends by itself any more
        wake = supervisor.wake()
        assert wake is not None
        now = max(now, wake)
        give(Tick())
        while killed:
            role = killed.pop()
            if role in alive:
                give(RoleExited(role, alive[role], -9))
    # Three steps, each with its own patience, SIGTERM, SIGKILL and what the kernel holds.
    assert now - begun <= 3 * (5.0 + 3.0 + 5.0)
