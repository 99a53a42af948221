"""Prompt optimisation against a scripted endpoint that takes 200 ms: how busy it is kept, how long a whole one takes.

`busy` is counted by the endpoint: the integral of its requests under way (at most the limit at any time) over the time
in which more tasks were minted and without outcome than the limit, by the ledger. `whole` is the run file `qa` at its
default sizes, from the first request to the last answer, beside the same completions candidate by candidate
(`bench.prompt_one_by_one`). `rewards` is 16 runners and 100,000 rewards (`bench.prompt_rewards`).

    python -m bench prompts [--parts busy,whole,rewards] [--rounds 3] [--seed 7] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import prompt_rewards, runs
from bench.children import Children, result
from launcher.reading import load

LIMIT = 64
LATENCY = 0.2
WIDE = ("learner.settings.validation_batch=48", "learner.settings.branch=12", "learner.settings.rounds=2")
"""`busy`: sizes with which there is more work than the limit for most of the time."""
FAULTS = {"rate_429": 0.02, "rate_500": 0.01}
"""As the run file `qa` has them."""
PARTS = ("busy", "whole", "rewards")
Times = list[tuple[float, float]]


class Endpoint:
    """One endpoint: its URL, and when it has ended the times of its requests."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.url: str = json.loads(process.stdout.readline())["url"]

    def end(self) -> tuple[Times, dict[str, int]]:
        """(came, went) of each request, and the endpoint's own counts."""
        found = result(self.process, 20)
        return [(came, went) for came, went in found["times"]], found["counts"]


@contextmanager
def endpoint(seed: int, **settings: float) -> Iterator[Endpoint]:
    """A simulation with the latency of the measurement."""
    with Children() as children:
        settings = {"latency_seconds": LATENCY, **settings}
        yield Endpoint(children.start("bench.prompt_endpoint", settings=settings, seed=seed))


def optimise(url: str, seed: int, folder: Path, *more: str) -> tuple[Path, float]:
    """`headrace run qa` against this endpoint: its directory, and how long the command took."""
    settings = (f"endpoints.answer.url={url}", f"endpoints.answer.concurrency={LIMIT}", *more)
    asked = [part for setting in settings for part in ("--set", setting)]
    run_dir = folder / "run"
    with runs.Command(
        runs.headrace("run", "qa", "--headless", "--seed", str(seed), "--run-dir", run_dir, *asked), folder
    ) as command:
        command.wait(240)
    return run_dir, command.seconds


# --- busy --------------------------------------------------------------------------------------------------------


def open_tasks(run_dir: Path) -> list[tuple[float, int]]:
    """(time, change) of the tasks that are minted and have no outcome yet, in the order of time."""
    changes = [(fact.time, len(fact.body["tasks"])) for fact in runs.facts(run_dir, "mint")]
    changes += [(fact.time, -1) for fact in runs.facts(run_dir, "outcome")]
    return sorted(changes)


def busy(open_: Sequence[tuple[float, int]], times: Times, limit: int) -> tuple[float, float]:
    """Share of `limit` that was under way while more than `limit` tasks were open, and for how long (s) that was."""
    events = [(at, change, 0) for at, change in open_]
    events += [(came, 0, 1) for came, _ in times] + [(went, 0, -1) for _, went in times]
    tasks = under_way = 0
    used = length = before = 0.0
    for at, task, request in sorted(events):
        if tasks > limit:
            used += min(under_way, limit) * (at - before)
            length += at - before
        tasks, under_way, before = tasks + task, under_way + request, at
    return used / (limit * length) if length else 0.0, length


def measure_busy(seed: int, *more: str) -> dict[str, Any]:
    """One run, whose endpoint makes no faults."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name, endpoint(seed) as served:
        run_dir, _ = optimise(served.url, seed, Path(name), *more)
        times, counts = served.end()
        share, length = busy(open_tasks(run_dir), times, LIMIT)
    return {"share": share, "seconds": length, "requests": counts["requests"], "high_water": counts["high_water"]}


# --- whole -------------------------------------------------------------------------------------------------------


def measure_whole(seed: int) -> dict[str, Any]:
    """The run, and the same candidate by candidate."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        with endpoint(seed, **FAULTS) as served:
            run_dir, command = optimise(served.url, seed, Path(name))
            times, counts = served.end()
        last = [fact.body for fact in runs.facts(run_dir, "round")][-1]
        found: dict[str, Any] = {
            "seconds": max(went for _, went in times) - min(came for came, _ in times),
            "command_seconds": command,
            "requests": counts["requests"],
            "best": last["best"],
        }
        run = load(run_dir / "run.toml").to_plain()
    run["actors"]["processes"] = 1
    with endpoint(seed, **FAULTS) as served, Children() as children:
        run["endpoints"]["answer"]["url"] = served.url
        asked = {"run": run, "seed": seed, "at_once": LIMIT}
        found["one_by_one"] = result(children.start("bench.prompt_one_by_one", **asked), 400)
        found["one_by_one"]["requests"] = served.end()[1]["requests"]
    return found


# --- the command -------------------------------------------------------------------------------------------------


def command(arguments: Sequence[str]) -> None:
    """`python -m bench prompts`."""
    parser = argparse.ArgumentParser(prog="python -m bench prompts", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas between (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="seeds of `busy` and `whole` (default 3)")
    parser.add_argument("--seed", type=int, default=7, help="the first of them (default 7)")
    parser.add_argument("--rewards", type=int, default=100_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    found, parts = runs.announce("prompts", arguments), asked.parts.split(",")
    seeds = range(asked.seed, asked.seed + asked.rounds)
    if "busy" in parts:
        rows = []
        for name, more in (("default sizes", ()), ("wide", WIDE)):
            trials = found.setdefault("busy", {})[name] = [measure_busy(seed, *more) for seed in seeds]
            each = " ".join(f"{trial['share']:.3f}" for trial in trials)
            lengths = runs.median(trial["seconds"] for trial in trials)
            rows.append([name, runs.median(trial["share"] for trial in trials), each, lengths])
        print(runs.table((f"share of {LIMIT} kept busy", "median", "each", "s with work for more"), rows), flush=True)
        runs.finish(found, asked.json)
    if "whole" in parts:
        trials = found["whole"] = [measure_whole(seed) for seed in seeds]
        rows = []
        for seed, trial in zip(seeds, trials, strict=True):
            other = trial["one_by_one"]
            told = "the same best" if other["best"] == trial["best"] else "ANOTHER best"
            rows.append([f"seed {seed}", trial["seconds"], trial["command_seconds"], trial["requests"]])
            rows[-1] += [other["seconds"], other["requests"], other["seconds"] / trial["seconds"], told]
        head = ("whole optimisation", "s", "s, the command", "requests", "s one by one", "requests", "ratio", "")
        print(runs.table(head, rows), flush=True)
        runs.finish(found, asked.json)
    if "rewards" in parts:
        found["rewards"] = prompt_rewards.measure(asked.rewards)
        print(prompt_rewards.told(found["rewards"]), flush=True)
        runs.finish(found, asked.json)
