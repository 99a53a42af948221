"""A tracker that comes back to a large ledger: rebuild from the first fact, serving again, summary.

A ledger is written as a tracker leaves it that was killed at the worst moment: snapshots, and behind them as many facts
as there may ever be without newer ones. Then a real tracker process is started on it, and it serves once a source's
fact is acknowledged. The facts are a mix: of 100, 70 episodes of two agents, 22 of progress, 4 updates, 2 mints, 2
outcomes. Figures are of warm files unless the machine has too little memory for them.

    python -m bench restart [--facts 10000000] [--rounds 3] [--folder DIR] [--json FILE]

It needs about 700 bytes of disk for each fact, and keeps the ledger when it is given a folder.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import machine
from bench.children import Children
from bench.facts import TOKEN, tracker_spec
from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity
from tracker.core import SNAPSHOT_FACTS
from tracker.ledger import LEDGER, Ledger, LedgerReader
from tracker.standard import standard_folds
from tracker.summary import summarise

BATCH = 8_192
ONE = "0" * 15 + "1" + "a" * 16
AGENTS = ("agent_0", "agent_1")


def fact(number: int) -> tuple[str, str, dict[str, Any]]:
    """(source, kind, body) of the fact `number`."""
    place = number % 100
    if place < 70:
        value = -20.0 - number % 1000 / 100
        body = {
            "length": 25,
            "returns": dict.fromkeys(AGENTS, value),
            "policies": {agent: agent for agent in AGENTS},
            "lengths": dict.fromkeys(AGENTS, 25),
            "seconds": 0.0412,
        }
        return f"actor-{place % 4}", "episode", body
    if place < 92:
        body = {"env_steps": 100, "agent_steps": dict.fromkeys(AGENTS, 100), "dropped": {}}
        return f"actor-{place % 4}", "progress", body
    if place < 96:
        counts = {"agent_steps": 64, "consumed": 2, "stale": 0, "refused": 0, "lost": 0, "seconds": 0.1}
        losses = {"policy": 0.5, "value": 0.25, "entropy": 0.1}
        own = {"policy": "agent_0", "version": [1, number], "staleness": {"1": 2}, "losses": losses}
        return "learner-agent_0", "update", own | counts
    if place < 98:
        task = {"task": f"task-{number + 2}", "body": {"question": "what is it?"}}
        return "learner-agent_0", "mint", {"policy": "agent_0", "tasks": [task]}
    return "actor-0", "outcome", {"task": f"task-{number}", "score": 0.5}


def fill(ledger: Ledger, facts: int, seen: Callable[[int], None] = lambda _: None) -> None:
    """Append facts up to the position `facts`, in commits as large as the tracker's."""
    sequences = {source: last for (source, _), last in ledger.last_sequences().items()}
    while ledger.last_position < facts:
        rows = []
        first = ledger.last_position
        for number in range(first, min(facts, first + BATCH)):
            source, kind, body = fact(number)
            sequences[source] = sequences.get(source, 0) + 1
            text = json.dumps(body, separators=(",", ":"))
            rows.append((source, ONE, sequences[source], time.time_ns(), kind, text))
        with ledger.commit():
            ledger.append(rows)
        seen(ledger.last_position)


def write(directory: Path, facts: int) -> float:
    """A run's ledger of `facts` facts, whose snapshots are as old as they may get. Gives the rebuild's facts/s."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "token").write_text(TOKEN)
    (directory / "run.toml").touch()  # `headrace summary` looks for it
    ledger = Ledger(directory / LEDGER)
    snapshot = max(0, facts - SNAPSHOT_FACTS + 1)
    fill(ledger, snapshot)
    start = time.perf_counter()
    folds = standard_folds()
    folds.restore(ledger, settle=ledger.settle)
    rate = snapshot / (time.perf_counter() - start)
    with ledger.commit():
        ledger.store_ended(folds.fresh_ended())
        ledger.store_snapshots(folds.snapshots(), folds.position)
    fill(ledger, facts)
    ledger.close()
    return rate


def rebuild(directory: Path) -> float:
    """Folds from the first fact, as a tracker does it after a change of their versions. Facts/s.

    In a copy: the snapshots that no longer fit are removed by it.
    """
    copy = directory / f"copy-of-{LEDGER}"
    shutil.copyfile(directory / LEDGER, copy)
    ledger = Ledger(copy)
    folds = standard_folds()
    for fold in folds.folds.values():
        fold.version += 1000  # no snapshot fits
    start = time.perf_counter()
    folds.restore(ledger, settle=ledger.settle)
    with ledger.commit():
        ledger.store_ended(folds.fresh_ended())
    rate = ledger.last_position / (time.perf_counter() - start)
    ledger.close()
    copy.unlink()
    return rate


def serve(directory: Path) -> float:
    """Seconds from the start of a tracker's process to the acknowledgement of a fact."""
    with Children() as children, ExitStack() as stack:
        spec = tracker_spec(directory, children.folder)
        reactor = Reactor()
        stack.callback(reactor.close)
        start = time.perf_counter()
        tracker = children.start("bench.facts", part="track", spec=spec)
        spoke = TrackerSpoke(reactor, Identity(TOKEN, "actor-9", new_incarnation()), "actor", spec["tracker"])
        spoke.fact("restarted", {}, timeout=300)
        if not spoke.flush(300):
            raise SystemExit("the tracker did not serve within 300 s")
        spent = time.perf_counter() - start
        tracker.kill()  # as it was left: no new snapshot at an end
        tracker.wait(10)
    return spent


def summary(directory: Path) -> tuple[float, float]:
    """Seconds that the summary takes, as a function and as the command."""
    start = time.perf_counter()
    summarise(directory)
    called = time.perf_counter() - start
    start = time.perf_counter()
    command = [sys.executable, "-m", "launcher.cli", "summary", str(directory), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return called, time.perf_counter() - start


def main(*, facts: int, rounds: int, folder: Path | None) -> dict[str, Any]:
    """Measure and print; the result for `--json`."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)  # as the tracker's process does
    with Children() as children:
        directory = (folder or children.folder) / f"ledger-{facts}"
        if not (directory / LEDGER).exists():
            print(f"writing {facts:,} facts ...", flush=True)
            write(directory, facts)
        with LedgerReader(directory / LEDGER) as ledger:
            held = ledger.last_position
            behind = held - min(position for position, _ in ledger.snapshots().values())
        size = (directory / LEDGER).stat().st_size
        print(f"{held:,} facts, {size / 1e9:.2f} GB, {behind:,} behind the snapshots", flush=True)
        rates = [rebuild(directory) for _ in range(rounds)]
        print(f"rebuild from the first fact  {statistics.median(rates):>10,.0f} facts/s", flush=True)
        serving = [serve(directory) for _ in range(rounds)]
        print(f"process to acknowledgement   {statistics.median(serving):>10.2f} s", flush=True)
        summaries = [summary(directory) for _ in range(rounds)]
        called, command = (statistics.median(spent) for spent in zip(*summaries, strict=True))
        print(f"summary                      {called:>10.2f} s, as a command {command:.2f} s", flush=True)
    return {
        "facts": held,
        "bytes": size,
        "behind": behind,
        "rebuild_facts_per_s": rates,
        "serving_s": serving,
        "summary_s": [spent for spent, _ in summaries],
        "summary_command_s": [spent for _, spent in summaries],
    }


def command(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench restart", description=__doc__)
    parser.add_argument("--facts", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the ledger there, and use it again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(arguments)
    found: dict[str, Any] = {"machine": machine.describe()}
    print(machine.line(found["machine"]) + "\n")
    found["restart"] = main(facts=asked.facts, rounds=asked.rounds, folder=asked.folder)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
