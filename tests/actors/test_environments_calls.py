"""A call of an environment that does not return is named: which copy, which method, with which seed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from actors.environments.calls import CALLS, EnvironmentWatch
from actors.environments.gym import GymEnvironments, GymVectorForm
from actors.environments.load import make
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import EnvironmentFailed
from actors.environments.zoo import ZooEnvironments
from actors.seeds import environment_seed
from broker.watchdog import Call, CallClock, stack_of
from tests.actors.worlds import Relay

SECTION = {"id": "own:World", "start_seconds": 60.0, "step_seconds": 20.0}


class Gate:
    """Holds a call up until the test lets it go."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.entered.set()
        self.opened.wait(60)


class World(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, holds: Callable[[str], None] = lambda _: None) -> None:
        self.holds = holds
        holds("construction")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.holds("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.holds("step")
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def close(self) -> None:
        self.holds("close")


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def seen(gate: Gate, target: Callable[[], Any]) -> tuple[Call | None, Any, str]:
    """What the watchdog sees of a thread that is held up, the place in its rows, and its stack."""
    thread = threading.Thread(target=target)
    thread.start()
    assert gate.entered.wait(20)
    call, rows, copy = EnvironmentWatch(SECTION).call(), CALLS.rows, CALLS.copy
    place = None if rows is None else rows.transition_of(copy or 0)
    assert thread.ident is not None
    stack = stack_of(thread.ident)
    gate.opened.set()
    thread.join(20)
    assert EnvironmentWatch(SECTION).call() is None, "it has returned"
    return call, place, stack


@pytest.mark.parametrize("method", ["step", "reset", "close"])
def test_the_call_of_one_copy_is_named(gate: Gate, method: str) -> None:
    def holds(now: str) -> None:
        if now == method and played:
            gate.wait()

    played: list[bool] = []
    environments = GymEnvironments([World(), World(holds), World()], seed=5)
    environments.reset()
    actions = {"agent": np.zeros(3, np.int64)}
    environments.step(actions)
    played.append(True)
    held = {"step": lambda: environments.step(actions), "reset": environments.reset, "close": environments.close}
    call, place, stack = seen(gate, held[method])
    assert call is not None
    assert call.what == f"environment 1's {method}"
    assert call.limit == (60.0 if method == "reset" else 20.0)
    steps = 0 if method == "reset" else 1
    assert place == {"seed": environment_seed(5, 1), "episode": 0, "step": steps}
    assert "in wait" in stack


def test_the_construction_is_named(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "held", lambda: World(lambda _: gate.wait()), raising=False)
    settings = EnvironmentSettings(id=f"{__name__}:held")
    call, place, _ = seen(gate, lambda: make(settings, 1))
    assert call is not None
    assert (call.what, call.limit, place) == ("an environment's construction", 60.0, None)


def test_the_vector_form_is_named(gate: Gate) -> None:
    environment = GymVectorForm(gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point"), 5)
    environment.reset()
    step = environment._environment.step
    environment._environment.step = lambda actions: (gate.wait(), step(actions))[1]
    call, _, _ = seen(gate, lambda: environment.step({"agent": np.zeros(4, np.int64)}))
    assert call is not None
    assert call.what == "the vector environment's step"


def test_the_step_of_several_agents_is_named(gate: Gate) -> None:
    first, second = Relay(), Relay()
    step = second.step
    second.step = lambda actions: (gate.wait(), step(actions))[1]  # type: ignore[method-assign]
    environments = ZooEnvironments([first, second])
    environments.reset()
    actions = {agent: np.zeros(2, np.int64) for agent in environments.agents}
    call, _, _ = seen(gate, lambda: environments.step(actions))
    assert call is not None
    assert call.what == "environment 1's step"


def test_exit_in_a_step_is_a_failure_of_its_copy() -> None:
    def leave(now: str) -> None:
        if now == "step":
            sys.exit("the licence has run out")

    environments = GymEnvironments([World(), World(leave)])
    environments.reset()
    with pytest.raises(EnvironmentFailed, match=r"environment 1 .*SystemExit: the licence has run out"):
        environments.step({"agent": np.zeros(2, np.int64)})
    assert EnvironmentWatch(SECTION).call() is None


def test_call_clock_learns_what_is_usual() -> None:
    clock = CallClock()
    assert clock.look(Call("a", 1, 60.0), 100.0, 100.0) == 0.0
    assert clock.look(Call("a", 1, 60.0), 104.0, 104.0) == 4.0
    assert not clock.stuck(4.9)
    assert clock.stuck(5.0)
    assert clock.look(Call("a", 2, 60.0), 104.5, 104.5) == 0.0
    assert clock.look(None, 105.0, 105.0) == 0.0
    assert not clock.stuck(17.9), "a call of 4.5 s came back"
    assert clock.stuck(18.0)


def test_call_clock_does_not_count_while_the_process_is_stopped() -> None:
    clock, call = CallClock(), Call("a", 1, 60.0)
    assert clock.look(call, 100.0, 1.0) == 0.0
    assert clock.look(call, 100.5, 1.0) == 0.5, "it waits for a simulator"
    assert clock.look(call, 200.0, 1.0) == 0.5, "it was stopped"
    assert clock.look(call, 300.0, 90.0) == 100.5, "it computed, and held the interpreter"
