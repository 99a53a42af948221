"""`spread`, three learners, beside the stepping of its environment alone and beside one process of independent PPO.

    stepping      two processes that step mpe2.simple_spread_v3 with random actions and do nothing else; also as an
                  actor steps it (`actors.environments.load`), which may leave out what the package's own form does
    headrace      `headrace run spread`: agent steps/s once it is under way, staleness, proportional memory of all its
                  processes; then `headrace evaluate`, sampled and greedy
    independent   `python -m bench.independent_ppo`: the same settings in one process, without Headrace

Invariant: stepping is measured before the first run and after the last, in the same call, and the ratio is taken to the
higher of the two; a run's rate leaves out its first tenth and is a quotient of facts, not of what was printed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import runs
from bench.children import ROOT, Children, options, result

PROCESSES = 2
STEPPING_SECONDS = 10.0
SLACK = 120.0

Trial = dict[str, Any]


def stepping(seconds: float, *, ours: bool = False) -> float:
    """Agent steps/s of two processes that only step: the package's own form, or as our actors have it."""
    with Children() as children:
        asked = {"seconds": seconds, "ours": ours}
        started = [children.start("bench.spread", seed=seed, **asked) for seed in range(PROCESSES)]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it is ready
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return sum(float(result(process, seconds + SLACK)) for process in started)


def step_alone(seed: int, seconds: float, *, ours: bool) -> None:
    """In a process of its own: as many steps as there are in the time; prints agent steps/s."""
    from mpe2 import simple_spread_v3

    environment = simple_spread_v3.parallel_env(N=3, max_cycles=25)
    if ours:
        from actors.environments.load import builder
        from actors.environments.settings import EnvironmentSettings

        environment = builder(EnvironmentSettings(id="mpe2:simple_spread_v3", settings={"max_cycles": 25}))(0)
    environment.reset(seed=seed)
    agents = list(environment.possible_agents)
    draw = random.Random(seed)
    # Drawn before, as Python's own integers: nothing is left in the loop but the environment.
    actions = [{agent: draw.randrange(5) for agent in agents} for _ in range(10_000)]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    steps = 0
    while time.perf_counter() - began < seconds:
        for chosen in actions[steps % 10_000 : steps % 10_000 + 25]:
            environment.step(chosen)
        environment.reset()
        steps += 25
    print(steps * len(agents) / (time.perf_counter() - began), flush=True)


def headrace(seed: int, seconds: float, episodes: int, more: Sequence[str]) -> Trial:
    """One run of `spread`, and what its policies are worth."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        run_dir = folder / "run"
        asked: list[str | Path] = ["--seed", str(seed), "--seconds", f"{seconds:g}", "--run-dir", run_dir]
        line = runs.headrace("run", "spread", "--headless", *asked, *more)
        with (
            runs.Command(line, folder) as command,
            runs.Memory(command.process.pid, every=min(5.0, seconds / 5)) as memory,
        ):
            command.wait(seconds + SLACK)
        skip = seconds / 10
        env, agent = runs.step_rates(run_dir, skip)
        running, _ = runs.phase_time(run_dir, "running")
        worth = {}
        for way, options_ in (("sampled", []), ("greedy", ["--deterministic"])):
            line = runs.headrace("evaluate", run_dir, "--episodes", str(episodes), "--json", *options_)
            with runs.Command(line, folder, **runs.ONE_THREAD) as evaluation:
                evaluation.wait(SLACK + episodes)
                worth[way] = evaluation.last_json()
        return {
            "seed": seed,
            "agent_steps_per_second": agent,
            "env_steps_per_second": env,
            "staleness": runs.staleness(run_dir, running + skip),
            "memory_mib": memory.peak,
            "returns": {way: told["return_mean"] for way, told in worth.items()},
            "evaluations": worth,
        }


def independent(seed: int, seconds: float, episodes: int) -> Trial:
    """The same task in one process."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        line = [sys.executable, "-m", "bench.independent_ppo", "--seconds", f"{seconds:g}", "--seed", str(seed)]
        line += ["--episodes", str(episodes)]
        with runs.Command(line, Path(name), PYTHONPATH=str(ROOT), **runs.ONE_THREAD) as command:
            command.wait(seconds + SLACK + episodes)
            told = command.last_json()
        return {**told, "returns": {way: told[f"return_{way}"] for way in ("sampled", "greedy")}}


def command(arguments: Sequence[str]) -> None:
    """`python -m bench spread`."""
    parser = argparse.ArgumentParser(prog="python -m bench spread", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to this (default 3)")
    parser.add_argument("--seconds", type=float, default=180.0, help="of training (default 180)")
    parser.add_argument("--episodes", type=int, default=1000, help="of evaluation (default 1000)")
    parser.add_argument("--no-independent", action="store_true", help="leave out the process beside it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="given on to headrace run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    found = runs.announce("spread", arguments)
    more = [part for setting in asked.set for part in ("--set", setting)]
    alone_for = min(STEPPING_SECONDS, asked.seconds)
    alone = [stepping(alone_for)]
    print(f"stepping alone: {alone[0]:,.0f} agent steps/s", flush=True)
    ours: list[Trial] = []
    theirs: list[Trial] = []
    for seed in range(1, asked.seeds + 1):
        trial = headrace(seed, asked.seconds, asked.episodes, more)
        ours.append(trial)
        print(f"seed {seed}  headrace: {_line(trial)}", flush=True)
        if not asked.no_independent:
            trial = independent(seed, asked.seconds, asked.episodes)
            theirs.append(trial)
            print(f"seed {seed}  independent: {_line(trial)}", flush=True)
    alone.append(stepping(alone_for))
    as_ours = stepping(alone_for, ours=True)
    print(f"stepping alone, after: {alone[1]:,.0f} agent steps/s, as an actor steps it: {as_ours:,.0f}\n")
    limit = max(alone)
    head = ("(medians)", "agent steps/s", "of stepping", "sampled", "greedy", "stale median", "p95", "memory MiB")
    rows: list[list[Any]] = [
        ["stepping, 2 processes", limit, 1.0, *[""] * 5],
        ["stepping, as an actor does", as_ours, as_ours / limit, *[""] * 5],
    ]
    rows += [_row(name, given, limit) for name, given in (("headrace", ours), ("independent", theirs)) if given]
    print(runs.table(head, rows))
    if theirs:
        ratio = _median(ours, "agent_steps_per_second") / _median(theirs, "agent_steps_per_second")
        print(f"headrace / independent: {ratio:.2f} times its agent steps/s")
    runs.finish(
        {**found, "stepping": alone, "stepping_as_actors": as_ours, "headrace": ours, "independent": theirs}, asked.json
    )


def _line(trial: Trial) -> str:
    returns = ", ".join(f"{way} {value:.2f}" for way, value in trial["returns"].items())
    return f"{trial['agent_steps_per_second']:,.0f} agent steps/s, return {returns}"


def _median(trials: Sequence[Trial], key: str) -> float:
    return runs.median(trial[key] for trial in trials)


def _row(name: str, trials: Sequence[Trial], limit: float) -> list[Any]:
    rate = _median(trials, "agent_steps_per_second")
    returns = [runs.median(trial["returns"][way] for trial in trials) for way in ("sampled", "greedy")]
    if "staleness" not in trials[0]:
        return [name, rate, rate / limit, *returns, "", "", ""]
    stale = [runs.median(trial["staleness"][which] for trial in trials) for which in ("median", "p95")]
    return [name, rate, rate / limit, *returns, *stale, _median(trials, "memory_mib")]


if __name__ == "__main__":
    told = options()
    step_alone(told["seed"], told["seconds"], ours=told["ours"])
