"""Draws what `bench.curriculum` measured: the share of evaluation episodes at the goal over env steps, for each arm.

Needs matplotlib (the extra `plot`). From a file of figures:

    python -m bench.curriculum_plot FIGURES.json OUT.svg

Invariant: every run that was measured is drawn, as a thin line; the bold line is the mean over seeds, the band the
range.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#1f6f8b", "#c8553d", "#7a8b1f", "#5b4b8a")


def plot(trials: list[dict[str, Any]], arms: Sequence[str], steps: int, threshold: float, out: Path) -> None:
    """Write the picture; the suffix says its form."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "headrace"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.0))
    grid = np.linspace(0, steps, 201)
    for arm, colour in zip(arms, COLOURS, strict=False):
        curves = []
        for trial in trials:
            if trial["arm"] == arm:
                at = [0, *(point[0] for point in trial["curve"])]
                share = [0.0, *(point[1] for point in trial["curve"])]
                curves.append(np.interp(grid, at, share))
                axes.plot(at, share, color=colour, alpha=0.3, linewidth=0.8)
        stacked = np.asarray(curves)
        axes.fill_between(grid, stacked.min(axis=0), stacked.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        axes.plot(grid, stacked.mean(axis=0), color=colour, linewidth=2.2, label=f"{arm}, {len(curves)} seeds")
    axes.axhline(threshold, color="0.4", linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, steps), ylim=(0, 1), xlabel="env steps", ylabel="episodes at the goal, 40 open lakes")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=150, metadata={"Date": None} if out.suffix == ".svg" else None)
    plt.close(figure)


def main() -> None:
    """The command line."""
    figures = json.loads(Path(sys.argv[1]).read_text())
    trials = figures["trials"]
    arms = list(dict.fromkeys(trial["arm"] for trial in trials))
    asked = figures["command"].split()
    steps = int(asked[asked.index("--steps") + 1]) if "--steps" in asked else 400_000
    threshold = float(asked[asked.index("--threshold") + 1]) if "--threshold" in asked else 0.6
    plot(trials, arms, steps, threshold, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
