"""What one draw costs, by the size of the pool, for each scorer; with as many changes of a score between draws.

Scores are spread as learning progress is: most near zero, a few high. Shares are the defaults (ε 0.1, κ 0.2), a tenth
of the tasks has too few samples. Sizes take turns, and the least of the rounds is shown.

    python -m bench.curriculum_draw [--sizes 1000,10000,100000,1000000] [--rounds 3] [--draws 20000] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from pathlib import Path
from typing import Any

from bench import machine
from tracker.curriculum.dice import Dice
from tracker.curriculum.drawing import Urn
from tracker.curriculum.entry import Entry
from tracker.curriculum.settings import CurriculumSettings

SCORERS = ("learning_progress", "replay", "uniform")


def filled(size: int, scorer: str) -> tuple[Urn, list[Entry]]:
    """An urn of so many tasks."""
    chance = random.Random(1)
    urn = Urn(CurriculumSettings.model_validate({"scorer": scorer, "capacity": size}))
    entries = []
    for slot in range(size):
        entry = Entry(f"t{slot}", slot, slot, "l", None, "{}", 1, count=0 if slot % 10 == 0 else 30)
        entry.raw = chance.random() ** 6 if slot % 3 else 0.0
        entry.drawn_at = chance.randrange(1000)
        urn.put(entry)
        entries.append(entry)
    return urn, entries


def measure(urn: Urn, entries: list[Entry], draws: int) -> tuple[float, float]:
    """Seconds a draw, and seconds a change of a score."""
    dice, chance = Dice(7), random.Random(2)
    start = time.perf_counter()
    for number in range(draws):
        urn.draw(dice, 1000 + number)
    middle = time.perf_counter()
    changes = [(entries[chance.randrange(len(entries))], chance.random() ** 6) for _ in range(draws)]
    begun = time.perf_counter()
    for entry, raw in changes:
        entry.raw = raw
        urn.put(entry)
    return (middle - start) / draws, (time.perf_counter() - begun) / draws


def main(*, sizes: list[int], rounds: int, draws: int) -> dict[str, Any]:
    """Measure and print; the result for `--json`."""
    print(f"µs a draw (and a change of a score), the least of {rounds} rounds")
    print(f"{'pool':>11}" + "".join(f"{scorer:>28}" for scorer in SCORERS))
    found: dict[str, Any] = {}
    for size in sizes:
        row = found[str(size)] = {}
        for scorer in SCORERS:
            urn, entries = filled(size, scorer)
            gc.collect()
            trials = [measure(urn, entries, draws) for _ in range(rounds)]
            row[scorer] = {"draw_us": min(t[0] for t in trials) * 1e6, "change_us": min(t[1] for t in trials) * 1e6}
        figures = (f"{row[scorer]['draw_us']:.2f} ({row[scorer]['change_us']:.2f})" for scorer in SCORERS)
        print(f"{size:>11,}" + "".join(f"{figure:>28}" for figure in figures), flush=True)
    return found


def command() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.curriculum_draw", description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    about = machine.describe()
    print(machine.line(about) + "\n")
    sizes = [int(size) for size in asked.sizes.split(",")]
    found = {"machine": about, "draw": main(sizes=sizes, rounds=asked.rounds, draws=asked.draws)}
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    command()
