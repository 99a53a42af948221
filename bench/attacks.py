"""Attacks on a running `headrace run cartpole` over tcp on loopback: pulses, rate and memory during and after each.

A stranger reaches the ports alone; an insider has the run's token. Each attack is one process, which strikes the
tracker's hub and the learner's at once. Listed are the longest gap between two pulses that a subscriber of its own saw,
the rate of environment steps against the mean of just before and just after, the rate after against before, and how
much more memory tracker and learner had at most, and 5 s after the attack, than just before it. On two cores the
attacker takes one, so that a rate of 0.5 may be owed to that alone.

    python -m bench attacks [--only NAME ...] [--seconds 8] [--files N] [--json FILE]

`--files` limits the run's open files (as `ulimit -n` does), for the attack `connections`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack
import psutil
import zmq

from bench import machine
from bench.runs import headrace
from broker import addresses
from broker import messages as m
from broker.names import ALL, topic
from broker.standings import Feed
from broker.wire import MAC_SIZE, MAX_HEADER, PROTOCOL, Codec, Identity, run_id

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
AFTER = 5.0
GIB = 2**30


@dataclass(frozen=True)
class Target:
    """A hub: its name, address, incarnation, and the token of its run."""

    name: str
    address: str
    incarnation: str
    token: str

    def connect(self, kind: str) -> socket.socket:
        """A connection that has said what ZMTP wants of a socket of this kind."""
        host, port = addresses.split(self.address if kind == "PUSH" else addresses.publisher(self.address))
        connection = socket.create_connection((host, port), timeout=5)
        connection.sendall(GREETING)
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind.encode()
        connection.sendall(b"\x04" + bytes([len(ready)]) + ready)
        return connection

    def codec(self, name: str, incarnation: str | None = None) -> Codec:
        """What an insider of this name encodes with."""
        return Codec(Identity(self.token, name, incarnation or self.later()), "spoke")

    def later(self) -> str:
        """An incarnation that is newer than this hub, and not of the future."""
        return f"{int(self.incarnation[:16], 16) + 1:016x}{secrets.token_hex(8)}"

    def header(self, message: m.Message, name: str, incarnation: str | None = None) -> bytes:
        """An insider's message to this hub."""
        return self.codec(name, incarnation).encode(message, self.name, hub=self.incarnation)

    def raw(self, kind: str, fields: bytes, name: str) -> bytes:
        """The header of an insider whose fields are these bytes of msgpack."""
        begin = [PROTOCOL, name, self.later(), self.name, self.incarnation, kind]
        body = b"\x98" + b"".join(map(msgpack.packb, begin)) + fields + b"\xc0"
        key, number = bytes.fromhex(self.token), run_id(self.token)
        mac = blake2b(number + body, key=key, digest_size=MAC_SIZE, person=b"headrace up")
        return mac.digest() + number + body


def frame(body: bytes, *, more: bool = False) -> bytes:
    """A ZMTP frame."""
    if len(body) < 256:
        return bytes([int(more), len(body)]) + body
    return bytes([2 | int(more)]) + struct.pack(">Q", len(body)) + body


def pour(connect: Callable[[], socket.socket], pieces: Iterator[bytes], until: float) -> int:
    """Send pieces until the time is over, with a new connection for each one that is closed. Bytes that left."""
    sent, connection = 0, None
    for piece in pieces:
        if time.monotonic() >= until:
            break
        try:
            connection = connection or connect()
            connection.sendall(piece)
            sent += len(piece)
        except OSError:
            with suppress(OSError):
                if connection is not None:
                    connection.close()
            connection = None
            time.sleep(0.001)
    return sent


# --- strangers -----------------------------------------------------------------------------------------------------


def subscriptions(target: Target, until: float) -> int:
    """Ever new topics."""
    numbers = itertools.count()
    pieces = (b"".join(frame(b"\1%010d" % next(numbers)) for _ in range(2000)) for _ in numbers)
    return pour(lambda: target.connect("SUB"), pieces, until)


def resubscriptions(target: Target, until: float) -> int:
    """The same topic, subscribed and cancelled."""
    piece = (frame(b"\1actor-0\0") + frame(b"\0actor-0\0")) * 1000
    return pour(lambda: target.connect("SUB"), itertools.repeat(piece), until)


def long_topic(target: Target, until: float) -> int:
    """A topic of 20 MB, again and again."""
    return pour(lambda: target.connect("SUB"), itertools.repeat(frame(b"\1" + os.urandom(20_000_000))), until)


def unfinished(target: Target, until: float) -> int:
    """Ten frames of 300 MB that never end."""
    piece = os.urandom(1_000_000)
    begin = b"\2" + struct.pack(">Q", 300_000_000)
    connections = []
    sent = 0
    for _ in range(10):
        connections.append(target.connect("PUSH"))
        with suppress(OSError):
            connections[-1].sendall(begin)
            for _ in range(299):
                connections[-1].sendall(piece)
                sent += len(piece)
    time.sleep(max(0.0, until - time.monotonic()))
    return sent


def foreign(target: Target, until: float) -> int:
    """Small messages without a token."""
    return pour(lambda: target.connect("PUSH"), itertools.repeat(frame(os.urandom(100)) * 500), until)


def foreign_large(target: Target, until: float) -> int:
    """Messages of 8 MiB that begin with the run's public id, and whose MAC is wrong."""
    right = target.header(m.Hello(role="actor", pid=1), "actor-0")
    piece = frame(bytes(16) + right[16:24] + bytes(MAX_HEADER - 24))
    return pour(lambda: target.connect("PUSH"), itertools.repeat(piece), until)


def many_frames(target: Target, until: float) -> int:
    """Messages of 100,000 frames."""
    piece = frame(b"", more=True) * 99_999 + frame(b"")
    return pour(lambda: target.connect("PUSH"), itertools.repeat(piece), until)


def endless(target: Target, until: float) -> int:
    """Messages of ever more frames, which never end."""
    return pour(lambda: target.connect("PUSH"), itertools.repeat(frame(bytes(100_000), more=True)), until)


def connections(target: Target, until: float) -> int:
    """Twelve hundred connections that say nothing."""
    there = []
    while time.monotonic() < until:
        with suppress(OSError):
            if len(there) < 1200:
                there.append(target.connect("PUSH"))
                continue
        time.sleep(0.01)
    return len(there)


# --- insiders ------------------------------------------------------------------------------------------------------


def identities(target: Target, until: float) -> int:
    """Facts of identities that never said Hello."""
    facts = m.Facts(first=1, items=((1, "x", "{}"),))
    pieces = (frame(target.header(facts, f"actor-{n}")) for n in itertools.count(1000))
    return pour(lambda: target.connect("PUSH"), pieces, until)


def hellos(target: Target, until: float) -> int:
    """Hellos of ever new names, each with an address."""

    def hello(n: int) -> bytes:
        about = m.Hello(role="learner", pid=1, address="tcp://127.0.0.1:9", policy=f"x{n}")
        return frame(target.header(about, f"learner-x{n}"))

    pieces = map(hello, itertools.count())
    return pour(lambda: target.connect("PUSH"), pieces, until)


def _as_actor(target: Target, until: float, message: m.Message | None, header: bytes = b"") -> int:
    """One who said Hello, and then one message again and again."""
    codec = target.codec("actor-999")
    hello = frame(codec.encode(m.Hello(role="actor", pid=1), target.name, hub=target.incarnation))
    again = header or codec.encode(message, target.name, hub=target.incarnation)  # type: ignore[arg-type]
    pieces = itertools.chain([hello], itertools.repeat(frame(again)))
    return pour(lambda: target.connect("PUSH"), pieces, until)


def offers(target: Target, until: float) -> int:
    """Offers of checkpoints of ever new policies, each by its learner."""

    def offer(n: int) -> bytes:
        codec = target.codec(f"learner-p{n}")
        hello = m.Hello(role="learner", pid=1, policy=f"p{n}")
        made = m.CheckpointOffer(offer=1, policy=f"p{n}", version=(1, 1), size=1, sha256="0" * 64)
        return b"".join(frame(codec.encode(said, target.name, hub=target.incarnation)) for said in (hello, made))

    return pour(lambda: target.connect("PUSH"), map(offer, itertools.count()), until)


def rates(target: Target, until: float) -> int:
    """A status with 400,000 gauges."""
    fields = msgpack.packb({"rates": {f"r{n}": n for n in range(400_000)}})
    return _as_actor(target, until, None, target.raw("status", fields, "actor-999"))


def empty_maps(target: Target, until: float) -> int:
    """A header of 8 MiB of empty maps."""
    count = MAX_HEADER - 1000
    fields = b"\x81\xa4what" + b"\xdd" + struct.pack(">I", count) + b"\x80" * count
    return _as_actor(target, until, None, target.raw("status", fields, "actor-999"))


def deep(target: Target, until: float) -> int:
    """A header nested 400 deep, where a text should be."""
    return _as_actor(target, until, None, target.raw("status", b"\x81\xa5doing" + b"\x91" * 400 + b"\xc0", "actor-999"))


def statuses(target: Target, until: float) -> int:
    """Statuses, as fast as they go."""
    return _as_actor(target, until, m.Status(doing="x" * 200))


def requests(target: Target, until: float) -> int:
    """Requests for tasks under ever new numbers."""
    codec = target.codec("actor-999")
    hello = frame(codec.encode(m.Hello(role="actor", pid=1), target.name, hub=target.incarnation))

    def request(n: int) -> bytes:
        return frame(codec.encode(m.TaskRequest(request=n, count=1), target.name, hub=target.incarnation))

    return pour(lambda: target.connect("PUSH"), itertools.chain([hello], map(request, itertools.count(1))), until)


STRANGERS = (
    subscriptions, resubscriptions, long_topic, unfinished, foreign, foreign_large, many_frames, endless, connections,
)  # fmt: skip
INSIDERS = (identities, hellos, offers, rates, empty_maps, deep, statuses, requests)
ATTACKS = {attack.__name__: attack for attack in (*STRANGERS, *INSIDERS)}


def strike(name: str, until: float, targets: list[Target]) -> None:
    """Be the attacker: one thread for each hub."""
    sent = [0] * len(targets)

    def at(place: int) -> None:
        sent[place] = ATTACKS[name](targets[place], until)

    threads = [threading.Thread(target=at, args=(place,)) for place in range(len(targets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(sent))


# --- the run -------------------------------------------------------------------------------------------------------


class Pulses:
    """A subscriber of every hub, which keeps the longest gap between two pulses of each."""

    def __init__(self, targets: list[Target]) -> None:
        self._gaps = dict.fromkeys((target.name for target in targets), 0.0)
        self._targets = targets
        self._over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        context = zmq.Context()
        poller = zmq.Poller()
        names: dict[Any, str] = {}
        for target in self._targets:
            source = context.socket(zmq.SUB)
            source.setsockopt(zmq.SUBSCRIBE, topic(ALL))
            source.connect(addresses.publisher(target.address))
            poller.register(source, zmq.POLLIN)
            names[source] = target.name
        heard: dict[str, float] = {}
        while not self._over:
            for source, _ in poller.poll(100):
                while source.poll(0):
                    source.recv_multipart()
                heard.setdefault(names[source], time.monotonic())
                now = time.monotonic()
                self._gaps[names[source]] = max(self._gaps[names[source]], now - heard[names[source]])
                heard[names[source]] = now
            for name, at in heard.items():
                self._gaps[name] = max(self._gaps[name], time.monotonic() - at)
        context.destroy(linger=0)

    def take(self) -> dict[str, float]:
        """The longest gaps since this was last asked."""
        taken = {name: round(gap, 2) for name, gap in self._gaps.items()}
        self._gaps = dict.fromkeys(self._gaps, 0.0)
        return taken

    def close(self) -> None:
        """Leave."""
        self._over = True


class Run:
    """A run of cartpole at a tcp address, without an end."""

    def __init__(self, folder: Path, files: int | None) -> None:
        self.directory = folder / "run"
        port = 20_000 + os.getpid() % 20_000
        line = headrace("run", "cartpole", "--headless", "--run-dir", self.directory)
        for setting in (f"tracker.address=tcp://127.0.0.1:{port}", "stop.seconds=100000", "stop.return=100000"):
            line += ["--set", setting]
        self.log = (folder / "output").open("wb")
        if files is not None:
            line = ["sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', *line]
        self.process = subprocess.Popen(line, stdout=self.log, stderr=self.log, cwd=folder)
        deadline = time.monotonic() + 60
        while not (self.directory / "tracker.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        token = (self.directory / "token").read_text().strip()
        self.feed = Feed(json.loads((self.directory / "tracker.json").read_text())["address"], token)
        while (document := self.look())["env_steps"] == 0:
            if time.monotonic() > deadline:
                raise RuntimeError("no run after a minute")
        self.roles = {role["name"]: psutil.Process(role["pid"]) for role in document["roles"] if role["pid"]}
        self.hubs = ("tracker", "learner-agent")
        incarnations = self._incarnations()
        learner = min(c.laddr.port for c in self.roles["learner-agent"].net_connections() if c.status == "LISTEN")
        where = {"tracker": f"tcp://127.0.0.1:{port}", "learner-agent": f"tcp://127.0.0.1:{learner}"}
        self.targets = [Target(name, where[name], incarnations[name], token) for name in self.hubs]

    def _incarnations(self) -> dict[str, str]:
        from tracker.ledger import LEDGER, LedgerReader

        with LedgerReader(self.directory / LEDGER) as ledger:
            return {source: incarnation for source, incarnation in ledger.last_sequences() if source in self.hubs}

    def look(self) -> dict[str, Any]:
        """The newest standings."""
        return self.feed.next(10.0) or {"env_steps": 0, "roles": []}

    def rate(self, seconds: float) -> float:
        """Environment steps per second over so many seconds."""
        began, steps = time.monotonic(), self.look()["env_steps"]
        time.sleep(seconds)
        return float((self.look()["env_steps"] - steps) / (time.monotonic() - began))

    def memory(self) -> dict[str, int]:
        """MiB of the processes that own a hub."""
        return {name: round(self.roles[name].memory_info().rss / 2**20) for name in self.hubs}

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)
        self.feed.close()


def measure(run: Run, name: str, seconds: float) -> dict[str, Any]:
    """One attack."""
    pulses = Pulses(run.targets)
    before, memory = run.rate(3.0), run.memory()
    pulses.take()
    plain = [asdict(target) for target in run.targets]
    command = [sys.executable, "-m", "bench.attacks", "--strike", json.dumps([name, seconds, plain])]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    steps, began = run.look()["env_steps"], time.monotonic()
    peak = dict(memory)
    while attacker.poll() is None:
        time.sleep(0.1)
        peak = {hub: max(peak[hub], now) for hub, now in run.memory().items()}
    during = (run.look()["env_steps"] - steps) / (time.monotonic() - began)
    gaps = pulses.take()
    pulses.close()
    time.sleep(AFTER)
    memory_after = run.memory()
    after = run.rate(3.0)
    usual = (before + after) / 2
    return {
        "attack": name,
        "sent": json.loads((attacker.stdout.read() if attacker.stdout else "") or "[]"),
        "pulse_gap": max(gaps.values()),
        "rate": round(during / usual, 2) if usual else 0.0,
        "after": round(after / before, 2) if before else 0.0,
        "peak": {hub: peak[hub] - memory[hub] for hub in memory},
        "kept": {hub: memory_after[hub] - memory[hub] for hub in memory},
        "alive": run.process.poll() is None and all(process.is_running() for process in run.roles.values()),
    }


def command(arguments: list[str]) -> None:
    """Measure what was named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench attacks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--files", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--strike", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.strike:
        name, seconds, targets = json.loads(asked.strike)
        strike(name, time.monotonic() + seconds, [Target(**target) for target in targets])
        return
    print(machine.line(machine.describe()))
    print(
        f"{'attack':<16} {'sent, MB':>9} {'gap, s':>7} {'rate':>5} {'after':>6}  peak and kept, MiB (tracker, learner)"
    )
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-attacks-")))
        run = Run(folder, asked.files)
        stack.callback(run.close)
        for name in asked.only:
            row = measure(run, name, asked.seconds)
            rows.append(row)
            peak, kept = (", ".join(f"{n:+d}" for n in row[key].values()) for key in ("peak", "kept"))
            print(
                f"{name:<16} {sum(row['sent']) / 1e6:>9,.1f} {row['pulse_gap']:>7.2f} {row['rate']:>5.2f} "
                f"{row['after']:>6.2f}  {peak:>14} {kept:>14}  {'' if row['alive'] else 'A ROLE FELL'}",
                flush=True,
            )
    if asked.json is not None:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    command(sys.argv[1:])
