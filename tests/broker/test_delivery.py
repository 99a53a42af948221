"""Facts from an outbox to a disk, over a network that drops, doubles and delays, to a hub that dies at any moment."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import delivery
from broker.delivery import MAX_BODY, MINT_CHARACTERS, Fact, Inbox, Outbox, body_text, fact_of, mint_parts
from tests.broker.draws import quick


@dataclass
class World:
    """`disk` is all that a hub's death leaves. Both directions are bags: anything may come at any time, or never."""

    now: float = 0.0
    generation: int = 1
    made: int = 0
    up: list[tuple[int, tuple[Fact, ...]]] = field(default_factory=list)
    down: list[tuple[str, int, int]] = field(default_factory=list)
    disk: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    heard: str = ""

    def __post_init__(self) -> None:
        self.outbox = Outbox()
        self.inbox = Inbox()

    @property
    def name(self) -> str:
        return f"hub-{self.generation:04}"

    def add(self) -> None:
        if not self.outbox.full:
            self.made += 1
            assert self.outbox.add((0, "n", str(self.made))) == self.made

    def send(self) -> None:
        self.outbox.stalled(self.now)
        batch = self.outbox.batch(self.now)
        if batch is not None:
            self.up.append(batch)

    def receive(self, index: int, *, keep: bool = False) -> None:
        if not self.up:
            return
        index %= len(self.up)
        first, items = self.up[index] if keep else self.up.pop(index)
        start, fresh = self.inbox.accept(first, items)
        assert not fresh or start == len(self.disk) + len(self.unwritten) + 1
        self.unwritten += [text for _, _, text in fresh]

    def commit(self) -> None:
        self.disk += self.unwritten
        self.unwritten.clear()
        self.inbox.commit(len(self.disk))

    def pulse(self) -> None:
        self.down.append((self.name, self.inbox.received, self.inbox.durable))

    def hear(self, index: int, *, keep: bool = False) -> None:
        if not self.down:
            return
        index %= len(self.down)
        hub, received, durable = self.down[index] if keep else self.down.pop(index)
        if hub >= self.heard:  # as a spoke does: an older incarnation is not believed again
            self.heard = hub
            self.outbox.on_counters(hub, received, durable, self.now)

    def restart(self) -> None:
        self.generation += 1
        self.unwritten.clear()
        self.inbox = Inbox(len(self.disk))

    def check(self) -> None:
        assert self.disk == [str(n + 1) for n in range(len(self.disk))], "a prefix, in order, exactly once"
        assert self.outbox.durable <= len(self.disk), "nothing is forgotten before it is on disk"
        assert self.outbox.durable + len(self.outbox) == self.made


moves = st.tuples(
    st.sampled_from(
        ["add", "send", "receive", "double", "drop", "commit", "pulse", "hear", "echo", "deafen", "second", "restart"]
    ),
    st.integers(0, 5),
)


def play(world: World, script: list[tuple[str, int]]) -> None:
    for move, index in script:
        match move:
            case "add":
                world.add()
            case "send":
                world.send()
            case "receive" | "double":
                world.receive(index, keep=move == "double")
            case "drop" if world.up:
                world.up.pop(index % len(world.up))
            case "commit":
                world.commit()
            case "pulse":
                world.pulse()
            case "hear" | "echo":
                world.hear(index, keep=move == "echo")
            case "deafen" if world.down:
                world.down.pop(index % len(world.down))
            case "second":
                world.now += 1.0
            case "restart":
                world.restart()
        world.check()


@quick
@given(st.lists(moves, max_size=150))
def test_every_fact_is_durable_in_the_end_once_and_in_order(script: list[tuple[str, int]]) -> None:
    world = World()
    play(world, script)
    for _ in range(4):  # the network is whole again
        world.pulse()
        while world.down:
            world.hear(0)
        world.now += delivery.STANDSTILL
        world.send()
        while world.up:
            world.receive(0)
        world.commit()
        world.check()
    world.pulse()
    while world.down:
        world.hear(0)
    assert world.disk == [str(n + 1) for n in range(world.made)]
    assert len(world.outbox) == 0


def test_an_outbox_is_full_by_number_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_FACTS", 3)
    monkeypatch.setattr(delivery, "MAX_BYTES", 100)
    outbox = Outbox()
    for _ in range(3):
        assert not outbox.full
        outbox.add((0, "n", "{}"))
    assert outbox.full
    outbox.on_counters("hub", 1, 1, 0.0)
    assert not outbox.full
    outbox = Outbox()
    outbox.add((0, "n", "x" * 100))
    assert outbox.full
    outbox.on_counters("hub", 1, 1, 0.0)
    assert not outbox.full


def test_a_batch_is_bounded_by_number_and_by_size() -> None:
    outbox = Outbox()
    for _ in range(delivery.BATCH_FACTS + 1):
        outbox.add((0, "n", "{}"))
    assert outbox.batch(0.0) is None, "nothing leaves before a hub was heard"
    outbox.on_counters("hub", 0, 0, 0.0)
    assert outbox.unsent
    sizes = []
    while (batch := outbox.batch(0.0)) is not None:
        sizes.append(len(batch[1]))
    assert sizes == [delivery.BATCH_FACTS, 1]
    assert not outbox.unsent
    outbox = Outbox()
    for _ in range(4):
        outbox.add((0, "n", "x" * (delivery.BATCH_BYTES // 2)))
    outbox.on_counters("hub", 0, 0, 0.0)
    first = outbox.batch(0.0)
    assert first is not None
    assert len(first[1]) == 2


def test_a_source_resends_after_a_standstill_and_at_once_to_a_new_hub() -> None:
    outbox = Outbox()
    outbox.add((0, "n", "1"))
    outbox.on_counters("a", 0, 0, 0.0)
    assert outbox.batch(0.0) == (1, ((0, "n", "1"),))
    assert not outbox.stalled(0.5)
    assert outbox.batch(0.5) is None
    assert outbox.stalled(1.0)
    assert outbox.batch(1.0) == (1, ((0, "n", "1"),))
    outbox.on_counters("b", 0, 0, 1.1)
    assert outbox.batch(1.1) == (1, ((0, "n", "1"),))


def test_the_inbox_takes_a_prefix_only_and_counts_the_rest() -> None:
    inbox = Inbox(last=10)
    facts = tuple((0, "n", str(n)) for n in range(3))
    assert inbox.accept(12, facts) == (11, ())
    assert inbox.accept(10, facts) == (11, facts[1:])
    assert inbox.accept(1, facts) == (13, ())
    assert inbox.accept(13, ()) == (13, ())
    assert (inbox.received, inbox.durable, inbox.duplicates, inbox.gaps) == (12, 10, 4, 1)
    inbox.commit(99)
    assert inbox.durable == 12


bodies = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def count_not_finite(value: object) -> int:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return sum(map(count_not_finite, value.values()))
    return sum(map(count_not_finite, value)) if isinstance(value, list) else 0


def refuse_constant(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


@quick
@given(bodies.filter(lambda body: "nonfinite" not in body))
def test_a_body_is_strict_json_and_names_what_is_not_finite(body: dict[str, Any]) -> None:
    text = fact_of("kind", body, 1)[2]
    text.encode()
    back = json.loads(text, parse_constant=refuse_constant)
    assert len(back.pop("nonfinite", [])) == count_not_finite(body)
    if not count_not_finite(body) and "?" not in text:
        assert back == body


def test_the_path_of_what_is_not_finite() -> None:
    text = body_text({"losses": {"value": math.nan, "policy": 1.0}, "list": [0, -math.inf]})
    assert json.loads(text) == {
        "losses": {"value": None, "policy": 1.0},
        "list": [0, None],
        "nonfinite": ["losses.value", "list.1"],
    }


def test_half_a_surrogate_pair_does_not_stop_the_facts_behind_it() -> None:
    assert (
        fact_of("log", {"line": "broken \udc80 byte, whole \u00e9"}, 1)[2] == '{"line":"broken ? byte, whole \u00e9"}'
    )


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("", {}),
        ("a b", {}),
        ("x" * 65, {}),
        ("kind\n", {}),
        ("kind", [1]),
        ("kind", {"x": object()}),
        ("kind", {"x": "y" * MAX_BODY}),
    ],
)
def test_a_wrong_fact_is_refused_before_it_is_numbered(kind: str, body: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        fact_of(kind, body, 1)


@given(st.lists(st.integers(0, 60_000), max_size=12))
def test_minted_tasks_fit_into_facts_whole_and_in_order(sizes: list[int]) -> None:
    tasks = [{"task": f"t{index}", "body": {"text": "x" * size}} for index, size in enumerate(sizes)]
    parts = list(mint_parts(tasks))
    assert [task for part in parts for task in part] == tasks
    assert all(len(body_text({"policy": "p" * 64, "tasks": part})) <= MAX_BODY for part in parts)
    assert len(parts) <= 1 + sum(len(body_text(task)) for task in tasks) * 2 // MINT_CHARACTERS
