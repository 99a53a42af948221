"""What calls took: tries, failures, tokens and cost, by endpoint.

Invariant: a try is counted when it is sent, whatever comes of it, also when the rollout around it is given up. Tokens
are what the endpoint said; of a try that may have been paid for but did not say (it timed out, or its answer broke
off), the prompt is estimated, and counted apart under `estimated` as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PER_PRICE = 1_000_000
"""Tokens for which a price is given."""
CHARACTERS_PER_TOKEN = 4


@dataclass
class EndpointUsage:
    """Of one endpoint within one rollout."""

    endpoint: str
    price_in: float = 0.0
    price_out: float = 0.0
    calls: int = 0
    """Tries that were sent."""
    failed: int = 0
    """Tries that gave no answer, for whatever reason."""
    throttled: int = 0
    """Of these, answered with 429."""
    retries: int = 0
    """Tries after the first."""
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: int = 0
    """Of `tokens_in`, those that nobody told us."""

    def sent(self, again: int) -> None:
        """A try goes out; `again` is 0 for the first."""
        self.calls += 1
        self.retries += again > 0

    def took(self, tokens_in: int, tokens_out: int) -> None:
        """What the endpoint said that a try took."""
        self.tokens_in += max(0, tokens_in)
        self.tokens_out += max(0, tokens_out)

    def guess(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """A try was sent and never properly answered: its prompt may have been paid for."""
        tokens = sum(len(str(message.get("content", ""))) for message in messages) // CHARACTERS_PER_TOKEN + 1
        self.tokens_in += tokens
        self.estimated += tokens

    def plain(self) -> dict[str, Any]:
        """As it stands in a result."""
        cost = (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / PER_PRICE
        told = {
            name: getattr(self, name)
            for name in ("endpoint", "calls", "failed", "throttled", "retries", "tokens_in", "tokens_out", "estimated")
        }
        return {**told, "cost": cost}


@dataclass
class Usage:
    """Of one rollout."""

    endpoints: dict[str, EndpointUsage] = field(default_factory=dict)

    def of(self, name: str, price_in: float, price_out: float) -> EndpointUsage:
        """The counters of one endpoint."""
        return self.endpoints.setdefault(name, EndpointUsage(name, price_in, price_out))

    def plain(self) -> list[dict[str, Any]]:
        """As it stands in a result: one mapping for each endpoint that was called, by name."""
        return [self.endpoints[name].plain() for name in sorted(self.endpoints)]
