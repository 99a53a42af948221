"""Mutated frames: what real ones become when bytes of them, or values in them, are changed.

A stranger's frame is a real one with bytes changed. An insider's has values of its header changed and the MAC made
right again, so that what lies behind the MAC is reached.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgpack
import numpy as np

from broker import messages as m
from broker.arrays import pack
from broker.wire import MAC_SIZE, RUN_ID_SIZE, Codec, Identity, payload_digest, run_id
from tests.broker.draws import incarnation

LAYOUT, PAYLOAD = pack({"x": np.arange(4, dtype=np.float32), "y": np.zeros((2, 3), np.uint8)})
HUB = incarnation(100)
ACTOR, NEWER = incarnation(1), incarnation(2)
DIGEST = LAYOUT.digest
Frames = tuple[bytes, bytes | None]


def nested(depth: int) -> Any:
    """A list in a list in a list, and so on."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**53, 2**63 - 1, 2**64 - 1, float("nan"), float("inf"), 1e308, "", "x", "x" * 300, "\0",
    "all", "actor-0", "a" * 65, "é" * 70, b"", b"\xff" * 40, [], {}, [1] * 50, {"x": 1}, {"\0array": 0},
    [{"x": {"\0array": 0}}, [["float64", [2**39, 9]]]], nested(17), nested(40), nested(400), msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(5), "tcp://nonsense", "nonsense", "ipc://" + "x" * 200, ACTOR, NEWER, "f" * 32,
)  # fmt: skip


BYTES = (b"\x91" * 1000, b"\x80", b"\xdd\xff\xff\xff\xff", b"\xc1", b"a")


def said_to_hub() -> list[tuple[m.Message, bytes | None]]:
    """Every message of a spoke."""
    item = m.FragmentItem(
        sequence=1, version=(1, 1), crc=0, steps=4, task="t", note={"score": 1.0, "of": [1, {"a": 2}]}
    )
    items = tuple(m.FragmentItem(sequence=n, version=(1, 1), crc=0, steps=4) for n in (2, 3))
    return [
        (m.Hello(role="actor", pid=1, address="tcp://127.0.0.1:7400", policy="p", version=(1, 2)), None),
        (m.Hello(role="actor", pid=1, blocked=True, sent_through=9), None),
        (m.Fragments(layout=DIGEST, define=LAYOUT.plain, items=(item,)), bytes(PAYLOAD)),
        (m.Fragments(layout=DIGEST, items=items), bytes(PAYLOAD) * 2),
        (m.Facts(first=1, items=((1, "progress", "{}"), (2, "outcome", '{"task": "t"}'))), None),
        (m.Status(doing="acting", waits=(("a", "b", 1.0),), rates={"cpu": 1.0, "queue": None}), None),
        (m.TaskRequest(request=1, count=4, policy="p"), None),
        (m.CheckpointOffer(offer=1, policy="p", version=(1, 1), size=3, sha256="0" * 64, score=1.0), None),
        (m.Chunk(offer=1, index=0), b"abc"),
        (m.RestoreRequest(policy="p", position=1, index=0), None),
        (m.Farewell(reason="done", sent_through=3), None),
    ]


def said_to_spoke() -> list[tuple[m.Message, bytes | None]]:
    """Every message of a hub."""
    counters = m.SpokeCounters(incarnation=ACTOR, settled=1, received=2, durable=1, layouts=(DIGEST,))
    entry = m.DirectoryEntry(name="learner-p", role="learner", policy="p", address="ipc:///l", incarnation=HUB)
    task = m.LeasedTask(task="t", policy="p", body="{}", version=(1, 1))
    return [
        (m.Pulse(phase="running", version=(1, 2), crc=3, spoke=counters), None),
        (m.Parameters(policy="p", version=(1, 2), crc=3, layout=LAYOUT.plain), bytes(PAYLOAD)),
        (m.Directory(entries=(entry, entry)), None),
        (m.Assignment(incarnation=ACTOR, request=1, seconds=9.0, tasks=(task,)), None),
        (m.RestorePoint(policy="p", incarnation=ACTOR, life=1, position=3, size=4, skipped=("a",)), None),
        (m.Chunk(offer=1, index=0), b"abc"),
        (m.Standings(), b"{}"),
    ]


class Mutations:
    """An endless stream of frames for one receiver, the same for the same seed."""

    def __init__(self, seed: int, me: Identity, recipient: str, hub: str | None = None) -> None:
        """Frames of `me`: to a hub of this incarnation, or (None) from a hub."""
        self._random, self._token = random.Random(seed), me.token
        codec = Codec(me, "hub" if hub is None else "spoke")
        self._person = b"headrace down" if hub is None else b"headrace up"
        real = said_to_spoke() if hub is None else said_to_hub()
        self._real = [(codec.encode(message, recipient, payload, hub=hub), payload) for message, payload in real]
        self._parts = [msgpack.unpackb(header[MAC_SIZE + RUN_ID_SIZE :]) for header, _ in self._real]

    def __iter__(self) -> Iterator[Frames]:
        while True:
            yield self._insider() if self._random.random() < 0.7 else self._stranger()

    def signed(self, body: bytes) -> bytes:
        """A header with a right MAC over any bytes."""
        number = run_id(self._token)
        mac = blake2b(number + body, key=bytes.fromhex(self._token), digest_size=MAC_SIZE, person=self._person)
        return mac.digest() + number + body

    def _stranger(self) -> Frames:
        header, payload = self._random.choice(self._real)
        return self._damaged(header), payload

    def _insider(self) -> Frames:
        draw = self._random
        index = draw.randrange(len(self._real))
        header, payload = self._real[index]
        how = draw.random()
        if how < 0.1:  # as it is: the state behind it moves on
            return header, payload
        if how < 0.25:
            return self.signed(self._damaged(header[MAC_SIZE + RUN_ID_SIZE :])), payload
        parts = list(self._parts[index])
        parts[6] = _copied(parts[6])
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            if draw.random() < 0.2:
                parts[draw.randrange(8)] = _copied(draw.choice(VALUES))
            else:
                self._mutate(parts[6])
        if draw.random() < 0.1:
            payload = draw.choice((None, b"", bytes(draw.randrange(300))))
        if parts[5] in ("parameters", "chunk", "standings") and payload is not None and draw.random() < 0.9:
            parts[7] = payload_digest(payload)
        try:
            return self.signed(msgpack.packb(parts)), payload
        except (ValueError, OverflowError):  # deeper than can be packed
            return header, payload

    def _damaged(self, frame: bytes) -> bytes:
        draw, damaged = self._random, bytearray(frame)
        for _ in range(draw.choice((1, 1, 2, 8))):
            place = draw.randrange(len(damaged) or 1)
            match draw.randrange(4):
                case 0:
                    damaged[place : place + 1] = bytes([draw.randrange(256)])
                case 1:
                    del damaged[place : place + draw.randrange(1, 20)]
                case 2:
                    damaged[place:place] = draw.choice(BYTES)
                case _:
                    del damaged[place:]
        return bytes(damaged)

    def _mutate(self, node: Any) -> None:
        """Change one value somewhere in a tree of maps and lists."""
        draw = self._random
        while isinstance(node, dict | list) and node:
            key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
            below = node[key]
            if isinstance(below, dict | list) and below and draw.random() < 0.7:
                node = below
                continue
            how = draw.random()
            if how < 0.1:
                del node[key]
            elif how < 0.2 and isinstance(node, list):
                node.extend(node * draw.randrange(3))
            elif how < 0.25 and isinstance(node, dict):
                node[draw.choice(("x", "kind", "role", "note", "", "\0array"))] = _copied(draw.choice(VALUES))
            else:
                node[key] = _copied(draw.choice(VALUES))
            return


def _copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_copied(value) for value in node]
    return node
