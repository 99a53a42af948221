"""Credit, with a source, a hub and a network between them that loses what it likes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.credit import STILL_AFTER, SendWindow, Settlement
from tests.broker.draws import quick


@dataclass
class World:
    """One source and one hub. `up` and `down` keep order, as sockets do; either may lose."""

    window: int
    now: float = 0.0
    generation: int = 1
    up: deque[tuple[str, str | None, int]] = field(default_factory=deque)
    down: deque[tuple[str, int]] = field(default_factory=deque)
    queue: deque[int] = field(default_factory=deque)
    used: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = SendWindow(self.window)
        self.hub = Settlement()

    @property
    def name(self) -> str:
        return f"hub-{self.generation:04}"

    def send(self) -> None:
        if self.source.open():
            self.up.append(("fragment", self.source.hub, self.source.take()))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        if self.source.stands_still(self.now):
            self.up.append(("hello", self.source.hub, self.source.sequence))

    def arrive(self, *, lose: bool = False, refuse: bool = False) -> None:
        if not self.up:
            return
        kind, hub, number = self.up.popleft()
        if lose or hub != self.name:
            return
        if kind == "hello":
            self.hub.sent_through(number)
        elif self.hub.arrive(number):
            if refuse:
                self.hub.refuse(number)
                self.refused.append(number)
            else:
                self.queue.append(number)

    def use(self) -> None:
        if self.queue:
            number = self.queue.popleft()
            self.used.append(number)
            self.hub.leave(number)

    def pulse(self) -> None:
        self.down.append((self.name, self.hub.settled))

    def hear(self, *, lose: bool = False) -> None:
        if not self.down:
            return
        hub, settled = self.down.popleft()
        if lose or (self.source.hub is not None and hub < self.source.hub):
            return
        before = self.source.settled
        if hub == self.source.hub:
            self.source.on_settled(hub, settled)
            assert before <= self.source.settled <= self.source.sequence
        else:
            self.source.on_hub(hub)
            assert (self.source.sequence, self.source.settled) == (0, 0)
            self.source.on_settled(hub, settled)

    def restart(self) -> None:
        """The hub dies with its queue; what is under way arrives at the next one."""
        self.generation += 1
        self.hub = Settlement()
        self.queue.clear()
        self.used.clear()
        self.refused.clear()

    def check(self) -> None:
        assert self.source.unsettled <= self.window
        assert not self.queue or self.hub.settled < self.queue[0]  # never ahead of the learner
        assert self.used == sorted(set(self.used))  # nothing twice
        assert self.hub.settled <= self.hub.received
        assert self.hub.lost + len(self.used) + len(self.queue) == self.hub.received
        assert len(self.refused) <= self.hub.lost  # refused is a way of being lost


steps = st.lists(
    st.sampled_from(["send", "arrive", "lose", "refuse", "use", "pulse", "hear", "deafen", "second", "restart"]),
    max_size=120,
)


def play(world: World, script: list[str]) -> None:
    for step in script:
        match step:
            case "send":
                world.send()
            case "arrive":
                world.arrive()
            case "lose":
                world.arrive(lose=True)
            case "refuse":
                world.arrive(refuse=True)
            case "use":
                world.use()
            case "pulse":
                world.pulse()
            case "hear":
                world.hear()
            case "deafen":
                world.hear(lose=True)
            case "second":
                world.tick(1.0)
            case "restart":
                world.restart()
        world.check()


@quick
@given(st.integers(1, 5), steps)
def test_whatever_is_lost_the_window_opens_again_and_all_is_accounted_for(window: int, script: list[str]) -> None:
    world = World(window)
    world.pulse()
    world.hear()
    play(world, script)
    sent = 0
    for _ in range(6):  # the losses have stopped
        while world.source.open() and sent < 3 * window:
            world.send()
            sent += 1
        while world.up:
            world.arrive()
            world.check()
        while world.queue:
            world.use()
            world.check()
        world.pulse()
        while world.down:
            world.hear()
        world.tick(STILL_AFTER)
    assert world.source.open(), "jammed"
    assert sent == 3 * window
    ended = world.used + world.refused
    assert len(ended) == len(set(ended))
    assert world.hub.lost == world.hub.received - len(world.used)


def test_nothing_is_made_before_a_hub_was_heard() -> None:
    assert not SendWindow(3).open()
    with pytest.raises(ValueError, match="at least one"):
        SendWindow(0)


def test_what_waits_counts_against_the_window() -> None:
    window = SendWindow(2)
    window.on_hub("a")
    assert window.open(waiting=1)
    assert not window.open(waiting=2)


def test_a_hello_is_due_once_a_second_while_nothing_under_way_is_settled() -> None:
    window = SendWindow(3)
    window.on_hub("a")
    assert not window.stands_still(0.0)
    window.take()
    assert window.open()  # though more may be sent: what was lost is waited for
    assert not window.stands_still(10.0)
    window.take()
    assert not window.stands_still(10.9)
    assert window.stands_still(11.0)
    assert not window.stands_still(11.5)
    assert window.stands_still(12.0)
    window.on_settled("a", 1)
    assert not window.stands_still(12.5)
    assert window.stands_still(13.5)
    window.on_settled("a", 2)
    assert not window.stands_still(20.0)


def test_a_new_hub_begins_at_one_and_says_what_the_old_one_never_settled() -> None:
    window = SendWindow(3)
    window.on_hub("a")
    assert [window.take(), window.take()] == [1, 2]
    window.on_settled("a", 1)
    assert window.on_hub("a") == 0
    assert window.on_hub("b") == 1
    assert window.take() == 1
    assert not window.on_settled("a", 1), "an old hub's counter opens nothing"
    assert not window.on_settled("b", 2), "more than was sent opens nothing"


def test_a_replay_is_counted_and_not_delivered() -> None:
    hub = Settlement()
    assert hub.arrive(1)
    assert not hub.arrive(1)
    hub.leave(1)
    assert not hub.arrive(1)
    assert (hub.replayed, hub.lost, hub.settled, hub.queued) == (2, 0, 1, 0)


def test_a_hole_below_a_used_fragment_is_lost_at_once() -> None:
    hub = Settlement()
    hub.arrive(1)
    hub.arrive(4)
    assert hub.lost == 2
    hub.leave(4)
    assert hub.settled == 4


def test_a_refused_fragment_does_not_settle_what_is_queued_before_it() -> None:
    hub = Settlement()
    hub.arrive(1)
    hub.arrive(2)
    hub.refuse(2)
    assert hub.settled == 0
    hub.leave(1)
    assert hub.settled == 2


def test_what_is_said_to_leave_moves_nothing_that_is_not_queued() -> None:
    hub = Settlement()
    hub.arrive(1)
    hub.arrive(2)
    hub.leave(2)
    hub.leave(1)
    hub.leave(9)
    assert hub.settled == 2


def test_a_hello_settles_the_missing_only_when_the_queue_before_it_is_used() -> None:
    hub = Settlement()
    hub.arrive(1)
    hub.sent_through(3)
    assert (hub.settled, hub.lost) == (0, 2)
    hub.leave(1)
    assert hub.settled == 3
    hub.sent_through(3)
    assert hub.lost == 2, "the same Hello twice counts once"
