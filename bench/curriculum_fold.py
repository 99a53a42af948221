"""What one outcome costs the curriculum, by the size of the pool: decoding its JSON and applying it, on one core.

Every outcome ends a draw of its own, as in a run, and the draws are facts that are decoded and applied too (64 tasks
each). Sizes take turns and the least of the rounds is shown, so that what else the machine does disturbs them alike.
The cost of what happens seldom (a snapshot, a section of the standings, an epoch's end) is shown apart: `held` is the
longest time in which the tracker does nothing else for a snapshot.

    python -m bench.curriculum_fold [--sizes 1000,10000,100000] [--rounds 3] [--outcomes 30000] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import machine
from broker.delivery import body_text
from tracker.curriculum import decisions
from tracker.curriculum.pool import Curriculum
from tracker.curriculum.report import section
from tracker.curriculum.settings import CurriculumSettings
from tracker.facts import Fact, decode
from tracker.leases import Request

ONE = "0" * 15 + "1" + "a" * 16
LABELS = 50
MINTED = 500
ASKED = 64


class Feed:
    """A pool of `size` tasks that each have had their samples, and facts as a run makes them."""

    def __init__(self, size: int, scorer: str) -> None:
        self.fold = Curriculum()
        self.position = self.request = 0
        self.chance = random.Random(5)
        settings = CurriculumSettings.model_validate({"capacity": size, "scorer": scorer})
        self.own(decisions.begin(self.fold, settings, 1, 0))
        for first in range(0, size, MINTED):
            tasks = [
                {"task": f"task-{number}", "label": f"label-{number % LABELS}", "body": {"level": number}}
                for number in range(first, min(size, first + MINTED))
            ]
            self.apply(self.fact("learner-p", "mint", body_text({"tasks": tasks})))
            self.own(decisions.decide(self.fold, 0).facts)
        for entry in list(self.fold.entries.values()):  # as after 20 outcomes, without waiting for two million of them
            for _ in range(20):
                score = float(self.chance.random() < (entry.slot % 97) / 97)
                entry.count += 1
                entry.total += score
                assert self.fold.scorer is not None
                entry.raw = self.fold.scorer.observe(entry, score)
            assert self.fold.urn is not None
            self.fold.urn.put(entry)

    def fact(self, source: str, kind: str, text: str) -> Fact:
        """A stored fact, its body decoded."""
        self.position += 1
        return Fact(self.position, source, ONE, self.position, 0, kind, decode(kind, text))

    def apply(self, fact: Fact) -> None:
        """To the fold."""
        self.fold.apply(fact)

    def own(self, facts: list[tuple[str, dict[str, Any]]]) -> None:
        """Facts of the tracker's."""
        for kind, body in facts:
            self.apply(self.fact("tracker", kind, body_text(body)))

    def outcomes(self, count: int) -> list[str]:
        """Draw `count` tasks by the curriculum, and give the bodies of their outcomes."""
        bodies = []
        for _ in range(count // ASKED):
            self.request += 1
            request = Request("actor-0", ONE, self.request, ASKED)
            facts = decisions.decide(self.fold, 0, [(request, ASKED)]).facts
            self.own(facts)
            for _, body in facts:
                for number, task in enumerate(body["tasks"], body["first"]):
                    score = self.chance.random()
                    bodies.append(body_text({"task": task, "score": score, "policy": "p", "draw": number}))
        return bodies

    def fold_all(self, bodies: list[str]) -> float:
        """Seconds that decoding and applying take."""
        apply, fold, place = Fact._make, self.fold.apply, self.position
        start = time.perf_counter()
        for number, text in enumerate(bodies, place + 1):
            fold(apply((number, "actor-0", ONE, number, 0, "outcome", decode("outcome", text))))
        spent = time.perf_counter() - start
        self.position = place + len(bodies)
        assert not self.fold.counts.refused
        return spent


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def part_lengths(fold: Curriculum) -> list[float]:
    """Seconds that each part of a snapshot takes as the tracker makes it, between which it goes on serving."""
    lengths = []
    parts = fold.parts()
    while True:
        start = time.perf_counter()
        part = next(parts, None)
        if part is None:
            return lengths
        json.dumps(part)
        lengths.append(time.perf_counter() - start)


def main(*, sizes: list[int], rounds: int, outcomes: int, scorer: str) -> dict[str, Any]:
    """Measure and print; the result for `--json`."""
    feeds = {size: Feed(size, scorer) for size in sizes}
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)  # as the tracker's process does
    least: dict[int, tuple[float, float]] = {}
    for _ in range(rounds):
        for size, feed in feeds.items():
            start = time.perf_counter()
            bodies = feed.outcomes(outcomes)
            drawing = (time.perf_counter() - start) / len(bodies)
            folding = feed.fold_all(bodies) / len(bodies)
            before = least.get(size, (drawing, folding))
            least[size] = min(before[0], drawing), min(before[1], folding)
    print(f"{scorer}; per outcome in µs, the least of {rounds} rounds")
    columns = f"{'section ms':>11} {'snapshot ms':>12} {'held ms':>8}"
    print(f"{'pool':>9} {'decode+fold':>12} {'outcomes/s':>11} {'draw':>7} {columns}")
    found: dict[str, Any] = {}
    for size, (drawing, folding) in least.items():
        fold = feeds[size].fold
        shown = seconds(lambda fold=fold: section(fold)) * 1e3  # type: ignore[misc]
        kept = seconds(lambda fold=fold: json.dumps(fold.snapshot())) * 1e3  # type: ignore[misc]
        held = max(part_lengths(fold)) * 1e3
        rate, dealing = 1 / folding, drawing * 1e6
        print(
            f"{size:>9,} {folding * 1e6:>12.2f} {rate:>11,.0f} {dealing:>7.2f} {shown:>11.2f} {kept:>12.0f} "
            f"{held:>8.1f}",
            flush=True,
        )
        found[str(size)] = {
            "fold_us": folding * 1e6,
            "draw_us": drawing * 1e6,
            "section_ms": shown,
            "snapshot_ms": kept,
            "held_ms": held,
        }
    return found


def command() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.curriculum_fold", description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outcomes", type=int, default=32_000)
    parser.add_argument("--scorers", default="learning_progress,replay")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": machine.describe()}
    print(machine.line(found["machine"]) + "\n")
    for scorer in asked.scorers.split(","):
        sizes = [int(size) for size in asked.sizes.split(",")]
        found[scorer] = main(sizes=sizes, rounds=asked.rounds, outcomes=asked.outcomes, scorer=scorer)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    command()
