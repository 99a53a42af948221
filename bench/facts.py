"""Facts, four source processes to one tracker process: durable, acknowledged and folded.

The tracker is `tracker.role.main` as a run starts it: hub, ledger (WAL, synchronous=FULL, group commit), folds. Sources
say `episode` facts as fast as `TrackerSpoke.fact` takes them. Invariant: only what a source knows to be durable within
the measured time counts, and afterwards the ledger itself is read: none is lost, none is there twice, each source's are
in its order, and the standings counted every one.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.children import Children, options, result
from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity

SOURCES = 4
TOKEN = "5" * 32
WARM = 1.0
AGENTS = ("agent_0", "agent_1")


def body_of(number: int) -> dict[str, Any]:
    """An episode of two agents, as an actor says it: about 190 bytes of JSON."""
    value = -20.0 - number % 1000 / 100
    return {
        "length": 25,
        "returns": dict.fromkeys(AGENTS, value),
        "policies": {agent: agent for agent in AGENTS},
        "lengths": dict.fromkeys(AGENTS, 25),
        "seconds": 0.0412,
        "number": number,
    }


def tracker_spec(directory: Path, sockets: Path) -> dict[str, Any]:
    """What a tracker's process is started with; `tracker` is its address."""
    settings = {"epoch_steps": None, "lease_seconds": 60.0, "insecure": False}
    run = {"name": "bench", "seed": 0, "tracker": settings, "learner": {"ending_seconds": 10.0}}
    return {
        "role": "tracker",
        "kind": "tracker",
        "index": 0,
        "directory": str(directory),
        "sockets": str(sockets),
        "tracker": f"ipc://{sockets}/tracker",
        "plan": {"run": run, "policies": {}, "roles": []},
    }


# --- in processes of their own -----------------------------------------------------------------------------------


def track(spec: dict[str, Any]) -> None:
    """The tracker, until standard input closes."""
    from tracker.role import main as tracker_main

    ending = threading.Event()

    def lifeline() -> None:
        sys.stdin.read()
        ending.set()

    threading.Thread(target=lifeline, daemon=True).start()
    tracker_main(spec, ending)
    print("{}", flush=True)


def say(address: str, name: str, seconds: float) -> None:
    """One source: facts until the time is over, then all of them acknowledged.

    It reads from standard input when the measured time begins (monotonic seconds, which all processes share).
    """
    reactor = Reactor()
    identity = Identity(TOKEN, name, new_incarnation())
    spoke = TrackerSpoke(reactor, identity, "actor", address)
    number = 1
    spoke.fact("episode", body_of(number))
    if not spoke.flush(30):
        raise SystemExit(f"{name}: the tracker did not acknowledge a first fact within 30 s")
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    end = start + seconds
    began = ended = 0
    while True:
        for _ in range(64):
            number += 1
            spoke.fact("episode", body_of(number), timeout=30)
        now = time.monotonic()
        if now < start:
            began = spoke.durable
        elif now < end:
            ended = spoke.durable
        else:
            break
    if not spoke.flush(30):
        raise SystemExit(f"{name}: {spoke.unacknowledged} facts were not acknowledged within 30 s")
    spoke.farewell("measured")
    reactor.close()
    print(json.dumps({"said": number, "in_time": ended - began, "incarnation": identity.incarnation}), flush=True)


# --- the measurement ---------------------------------------------------------------------------------------------


def trial(seconds: float) -> dict[str, Any]:
    """One tracker and its sources: the rate, and what the ledger says."""
    with Children() as children:
        directory = children.folder / "run"
        directory.mkdir()
        (directory / "token").write_text(TOKEN)
        spec = tracker_spec(directory, children.folder)
        tracker = children.start("bench.facts", part="track", spec=spec)
        asked = {"part": "say", "address": spec["tracker"], "seconds": seconds}
        sources = [children.start("bench.facts", name=f"actor-{index}", **asked) for index in range(SOURCES)]
        for source in sources:
            assert source.stdout is not None
            source.stdout.readline()
        start = time.monotonic() + WARM
        for source in sources:
            assert source.stdin is not None
            source.stdin.write(f"{start}\n")
            source.stdin.flush()
        said = {f"actor-{index}": result(source, seconds + 90) for index, source in enumerate(sources)}
        result(tracker, 60)
        verdict = audit(directory, said)
    return {"facts_per_s": sum(source["in_time"] for source in said.values()) / seconds, **verdict}


def audit(directory: Path, said: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Read the ledger through: RuntimeError names the first thing that is not as it was promised."""
    from tracker.ledger import LEDGER, LedgerReader

    last = dict.fromkeys(said, 0)
    with LedgerReader(directory / LEDGER) as ledger:
        for position, source, incarnation, sequence, _, kind, body in ledger.read_all():
            if source not in said or kind == "refused":
                continue
            expected = last[source] + 1
            number = json.loads(body)["number"]
            if (sequence, number, incarnation) != (expected, expected, said[source]["incarnation"]):
                raise RuntimeError(f"position {position}: {source} {sequence} says {number}, expected {expected}")
            last[source] = sequence
        folded = ledger.snapshots()["standings"][1]["state"]["episodes"]
    for source, sequence in last.items():
        if sequence != said[source]["said"]:
            raise RuntimeError(
                f"{source} has {sequence} facts in the ledger and had {said[source]['said']} acknowledged"
            )
    stored = sum(last.values())
    if folded != stored:
        raise RuntimeError(f"{folded} of {stored} facts were folded")
    return {"stored": stored, "lost": 0, "twice": 0, "folded": folded}


def main(*, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure and print; the result for `--json`."""
    print(f"facts, {SOURCES} sources to 1 tracker, {len(json.dumps(body_of(1), separators=(',', ':')))} bytes each")
    trials = []
    for _ in range(rounds):
        found = trial(seconds)
        trials.append(found)
        print(
            f"{found['facts_per_s']:>10,.0f}/s durable, acknowledged, folded; {found['stored']:,} in the ledger: ",
            end="",
        )
        print("none lost, none twice, in order", flush=True)
    median = statistics.median(found["facts_per_s"] for found in trials)
    print(f"{median:>10,.0f}/s median")
    return {"facts_per_s": median, "trials": trials}


def child() -> None:
    """One part of a trial, in its own process."""
    asked = options()
    if asked["part"] == "track":
        track(asked["spec"])
    else:
        say(asked["address"], asked["name"], asked["seconds"])


if __name__ == "__main__":
    child()
