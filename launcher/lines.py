"""The run told in plain lines, where there is no terminal: logs, pipes, CI.

`Teller` is pure: documents and times in, lines out. One line every two seconds says how the run stands; each event,
alarm and change of phase has a line of its own, once. `PlainLines` prints them, and is used like the dashboard.

Invariant: an event is told exactly once as long as the tracker's list still holds it when the next document comes; no
document makes it raise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

from launcher import pool, prompt_board, words

EVERY = 2.0
MOST_POLICIES = 6
"""Policies that have a part in the status line; of more only the first are told."""


class Teller:
    """Remembers what was told."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._next = float("-inf")
        self._events: Counter[tuple[str, str, str]] = Counter()
        self._alarms: Counter[str] = Counter()
        self._phase = ""

    def tell(self, document: dict[str, Any], now: float) -> list[str]:
        """The lines that this document adds, at `now` seconds of any steady clock."""
        lines: list[str] = []
        events = Counter(
            (words.text(event.get("time")), words.text(event.get("source")), words.text(event.get("text")))
            for event in words.objects(document.get("events"))
        )
        new = events - self._events
        for event in words.objects(document.get("events")):
            key = (words.text(event.get("time")), words.text(event.get("source")), words.text(event.get("text")))
            if new[key] > 0:
                new[key] -= 1
                source, what = words.text(event.get("source"), words.DASH), words.text(event.get("text"))
                lines.append(f"{words.time_of_day(event.get('time'))}  {source}: {what}")
        self._events = events
        alarms = Counter(words.text(alarm) for alarm in words.listing(document.get("alarms")) if alarm)
        lines += [f"ALARM: {alarm}" for alarm in alarms - self._alarms]
        self._alarms = alarms
        phase = words.text(document.get("phase"))
        if now >= self._next or phase != self._phase:
            lines.append(status_line(document))
            self._next = now + self._every
        self._phase = phase
        return lines


def status_line(document: dict[str, Any]) -> str:
    """How the run stands, in one line."""
    left = words.number(document.get("seconds_left"))
    parts = [
        f"[{words.clock(document.get('seconds'))}] {words.text(document.get('phase'), 'waiting for the tracker')}"
        + (" (simulation)" if document.get("simulation") else "")
        + (" FAILED" if document.get("failed") else "")
    ]
    if left is not None and document.get("phase") == "running":
        parts.append(f"{words.clock(left)} left")
    if reason := words.text(document.get("reason")):
        parts.append(reason)
    steps, rate = document.get("env_steps"), document.get("env_steps_per_second")
    tasks = words.mapping(document.get("tasks"))
    if words.number(tasks.get("minted")):
        failed = f", {words.count(tasks.get('failed'))} failed" if words.number(tasks.get("failed")) else ""
        parts.append(f"tasks {words.count(tasks.get('done'))} of {words.count(tasks.get('minted'))}{failed}")
    if words.number(steps) or not words.number(tasks.get("minted")):
        parts.append(f"env steps {words.count(steps)} ({words.rate(rate)})")
        parts.append(f"agent steps {words.rate(document.get('agent_steps_per_second'))}")
        parts.append(f"return {words.decimal(document.get('return_mean'))}")
    if pooled := pool.told(words.mapping(document.get("pool"))):
        parts.append(pooled)
    if searched := prompt_board.told(document):
        parts.append(searched)
    policies = words.mapping(document.get("policies"))
    for name, value in list(policies.items())[:MOST_POLICIES]:
        policy = words.mapping(value)
        staleness = words.mapping(policy.get("staleness"))
        refused = words.mapping(policy.get("fragments")).get("refused")
        parts.append(
            f"{words.text(name)} {words.version(policy.get('version'))}"
            f" {words.decimal(policy.get('return_first'))} → {words.decimal(policy.get('return_mean'))}"
            f" stale {words.short(staleness.get('median'))}/{words.short(staleness.get('p95'))}"
            + (f" refused {words.short(refused)}" if words.number(refused) else "")
        )
    if len(policies) > MOST_POLICIES:
        parts.append(f"{len(policies) - MOST_POLICIES} more policies")
    parts.append(f"facts {words.count(words.mapping(document.get('facts')).get('stored'))}")
    states = Counter(words.state(role.get("state"))[1] for role in words.objects(document.get("roles")))
    if states:
        parts.append("roles " + ", ".join(f"{number} {state}" for state, number in states.most_common()))
    stuck = [role for role in words.objects(document.get("roles")) if role.get("state") == "stalled"]
    if stuck:  # roles that know their stuck call come before roles that wait for them
        stuck.sort(key=lambda role: not words.text(role.get("doing")).startswith("in "))
        more = f" (+{len(stuck) - 1})" if len(stuck) > 1 else ""
        parts.append(f"{words.text(stuck[0].get('name'), '?')} is stalled, {words.text(stuck[0].get('doing'))}{more}")
    if waits := words.waits(document):
        who, whom, what, seconds = waits[0]
        more = f" (+{len(waits) - 1})" if len(waits) > 1 else ""
        parts.append(f"{who} waits {words.span(seconds)} for {whom}: {what}{more}")
    return " · ".join(parts)


class PlainLines:
    """Prints what the teller tells. Used like `Dashboard`: `show`, `tick`, `close`."""

    def __init__(
        self,
        write: Callable[[str], None] | None = None,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write or (lambda line: print(line, flush=True))
        self._teller = Teller(every)
        self._clock = clock
        self._heard = clock()
        self._silent = False

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, document: dict[str, Any]) -> None:
        """Print what is new in a standings document."""
        self._heard, self._silent = self._clock(), False
        for line in self._teller.tell(document, self._heard):
            self._write(line)

    def tick(self) -> None:
        """Say once that the tracker is silent, when nothing was heard for five seconds."""
        if not self._silent and self._clock() - self._heard >= 5.0:
            self._silent = True
            self._write("no news of the tracker for 5 s")

    def close(self) -> None:
        """Nothing to give back."""
