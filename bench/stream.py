"""Experience, two producer processes to one hub process, beside raw pyzmq with the same bytes.

    headrace   PolicySpoke.send_fragment of a Draft with credit → Hub.take and settle: every check is on
    raw        PUSH → PULL: one header that was encoded before, one payload, `send(SNDMORE)` then `send`, which never
               changes and is not copied from 64 KiB on; high-water marks bound the bytes under way to about the same
    copied     headrace, but arrays are given, which are copied to a fresh buffer
    fresh      raw, but each payload is first copied to a fresh buffer, as whoever fills his arrays again must do

The first two send one payload again and again, and the last two make a fresh one for each fragment: `ratio` compares
the first pair.

Invariant: both sides run in the same environment (the launcher's `MALLOC_*`), the same processes and the same window of
time, in turns (A B A B …), and ratios are taken pair by pair. `room` bytes are under way at most for each producer.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from bench.children import Children, options, result
from broker.arrays import draft, pack
from broker.hub import Hub
from broker.hubstate import Arrived
from broker.names import new_incarnation
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor
from broker.wire import Codec, Identity

SIZES = (16 * 1024, 256 * 1024, 4 * 1024 * 1024)
PRODUCERS = 2
SIDES = ("headrace", "raw", "copied", "fresh")
TOKEN = "5" * 32
WARM = 0.4
ZERO_COPY = 65_536
ROOM = 32 * 1024 * 1024
"""Bytes under way for each producer, both sides."""


def window_of(size: int, room: int) -> int:
    """Fragments under way for each producer: `room` bytes of them, at least 4."""
    return max(4, room // size)


def fragment_of(size: int) -> dict[str, np.ndarray[Any, Any]]:
    """A fragment as an environment's rollout makes it, [T, B, ...], whose payload has `size` bytes."""
    rows, columns = (32, 8) if size < ZERO_COPY else (128, 16)
    steps = rows * columns
    small: dict[str, np.ndarray[Any, Any]] = {
        "actions": np.zeros((rows, columns), np.int32),
        "log_probabilities": np.zeros((rows, columns), np.float32),
        "rewards": np.zeros((rows, columns), np.float32),
        "terminated": np.zeros((rows, columns), np.bool_),
        "truncated": np.zeros((rows, columns), np.bool_),
        "valid": np.ones((rows, columns), np.bool_),
    }
    left = size - 15 * steps
    return {"observations": np.random.default_rng(0).integers(0, 255, left, np.uint8), **small}


# --- producers ---------------------------------------------------------------------------------------------------


def produce_headrace(address: str, name: str, size: int, room: int, *, copied: bool) -> None:
    """Send fragments as fast as there is credit, until the end."""
    reactor = Reactor()
    identity = Identity(TOKEN, name, new_incarnation())
    spoke = PolicySpoke(reactor, identity, "learner-bench", address, window=window_of(size, room), policy="bench")
    arrays: Any = fragment_of(size)
    if not copied:
        made = draft({key: (array.shape, array.dtype) for key, array in arrays.items()})
        for key, array in arrays.items():
            made.arrays[key][...] = array
        arrays = made  # its bytes never change, so that it may be sent again
    while spoke.phase != "stopping" and reactor.failure is None:
        if spoke.wait_for_credit(0.25):
            spoke.send_fragment(arrays, version=(1, 1), crc=7, steps=256)


def produce_raw(address: str, name: str, size: int, room: int, *, fresh: bool) -> None:
    """Send the same bytes, until the end; each time from the same buffer, or from a fresh one."""
    layout, payload = pack(fragment_of(size))
    item = {"sequence": 1, "version": (1, 1), "crc": 7, "steps": 256}
    fields = {"layout": layout.digest, "items": [item]}
    codec = Codec(Identity(TOKEN, name, new_incarnation()), "spoke")
    header = codec.encode_fields("fragments", fields, "hub", hub=new_incarnation())
    push = zmq.Context().socket(zmq.PUSH)
    push.setsockopt(zmq.SNDHWM, window_of(size, room) // 2)
    push.connect(address)
    copy = size < ZERO_COPY
    while True:
        push.send(header, zmq.SNDMORE)
        push.send(np.array(payload) if fresh else payload, copy=copy)


# --- consumers ---------------------------------------------------------------------------------------------------


class Meter:
    """Counts bytes within the measured time: from `WARM` seconds after every producer was heard."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.bytes = self.updates = 0
        self._sources: set[str | bytes] = set()
        self._start = self._end = float("inf")

    def count(self, source: str | bytes, size: int) -> None:
        """`size` bytes of a source are in the consumer's hands."""
        if source not in self._sources:
            self._sources.add(source)
            if len(self._sources) == PRODUCERS:
                self._start = time.perf_counter() + WARM
                self._end = self._start + self.seconds
        now = time.perf_counter()
        if self._start <= now < self._end:
            self.bytes += size

    def updated(self) -> None:
        """The learner made one update."""
        if self._start <= time.perf_counter() < self._end:
            self.updates += 1

    def going(self) -> bool:
        """Whether the time is not over."""
        return time.perf_counter() < self._end

    def say(self, **more: Any) -> None:
        """The result, as the last line of standard output."""
        rates = {"mb_per_s": self.bytes / 1e6 / self.seconds, "updates_per_s": self.updates / self.seconds}
        print(json.dumps({**rates, **more}), flush=True)


def learner() -> Callable[[], None]:
    """One update of a small policy: MLP 64 x 64, a batch of 512, Adam."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    optimizer = torch.optim.Adam(network.parameters(), foreach=True)
    inputs, targets = torch.randn(512, 16), torch.randn(512, 5)

    def update() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(network(inputs), targets).backward()
        optimizer.step()

    for _ in range(50):
        update()
    return update


def consume_headrace(address: str, size: int, seconds: float, update: Callable[[], None] | None) -> None:
    """The hub's process: take and settle; between updates, if there are any."""
    reactor = Reactor()
    hub = Hub(reactor, Identity(TOKEN, "learner-bench", new_incarnation()), address)
    meter = Meter(seconds)
    print("ready", flush=True)
    while meter.going() and reactor.failure is None:
        if update is not None:
            update()
            meter.updated()
        newest: dict[tuple[str, str], int] = {}
        for delivery in hub.take(0.0 if update is not None else 0.25):
            if isinstance(delivery, Arrived):
                meter.count(delivery.source, size)
                newest[delivery.source, delivery.incarnation] = delivery.sequence
        for (source, incarnation), sequence in newest.items():
            hub.settle(source, incarnation, sequence)
    counts = hub.counts()
    if reactor.failure is not None or counts["lost"] or counts["quarantined"]:
        raise SystemExit(f"the hub failed or lost: {reactor.failure!r} {counts}")
    meter.say()
    reactor.close()


def consume_raw(address: str, size: int, room: int, seconds: float, update: Callable[[], None] | None) -> None:
    """A bare PULL; what is waiting is drained between updates, if there are any."""
    pull = zmq.Context().socket(zmq.PULL)
    pull.setsockopt(zmq.RCVHWM, window_of(size, room) // 2)
    pull.bind(address)
    meter = Meter(seconds)
    copy = size < ZERO_COPY
    print("ready", flush=True)
    while meter.going():
        if update is None:
            header = pull.recv()
            payload = pull.recv(copy=copy)
            meter.count(header[20:40], len(payload))
            continue
        update()
        meter.updated()
        while pull.poll(0):
            header = pull.recv()
            payload = pull.recv(copy=copy)
            meter.count(header[20:40], len(payload))
            if not meter.going():
                break
    meter.say()


def alone(seconds: float) -> None:
    """The updates with nothing beside them."""
    update = learner()
    meter = Meter(seconds)
    for source in range(PRODUCERS):
        meter.count(str(source), 0)
    while meter.going():
        update()
        meter.updated()
    meter.say()


# --- the measurement ---------------------------------------------------------------------------------------------


def trial(side: str, size: int, seconds: float, *, room: int = ROOM, learning: bool) -> dict[str, float]:
    """One side once: a consumer and its producers in processes of their own."""
    with Children() as children:
        address = f"ipc://{children.folder}/hub"
        asked = {"address": address, "size": size, "room": room, "seconds": seconds, "learning": learning}
        receiver = "headrace" if side in ("headrace", "copied") else "raw"
        consumer = children.start("bench.stream", part=f"consume_{receiver}", **asked)
        assert consumer.stdout is not None
        consumer.stdout.readline()
        for index in range(PRODUCERS):
            children.start("bench.stream", part=f"produce_{side}", name=f"actor-{index}", **asked)
        found: dict[str, float] = result(consumer, seconds + 60)
        return found


def measure(sizes: tuple[int, ...], rounds: int, seconds: float, room: int, *, learning: bool) -> list[dict[str, Any]]:
    """Rows of the table, by size."""
    rows = []
    for size in sizes:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for turn in range(rounds):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                found[side].append(trial(side, size, seconds, room=room, learning=learning))
        rates = {side: [one["mb_per_s"] for one in trials] for side, trials in found.items()}
        ratios = [ours / raw for ours, raw in zip(rates["headrace"], rates["raw"], strict=True)]
        row: dict[str, Any] = {"size": size, "window": window_of(size, room), "learning": learning}
        row |= {f"{side}_mb_per_s": statistics.median(rates[side]) for side in SIDES}
        row |= {"ratio": statistics.median(ratios), "ratios": ratios}
        if learning:
            for side in SIDES:
                row[f"{side}_updates_per_s"] = statistics.median(one["updates_per_s"] for one in found[side])
        rows.append(row)
        print(format_row(row), flush=True)
    return rows


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    size = row["size"]
    name = f"{size // 1024} KiB" if size < 2**20 else f"{size // 2**20} MiB"
    pairs = " ".join(f"{ratio:.2f}" for ratio in row["ratios"])
    text = f"{name:>8} {row['window']:>7} {row['headrace_mb_per_s']:>10,.0f} {row['raw_mb_per_s']:>8,.0f}"
    text += f" {row['copied_mb_per_s']:>8,.0f} {row['fresh_mb_per_s']:>8,.0f}"
    text += f" {row['ratio']:>7.2f}   {pairs}"
    if row["learning"]:
        text += f"   {row['headrace_updates_per_s']:,.0f} and {row['raw_updates_per_s']:,.0f} updates/s"
    return text


def main(*, rounds: int, seconds: float, sizes: tuple[int, ...] = SIZES, room: int = ROOM) -> dict[str, Any]:
    """Measure and print; the result for `--json`."""
    head = (
        f"{'size':>8} {'window':>7} {'headrace':>10} {'raw':>8} {'copied':>8} {'fresh':>8} {'ratio':>7}   pair by pair"
    )
    print("stream, 2 processes to 1, MB/s (medians)\n" + head)
    plain = measure(sizes, rounds, seconds, room, learning=False)
    with Children() as children:
        bare = result(children.start("bench.stream", part="alone", seconds=seconds), 60)["updates_per_s"]
    print(f"\nthe same, while the consumer learns (alone: {bare:,.0f} updates/s)\n" + head)
    learning = measure(sizes, rounds, seconds, room, learning=True)
    return {"rows": [*plain, *learning], "updates_alone_per_s": bare}


def child() -> None:
    """One part of a trial, in its own process."""
    asked = options()
    part = asked["part"]
    if part.startswith("produce"):
        at = (asked["address"], asked["name"], asked["size"], asked["room"])
        if part in ("produce_headrace", "produce_copied"):
            produce_headrace(*at, copied=part == "produce_copied")
        else:
            produce_raw(*at, fresh=part == "produce_fresh")
        return
    if part == "alone":
        alone(asked["seconds"])
        return
    update = learner() if asked["learning"] else None
    if part == "consume_raw":
        consume_raw(asked["address"], asked["size"], asked["room"], asked["seconds"], update)
    else:
        consume_headrace(asked["address"], asked["size"], asked["seconds"], update)
    sys.stdout.flush()


if __name__ == "__main__":
    child()
