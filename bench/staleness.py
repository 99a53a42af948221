"""What happens when learners are slower than their actors: experience waits, it does not pile up.

    slow      `spread` with learners that sleep in every update (an algorithm of a module of its own): the staleness at
              use beside what `headrace check --json` predicts, and the actors' memory after a quarter and at the end
    stopped   `spread` with one learner stopped by SIGSTOP for a while: the rate of the other two's versions before,
              during (also without the first seconds, in which its silence is not yet noticed) and after

Invariant: staleness and rates are quotients of facts; a learner that was stopped is continued whatever happens.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import runs
from bench.children import ROOT

SLEEP = 1.0
"""Seconds added to an update: about twice what actors need for a batch, so that learners are waited for."""
STOPPED = "learner-agent_0"
NOTICED = 3.0
"""Seconds after which a silent learner is suspect, and is not waited for any more (with a margin)."""
START, SLACK = 60.0, 60.0

ALGORITHM = '''"""PPO whose updates take long."""

import time

from learners.ppo import Ppo


class Slow(Ppo):
    def update(self):
        time.sleep({sleep})
        return super().update()
'''


def slow(seconds: float, seed: int, sleep: float) -> dict[str, Any]:
    """Staleness and actors' memory with learners that are slowed by `sleep` s an update."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        (folder / "slow.py").write_text(ALGORITHM.format(sleep=sleep))
        text = (ROOT / "runs" / "spread.toml").read_text()
        run_file = folder / "spread.toml"
        run_file.write_text(text.replace('algorithm = "ppo"', 'algorithm = "slow:Slow"'))
        with runs.Command(runs.headrace("check", run_file, "--json"), folder) as command:
            command.wait(START)
            predicted = [policy["staleness"] for policy in command.last_json()["policies"].values()]
        run_dir = folder / "run"
        asked: list[str | Path] = ["--seed", str(seed), "--seconds", f"{seconds:g}", "--run-dir", run_dir]
        memory: list[dict[str, float]] = []
        with runs.Command(runs.headrace("run", run_file, "--headless", *asked), folder) as command:
            runs.until(lambda: runs.has_reached(run_dir, "running"), START, "the phase running")
            actors = {role: pid for role, pid in runs.pids(run_dir).items() if role.startswith("actor")}
            end = time.monotonic() + seconds - 1.0
            time.sleep(seconds / 4)
            while time.monotonic() < end:
                memory.append({role: runs.resident(pid) for role, pid in actors.items()})
                time.sleep(min(1.0, max(0.0, end - time.monotonic())))
            command.wait(SLACK + seconds)
        running, _ = runs.phase_time(run_dir, "running")
        _, agent = runs.step_rates(run_dir, seconds / 4)
        return {
            "predicted": max(predicted),
            "measured": runs.staleness(run_dir, running + seconds / 4),
            "agent_steps_per_second": agent,
            "rss_mib": {role: [memory[0][role], memory[-1][role]] for role in actors},
        }


def stopped(before: float, during: float, after: float, seed: int) -> dict[str, Any]:
    """Versions/s of the two other learners around a stop of the first one."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        run_dir = folder / "run"
        seconds = before + during + after
        asked: list[str | Path] = ["--seed", str(seed), "--seconds", f"{seconds + SLACK:g}", "--run-dir", run_dir]
        with runs.Command(runs.headrace("run", "spread", "--headless", *asked), folder) as command:
            runs.until(lambda: _updates(run_dir, STOPPED) > 2, START, "the first versions")
            began = time.time()
            time.sleep(before)
            pid = runs.pids(run_dir)[STOPPED]
            os.kill(pid, signal.SIGSTOP)
            stop = time.time()
            try:
                time.sleep(during)
            finally:
                os.kill(pid, signal.SIGCONT)
            go_on = time.time()
            time.sleep(after)
            end = time.time()
            # The launcher alone: it ends the others, and its own end tells that the run came through.
            command.process.send_signal(signal.SIGINT)
            command.process.wait(SLACK)
        spans = {
            "before": (began, stop),
            "during": (stop, go_on),
            "noticed": (min(stop + NOTICED, go_on), go_on),
            "after": (go_on, end),
        }
        roles = [role for role in runs.pids(run_dir) if role.startswith("learner")]
        rates = {span: {role: _rate(run_dir, role, *times) for role in roles} for span, times in spans.items()}
        others = {span: sum(rate for role, rate in by.items() if role != STOPPED) for span, by in rates.items()}
        restarts = [fact.body["role"] for fact in runs.facts(run_dir, "spawned") if fact.body["attempt"] > 1]
        return {"rates": rates, "others": others, "restarted": restarts, "status": command.process.returncode}


def _updates(run_dir: Path, role: str) -> int:
    if not runs.has_reached(run_dir, "running"):
        return 0
    return sum(fact.source == role for fact in runs.facts(run_dir, "update"))


def _rate(run_dir: Path, role: str, since: float, through: float) -> float:
    made = sum(fact.source == role and since <= fact.time < through for fact in runs.facts(run_dir, "update"))
    return made / max(through - since, 1e-9)


def command(arguments: Sequence[str]) -> None:
    """`python -m bench staleness`."""
    parser = argparse.ArgumentParser(prog="python -m bench staleness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the run with slow learners (default 60)")
    parser.add_argument("--sleep", type=float, default=SLEEP, help=f"s added to an update (default {SLEEP})")
    parser.add_argument("--stop", type=float, default=20.0, help="s that a learner is stopped (default 20)")
    parser.add_argument("--around", type=float, default=20.0, help="s before it, and after it (default 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    found = runs.announce("staleness", arguments)
    first = slow(asked.seconds, asked.seed, asked.sleep)
    measured = first["measured"]
    rows: list[list[Any]] = [
        ["staleness predicted by check (versions)", float(first["predicted"])],
        ["staleness at use, median", float(measured["median"])],
        ["staleness at use, p95", float(measured["p95"])],
        ["agent steps/s", first["agent_steps_per_second"]],
    ]
    for role, (start, end) in first["rss_mib"].items():
        rows += [[f"{role} RSS after a quarter, MiB", start], [f"{role} RSS at the end, MiB", end]]
    print(runs.table((f"learners that sleep {asked.sleep:g} s an update", ""), rows) + "\n", flush=True)
    second = stopped(asked.around, asked.stop, asked.around, asked.seed)
    others = second["others"]
    base = max(others["before"], 1e-9)
    names = {
        "before": "before",
        "during": f"stopped, {asked.stop:g} s",
        "noticed": f"stopped, after {NOTICED:g} s",
        "after": "after",
    }
    rows = [[text, others[span], others[span] / base, second["rates"][span][STOPPED]] for span, text in names.items()]
    print(runs.table((f"{STOPPED} stopped", "versions/s of the others", "to before", "its own"), rows))
    print(f"restarted: {', '.join(second['restarted']) or 'none'}; exit status {second['status']}")
    runs.finish({**found, "slow": first, "stopped": second}, asked.json)
