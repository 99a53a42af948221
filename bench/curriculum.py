"""The shipped run `curriculum` with scorer=learning_progress beside scorer=uniform: env steps to a threshold.

Both arms are the same run file, draw from the same 200 frozen lakes (40 open, of graded difficulty, and 160 closed ones
that nobody can cross), and differ in `curriculum.scorer` alone. What is measured is not what a curriculum happens to
draw: every few seconds' checkpoint is kept, and after the run each plays episodes on every open lake (as many for all
checkpoints, seeds and arms; every lake weighs alike). The figure is the share of those episodes that reach the goal;
the threshold is a level of it, and the env steps are those that the ledger has before the update that made the
checkpoint's version. The arms take turns, seed by seed.

Invariant: every seed that was run is told. A run that never reaches the threshold is told as `never`, and counts in
means as the steps of the whole run: a lower bound.

    python -m bench curriculum [--seeds 5] [--first 11] [--steps 400000] [--threshold 0.6] [--plot FILE] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench import runs
from runs.lakes import Lake

ARMS = ("learning_progress", "uniform")
EPISODES = 10
"""Of each level, for each checkpoint."""
LIMIT = 1800.0

Curve = list[tuple[int, float]]
"""(env steps, share of the evaluation's episodes that reached the goal)"""


def learnable() -> list[tuple[str, dict[str, Any]]]:
    """Label and constructor's arguments of each open lake."""
    return [(label, body["settings"]) for label, body in Lake.levels() if not body["settings"]["closed"]]


class Keeper(threading.Thread):
    """Keeps every checkpoint of a run while it lasts: the tracker's store drops all but the newest."""

    def __init__(self, found: Path, kept: Path) -> None:
        super().__init__(daemon=True)
        self._found, self._kept, self._over = found, kept, threading.Event()
        kept.mkdir()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._over.wait(0.1):
            self.look()

    def look(self) -> None:
        """Keep what is new. A file stands under its name only when it is whole."""
        for path in self._found.glob("*.checkpoint"):
            with suppress(FileExistsError, FileNotFoundError):
                os.link(path, self._kept / path.name)

    def close(self) -> None:
        """Look once more."""
        self._over.set()
        self.join()
        self.look()


class Examination:
    """The fixed episodes that every checkpoint plays."""

    def __init__(self, run_dir: Path) -> None:
        import torch

        from actors.environments.load import make
        from actors.environments.settings import EnvironmentSettings
        from launcher.loading import load

        torch.set_num_threads(1)
        self._run = load(run_dir)
        environment = self._run.plan.run.environment
        assert environment is not None
        self._policy = self._run.policy("agent", seed=1).acting
        self._levels = [
            make(EnvironmentSettings(id=environment.id, settings={**environment.settings, **settings}), EPISODES, 99)
            for _, settings in learnable()
        ]

    def shares(self, checkpoint: Path) -> tuple[tuple[int, int], list[float]]:
        """The checkpoint's version, and for each level the share of its episodes that reached the goal."""
        from actors.playing import play
        from broker.arrays import from_bytes

        tree = from_bytes(checkpoint.read_bytes())
        self._policy.load(tree["parameters"])
        shares = []
        for level in self._levels:
            episodes = play(level, {"agent": self._policy}, {"agent": "agent"}, EPISODES)
            shares.append(sum(episode.returns["agent"] > 0 for episode in episodes) / len(episodes))
        life, number = tree["version"]
        return (life, number), shares

    def close(self) -> None:
        """Let the environments go."""
        for level in self._levels:
            level.close()


def measure(arm: str, seed: int, steps: int, every: float, more: Sequence[str] = ()) -> dict[str, Any]:
    """One run of one arm, and the examination of its checkpoints."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        run_dir = folder / "run"
        settings = {
            "curriculum.scorer": arm,
            "stop.seconds": "",
            "stop.env_steps": steps,
            "learner.checkpoint_seconds": every,
        }
        asked = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        asked += [part for setting in more for part in ("--set", setting)]
        line = runs.headrace("run", "curriculum", "--headless", "--seed", str(seed), "--run-dir", run_dir, *asked)
        keeper = Keeper(run_dir / "checkpoints", folder / "kept")
        keeper.start()
        with runs.Command(line, folder) as command:
            command.wait(LIMIT)
        keeper.close()
        at = steps_at_versions(run_dir)
        examination = Examination(run_dir)
        curve: Curve = []
        last: list[float] = []
        try:
            found = [examination.shares(path) for path in (folder / "kept").iterdir()]
        finally:
            examination.close()
        for version, shares in sorted(found):
            curve.append((at.get(version, 0), sum(shares) / len(shares)))
            last = shares
        draws = [fact.body for fact in runs.facts(run_dir, "outcome")]
        return {
            "arm": arm,
            "seed": seed,
            "env_steps": runs.env_steps(run_dir),
            "seconds": command.seconds,
            "curve": curve,
            "levels": last,
            "outcomes": len(draws),
            "draws": Counter(body["label"] for body in draws),
        }


def steps_at_versions(run_dir: Path) -> dict[tuple[int, int], int]:
    """Env steps that were counted before the update that made each version."""
    steps, found = 0, {}
    for fact in runs.facts(run_dir, "progress", "update"):
        if fact.kind == "progress":
            steps += int(fact.body["env_steps"])
        else:
            life, number = fact.body["version"]
            found[life, number] = steps
    return found


def reached(curve: Curve, threshold: float) -> int | None:
    """Env steps of the first checkpoint at the threshold from which on the next is not below it either; None: never."""
    for (steps, share), following in zip(curve, [*curve[1:], curve[-1]], strict=True):
        if share >= threshold and following[1] >= threshold:
            return steps
    return None


def area(curve: Curve, steps: int) -> float:
    """The mean share over the run's env steps."""
    grid = np.linspace(0, steps, 201)
    return float(np.interp(grid, [0, *(at for at, _ in curve)], [0.0, *(share for _, share in curve)]).mean())


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the 95% interval of it, by resampling (percentiles of 10,000 means, seed 0)."""
    array = np.asarray(values, float)
    means = np.random.default_rng(0).choice(array, (10_000, len(array))).mean(axis=1)
    return float(array.mean()), *map(float, np.percentile(means, [2.5, 97.5]))  # type: ignore[return-value]


def told(values: Sequence[float], scale: float = 1.0, digits: int = 0) -> str:
    """`mean [low, high]`."""
    mean, low, high = (value / scale for value in interval(values))
    return f"{mean:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def command(arguments: Sequence[str]) -> None:
    """`python -m bench curriculum`."""
    parser = argparse.ArgumentParser(prog="python -m bench curriculum", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (default 5)")
    parser.add_argument("--first", type=int, default=11, help="the first seed (default 11)")
    parser.add_argument("--steps", type=int, default=400_000, help="env steps of each run (default 400,000)")
    parser.add_argument("--threshold", type=float, default=0.6, help="share of episodes at the goal (default 0.6)")
    parser.add_argument("--every", type=float, default=3.0, help="s between checkpoints (default 3)")
    parser.add_argument("--with", dest="files", nargs="+", type=Path, default=[], metavar="FILE", help="tell these too")
    parser.add_argument("--arms", default=",".join(ARMS), help="scorers, with commas between (default: both)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for every arm; may be repeated"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the curves there (PNG or SVG; needs matplotlib)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args(arguments)
    arms = asked.arms.split(",")
    found = runs.announce("curriculum", arguments)
    trials = [trial for file in asked.files for trial in json.loads(file.read_text())["trials"]]
    for trial in trials:  # measured before, perhaps with another threshold
        trial["reached"], trial["area"] = reached(trial["curve"], asked.threshold), area(trial["curve"], asked.steps)
    for seed in range(asked.first, asked.first + asked.seeds):
        for arm in arms:
            trial = measure(arm, seed, asked.steps, asked.every, asked.set)
            trial["reached"] = reached(trial["curve"], asked.threshold)
            trial["area"] = area(trial["curve"], asked.steps)
            trials.append(trial)
            steps = "never" if trial["reached"] is None else f"{trial['reached']:,}"
            last = trial["curve"][-1][1]
            print(
                f"seed {seed}  {arm}: {steps} env steps to {asked.threshold:g}, {last:.2f} at the end,"
                f" {trial['seconds']:.0f} s",
                flush=True,
            )
            runs.finish({**found, "trials": trials}, asked.json)  # what was measured is kept if the next is cut short
    runs.finish({**found, "trials": trials}, asked.json)
    rows = []
    for arm in arms:
        mine = [trial for trial in trials if trial["arm"] == arm]
        steps = [trial["reached"] for trial in mine]
        counted = [asked.steps if value is None else value for value in steps]
        rows.append(
            [
                arm,
                ("≥ " if None in steps else "") + told(counted),
                " ".join("never" if value is None else f"{value / 1000:.0f}k" for value in steps),
                told([trial["area"] for trial in mine], digits=2),
                told([trial["curve"][-1][1] for trial in mine], digits=2),
            ]
        )
    head = ("mean [95%]", f"env steps to {asked.threshold:g}", "by seed", "mean share over the run", "at the end")
    print("\n" + runs.table(head, rows))
    if arms == list(ARMS):
        ratios = [
            math.log((uniform["reached"] or asked.steps) / (ours["reached"] or asked.steps))
            for ours, uniform in zip(trials[::2], trials[1::2], strict=True)
        ]
        mean, low, high = (math.exp(value) for value in interval(ratios))
        print(f"uniform / learning_progress, geometric mean: {mean:.2f} [{low:.2f}, {high:.2f}] times the env steps")
    if asked.plot is not None:
        from bench.curriculum_plot import plot

        plot(trials, arms, asked.steps, asked.threshold, asked.plot)
