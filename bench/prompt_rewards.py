"""16 runners, 100,000 rewards: a whole run with a rollout that takes no time, and its ledger read through.

Everything is as in any run (launcher, nursery, tracker, learner, 16 actors with `TaskLoop`), but the rollout, which
calls nobody, and the algorithm, which asks for every reward at once and notes what it is brought.

Invariant: a figure is told only if every reward is in the ledger once, was brought to the learner once, and is counted
in the summary.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.rollout import LeasedTask, Outcome, RolloutContext
from actors.scoring.template import identity
from bench import runs
from bench.children import ROOT
from learners.algorithm import AlgorithmContext, Fragment, Task

RUNNERS = 16
TEMPLATES = 20
LIMIT = 900.0
RUN = """
name = "rewards"
folder = "{root}"
[actors]
processes = {runners}
concurrency = 8
rollout = "bench.prompt_rewards:Quick"
[policies]
names = ["answerer"]
[learner]
algorithm = "bench.prompt_rewards:Asking"
window = 64
max_staleness = 1_000_000
[learner.settings]
rewards = {rewards}
"""


def text_of(number: int) -> str:
    """A template."""
    return f"Answer the question, and think {number} times. {{question}}"


class Asking:
    """Asks for all rewards at once, and ends when each was brought. One that is brought twice is refused, and told."""

    def __init__(self, context: AlgorithmContext) -> None:
        self._policy, self._rewards = context.policy, int(context.settings["rewards"])
        self._asked = False
        self._brought: set[str] = set()
        self._texts = {identity(text_of(number)): text_of(number) for number in range(TEMPLATES)}
        self._facts: list[tuple[str, dict[str, Any]]] = [
            ("template", self._told(name, place)) for place, name in enumerate(self._texts)
        ]

    def _told(self, name: str, place: int) -> dict[str, Any]:
        parent = None if place == 0 else next(iter(self._texts))
        lineage = {"parent": parent, "critique": "", "round": int(place > 0), "candidate": place}
        own = {"template": name, "text": self._texts[name], "placeholders": ["question"]}
        return {"policy": self._policy, **own, **lineage}

    def accept(self, fragment: Fragment) -> None:
        """Note it."""
        assert fragment.task is not None
        if fragment.task in self._brought:
            raise ValueError("it was brought twice")
        self._brought.add(fragment.task)

    def ready(self) -> bool:
        """Nothing is learned."""
        return False

    def update(self) -> Mapping[str, float]:
        """Never."""
        return {}

    def mint(self) -> Sequence[Task]:
        """All, once."""
        if self._asked:
            return ()
        self._asked = True
        names, tasks = list(self._texts), []
        for number in range(self._rewards):
            place, item = number % TEMPLATES, number // TEMPLATES
            own = {"template": names[place], "item": item, "split": "validation", "attempt": 1}
            tasks.append(Task(f"answer/{names[place]}/validation/{item}/1", {"do": "answer", **own}))
        return tasks

    def facts(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """The templates, once."""
        told, self._facts = self._facts, []
        return told

    def finished(self) -> str | None:
        """When every reward was brought."""
        return "every reward was brought" if len(self._brought) == self._rewards else None

    def parameters(self) -> Any:
        """The templates."""
        return {"templates": dict(self._texts)}

    def snapshot(self) -> Any:
        """Nothing."""
        return {}

    def restore(self, tree: Any) -> None:
        """Nothing."""


class Quick:
    """A reward of no work."""

    def __init__(self, context: RolloutContext) -> None:
        self._runner = context.actor

    async def run(self, task: LeasedTask, parameters: Any) -> Outcome:
        """A reward that follows from the item."""
        reward = float(task.body["item"] % 4 > 0)
        usage = {"endpoint": "answer", "calls": 1, "failed": 0, "throttled": 0, "retries": 0}
        usage |= {"tokens_in": 50, "tokens_out": 5, "cost": 0.0}
        own = {"runner": self._runner, "reward": reward, "reason": None, "failed": False, "answer": "4"}
        return Outcome(reward, result={**task.body, **own, "usage": [usage]})


def measure(rewards: int) -> dict[str, Any]:
    """One run, and its ledger."""
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as name:
        folder = Path(name)
        (folder / "rewards.toml").write_text(RUN.format(root=ROOT, runners=RUNNERS, rewards=rewards))
        run_dir = folder / "run"
        line = runs.headrace("run", folder / "rewards.toml", "--headless", "--seed", "1", "--run-dir", run_dir)
        with runs.Command(line, folder) as command:
            peak, spent = _watched(command)
            command.wait(10)
        found = audit(run_dir, rewards)
        found |= {"command_seconds": spent, "peak_mib": peak, "summary_seconds": [_summary(run_dir) for _ in range(5)]}
        found["ledger_mib"] = (run_dir / "ledger.sqlite").stat().st_size / 2**20
    return found


def _watched(command: runs.Command) -> tuple[float, float]:
    """The most memory (PSS, MiB) that all its processes had, and how long it took."""
    peak, deadline, began = 0.0, time.monotonic() + LIMIT, time.monotonic()
    while command.process.poll() is None and time.monotonic() < deadline:
        peak = max(peak, runs.proportional(command.process.pid))
        time.sleep(1.0)
    return peak, time.monotonic() - began


def audit(run_dir: Path, rewards: int) -> dict[str, Any]:
    """Read the ledger through. RuntimeError names what is not as it was promised."""
    outcomes: Counter[str] = Counter()
    delivered: Counter[str] = Counter()
    by_runner: Counter[str] = Counter()
    times, consumed, refused = [], 0, 0
    for fact in runs.facts(run_dir, "outcome", "delivered", "fragments", "update"):
        if fact.kind == "outcome":
            outcomes[fact.body["task"]] += 1
            by_runner[fact.source] += 1
            times.append(fact.time)
        elif fact.kind == "delivered":
            delivered[fact.body["task"]] += 1
        else:
            consumed += fact.body["consumed"]
            refused += fact.body["refused"]
    for what, counted in (("in the ledger", outcomes), ("delivered", delivered)):
        if len(counted) != rewards or set(counted.values()) != {1}:
            raise RuntimeError(f"{len(counted)} of {rewards} rewards {what}, at most {max(counted.values())} times")
    if (consumed, refused) != (rewards, 0):
        raise RuntimeError(f"the learner took {consumed} of {rewards} rewards, and refused {refused}")
    from tracker.summary import summarise

    counted_rewards = sum(row["trials"] for row in trials(summarise(run_dir)))
    if counted_rewards != rewards:
        raise RuntimeError(f"the summary counts {counted_rewards} of {rewards} rewards")
    rate = rewards / (max(times) - min(times))
    return {"rewards": rewards, "lost": 0, "twice": 0, "runners": len(by_runner), "rewards_per_s": rate}


def trials(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The summary's rows of templates."""
    rows: Sequence[Mapping[str, Any]] = summary["templates"]
    return rows


def _summary(run_dir: Path) -> float:
    """Seconds that `headrace summary` takes, from its launch."""
    start = time.perf_counter()
    line = [sys.executable, "-m", "launcher.cli", "summary", str(run_dir)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def told(found: Mapping[str, Any]) -> str:
    """The figures in words."""
    seconds = runs.median(found["summary_seconds"])
    return (
        f"{found['rewards']:,} rewards by {found['runners']} runners: none lost, none twice;"
        f" {found['rewards_per_s']:,.0f} rewards/s, the run {found['command_seconds']:.0f} s,"
        f" {found['peak_mib']:,.0f} MiB at most, ledger {found['ledger_mib']:,.0f} MiB;"
        f" `headrace summary` {seconds:.2f} s"
    )
