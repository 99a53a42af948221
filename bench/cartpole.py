"""CartPole-v1 until the mean return over 100 episodes is 475, beside peers that run in interpreters of their own.

    headrace      the shipped run: Gymnasium's vector form of the environment
    headrace, single environments      the same with `--set actors.vector=false`, as peers step them
    stable-baselines3, sample-factory      `bench/peers/`, each with its own tuned settings (`--sb3-python`,
                  `--sf-python` name the interpreters; a peer whose interpreter is not named is left out)

Invariant: every time counts from the launch of a command in a fresh process, whatever it imports; all sides take turns,
seed by seed, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import runs

CAP = 120.0
PEERS = Path(__file__).parent / "peers"
REACHED = "mean return"
"""In the reason of the phase `stopping`, when it was the return that ended the run."""

Trial = dict[str, Any]


def headrace(seed: int, *more: str) -> Trial:
    """One run: seconds from the launch to the threshold (None if it was not reached) and to the exit."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        run_dir = folder / "run"
        line = runs.headrace("run", "cartpole", "--headless", "--seed", str(seed), "--run-dir", run_dir, *more)
        with runs.Command(line, folder) as command:
            command.wait(CAP + 60)
        stopped, reason = runs.phase_time(run_dir, "stopping")
        rate, _ = runs.step_rates(run_dir)
        return {
            "seed": seed,
            "solved_seconds": stopped - command.began if REACHED in reason else None,
            "exit_seconds": command.seconds,
            "running_seconds": runs.phase_time(run_dir, "running")[0] - command.began,
            "env_steps": runs.env_steps(run_dir),
            "env_steps_per_second": rate,
            "staleness": runs.staleness(run_dir),
        }


def peer(script: str, python: Path, seed: int) -> Trial:
    """The same of a peer's script."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        line = [str(python), str(PEERS / script), "--seed", str(seed), "--cap", str(CAP)]
        if script.startswith("sample_factory"):
            line += ["--folder", str(folder / "train")]
        with runs.Command(line, folder, **runs.ONE_THREAD) as command:
            command.wait(CAP + 120)
            told = command.last_json()
        return {
            "seed": seed,
            "solved_seconds": None if told["solved_at"] is None else told["solved_at"] - command.began,
            "exit_seconds": command.seconds,
            "env_steps": told["env_steps"],
            "env_steps_per_second": told["env_steps_per_second"],
        }


def row(name: str, trials: Sequence[Trial]) -> list[Any]:
    """One line of the table."""
    solved = [trial["solved_seconds"] for trial in trials]
    return [
        name,
        runs.median(solved),
        runs.median(trial["exit_seconds"] for trial in trials),
        int(runs.median(trial["env_steps"] for trial in trials)),
        runs.median(trial["env_steps_per_second"] for trial in trials),
        " ".join("never" if seconds is None else f"{seconds:.1f}" for seconds in solved),
    ]


def command(arguments: Sequence[str]) -> None:
    """`python -m bench cartpole`."""
    parser = argparse.ArgumentParser(prog="python -m bench cartpole", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to this, of Headrace (default 5)")
    parser.add_argument("--peer-seeds", type=int, default=3, help="seeds 1 to this, of peers (default 3)")
    parser.add_argument("--sb3-python", type=Path, metavar="PATH", help="an interpreter with stable-baselines3")
    parser.add_argument("--sf-python", type=Path, metavar="PATH", help="an interpreter with sample-factory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    found = runs.announce("cartpole", arguments)
    sides: dict[str, tuple[int, Callable[[int], Trial]]] = {
        "headrace": (asked.seeds, headrace),
        "headrace, single environments": (asked.seeds, lambda seed: headrace(seed, "--set", "actors.vector=false")),
    }
    if asked.sb3_python is not None:
        sides["stable-baselines3"] = (
            asked.peer_seeds,
            lambda seed: peer("sb3_cartpole.py", asked.sb3_python.absolute(), seed),
        )
    if asked.sf_python is not None:
        sides["sample-factory"] = (
            asked.peer_seeds,
            lambda seed: peer("sample_factory_cartpole.py", asked.sf_python.absolute(), seed),
        )
    trials: dict[str, list[Trial]] = {name: [] for name in sides}
    for seed in range(1, max(count for count, _ in sides.values()) + 1):
        for name, (count, measure) in sides.items():
            if seed > count:
                continue
            trial = measure(seed)
            trials[name].append(trial)
            solved = "never" if trial["solved_seconds"] is None else f"{trial['solved_seconds']:.1f} s"
            print(f"seed {seed}  {name}: {solved}, {trial['env_steps_per_second']:,.0f} env steps/s", flush=True)
    head = ("(medians)", "s to 475", "s to exit", "env steps", "env steps/s", "s to 475 by seed")
    print("\n" + runs.table(head, [row(name, given) for name, given in trials.items() if given]))
    ours = trials["headrace"]
    for name, theirs in trials.items():
        if theirs and not name.startswith("headrace"):
            speed, time = _ratio(ours, theirs, "env_steps_per_second"), _ratio(ours, theirs, "solved_seconds")
            print(f"headrace / {name}: {speed:.1f} times its env steps/s, {time:.2f} of its time")
    runs.finish({**found, "trials": trials}, asked.json)


def _ratio(ours: Sequence[Trial], theirs: Sequence[Trial], key: str) -> float:
    return runs.median(trial[key] for trial in ours) / runs.median(trial[key] for trial in theirs)
