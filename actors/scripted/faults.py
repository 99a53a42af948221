"""What goes wrong with a request, by the rates of the `[scripted]` section, and what the server has counted.

Invariant: the fault of a request is a function of seed, messages, attempt and try, never of the order of requests; only
the limit on requests at once depends on what else is under way, and it decides when something is answered, not what.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from actors.scripted.draws import Draws
from actors.scripted.settings import Scripted

Fault = Literal["429", "500", "timeout", "half"]


def fault_of(settings: Scripted, draws: Draws, again: str) -> Fault | None:
    """What goes wrong with this try of the request, or None."""
    point = draws.uniform(f"fault {again}")
    for name, rate in (
        ("429", settings.rate_429),
        ("500", settings.rate_500),
        ("timeout", settings.rate_timeout),
        ("half", settings.rate_half),
    ):
        if point < rate:
            return name  # type: ignore[return-value]
        point -= rate
    return None


def latency_of(settings: Scripted, draws: Draws, again: str) -> float:
    """Seconds until this try is answered."""
    return settings.latency_seconds * (1 + settings.latency_spread * (2 * draws.uniform(f"latency {again}") - 1))


@dataclass
class Counts:
    """What the server has seen since it was started; `GET /counts` gives it."""

    requests: int = 0
    """Chat completions asked for, whatever came of them."""
    answered: int = 0
    throttled: int = 0
    """Answered with 429."""
    errors: int = 0
    """Answered with 500."""
    timeouts: int = 0
    """Never answered."""
    half: int = 0
    """Broken off in the middle."""
    refused: int = 0
    """Wrong in themselves: 400, 401, 404."""
    in_flight: int = 0
    high_water: int = 0
    """Most that were under way at once."""
    tokens_in: int = 0
    tokens_out: int = 0
    repeated: int = 0
    """Answered though the same messages and attempt had been answered before: what was paid twice."""
    roles: dict[str, int] = field(default_factory=lambda: {"answer": 0, "critique": 0, "edit": 0})
    """Answered, by what was asked for."""

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)
