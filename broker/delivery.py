"""Facts, exactly once and in order: the source's outbox and the tracker's inbox.

Invariants: a fact stays in the outbox until the tracker said that it is durable; the inbox takes a fact only if its
sequence is the last + 1 of its (source, incarnation), so that what is received is always a prefix of what was sent.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json

MAX_FACTS = 10_000
MAX_BYTES = 8 * 1024 * 1024
MAX_BODY = 262_144
MAX_LONG_TEXT = 64 * 1024
"""Most characters of one long text in a fact: a traceback, the last words of a process."""
CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if chr(code) not in "\n\t"}
"""Translation table for long texts: JSON would write each control character as six characters."""
MINT_CHARACTERS = 128 * 1024
"""Most of the tasks of one `mint` fact together (a single task may have more, up to `MAX_BODY`)."""
BATCH_FACTS = 256
BATCH_BYTES = 512 * 1024
STANDSTILL = 1.0
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Fact = tuple[int, str, str]
"""(time in ns by the run's clock, kind, body as JSON text)"""


def _finite(value: Any, path: str, nonfinite: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite.append(path)
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item, f"{path}.{key}" if path else str(key), nonfinite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, f"{path}.{index}", nonfinite) for index, item in enumerate(value)]
    return value


def body_text(body: Mapping[str, Any]) -> str:
    """A body as JSON. A number that is not finite becomes null and its path is named in `nonfinite`."""
    try:
        text = to_json(body, inf_nan_mode="constants").decode()  # five times as fast as `json`
        if "NaN" not in text and "Infinity" not in text:
            return text
    except ValueError:
        pass  # `json` takes some of what is refused here (half a surrogate pair), and says better what is wrong
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    except ValueError:
        nonfinite: list[str] = []
        clean = _finite(body, "", nonfinite)
        return json.dumps({**clean, "nonfinite": nonfinite}, separators=(",", ":"), ensure_ascii=False)


def shortened(text: str) -> str:
    """Cut a long text to the size that a fact may hold. The text says how much was cut out of its middle."""
    text = text.translate(CONTROL)
    if len(text) <= MAX_LONG_TEXT:
        return text
    half = (MAX_LONG_TEXT - 64) // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters are left out here]\n{text[-half:]}"


def mint_parts(tasks: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Tasks in runs that fit into one `mint` fact each."""
    part: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        length = len(body_text(task))
        if part and size + length > MINT_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(task)
        size += length
    if part:
        yield part


def fact_of(kind: str, body: Mapping[str, Any], time_ns: int) -> Fact:
    """One fact, checked before it is numbered. ValueError or TypeError says what is wrong with it."""
    if not _KIND.fullmatch(kind):
        raise ValueError(f"a fact's kind is 1 to 64 of A-Z a-z 0-9 _ . -, not {kind!r}")
    if not isinstance(body, Mapping):
        raise TypeError(f"a fact's body is a mapping, not {type(body).__name__}")
    text = body_text(body)
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no UTF-8, and would never leave
    if len(text) > MAX_BODY:
        raise ValueError(f"the body of a {kind!r} fact has {len(text)} characters; at most {MAX_BODY}")
    return time_ns, kind, text


class Outbox:
    """The source's side. A source holds at most `MAX_FACTS` facts or `MAX_BYTES` that are not durable."""

    def __init__(self) -> None:
        self.hub: str | None = None
        self.durable = 0
        self.received = 0
        self._facts: deque[Fact] = deque()
        self._bytes = 0
        self._sent = 0
        self._progress = 0.0

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def full(self) -> bool:
        """Whether the role must wait before it adds more."""
        return len(self._facts) >= MAX_FACTS or self._bytes >= MAX_BYTES

    @property
    def last(self) -> int:
        """The sequence of the newest fact."""
        return self.durable + len(self._facts)

    @property
    def unsent(self) -> bool:
        """Whether there is something to send to a hub that was heard."""
        return self.hub is not None and self._sent < self.last

    def add(self, fact: Fact) -> int:
        """Number and keep a fact."""
        self._facts.append(fact)
        self._bytes += len(fact[2])
        return self.last

    def batch(self, now: float) -> tuple[int, tuple[Fact, ...]] | None:
        """The next facts to send (first sequence, facts), or None. Counts them as sent."""
        if self.hub is None or self._sent >= self.last:
            return None
        if self._sent <= self.received:
            self._progress = now
        first = self._sent + 1
        taken: list[Fact] = []
        size = 0
        start = self._sent - self.durable
        for index in range(start, min(len(self._facts), start + BATCH_FACTS)):
            fact = self._facts[index]
            size += len(fact[2])
            if taken and size > BATCH_BYTES:
                break
            taken.append(fact)
        self._sent += len(taken)
        return first, tuple(taken)

    def on_counters(self, hub: str, received: int, durable: int, now: float) -> bool:
        """What the tracker has. True if facts became durable. From a new incarnation: send again what it has not."""
        if hub != self.hub:
            self.hub = hub
            self.received = max(min(received, self.last), self.durable)
            self._sent = self.received
            self._progress = now
        elif self.received < received <= self.last:
            self.received = received
            self._progress = now
        self._sent = max(self._sent, self.received)
        made = 0
        while self.durable < durable and self._facts:
            self._bytes -= len(self._facts.popleft()[2])
            self.durable += 1
            made += 1
        self._sent = max(self._sent, self.durable)
        self.received = max(self.received, self.durable)
        return made > 0

    def stalled(self, now: float) -> bool:
        """Whether `received` stood still for a second although more was sent; rewinds if so."""
        if self.hub is None or self._sent <= self.received or now - self._progress < STANDSTILL:
            return False
        self._sent = self.received
        self._progress = now
        return True


class Inbox:
    """The tracker's side, for one incarnation of one source; `last` is what the ledger already has."""

    def __init__(self, last: int = 0) -> None:
        self.received = last
        self.durable = last
        self.duplicates = 0
        self.gaps = 0

    def accept(self, first: int, items: tuple[Fact, ...]) -> tuple[int, tuple[Fact, ...]]:
        """(sequence of the first new fact, the new facts in order); empty at a gap, which the source will mend."""
        expected = self.received + 1
        if first > expected:
            self.gaps += 1
            return expected, ()
        seen = min(expected - first, len(items))
        self.duplicates += seen
        fresh = items[seen:]
        self.received += len(fresh)
        return expected, fresh

    @property
    def settled(self) -> bool:
        """Tell whether everything that was received is on disk, so that this inbox can be rebuilt from the ledger."""
        return self.received == self.durable

    def commit(self, sequence: int) -> None:
        """All up to `sequence` is on disk."""
        self.durable = max(self.durable, min(sequence, self.received))
