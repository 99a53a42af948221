"""What calls took: tries, failures, tokens and cost, by endpoint.

Invariant: a try is counted when it is sent, whatever comes of it, also when the rollout around it is given up. Tokens
are what the endpoint said. Where it said nothing usable (it timed out, its answer broke off, it has no usage, or words
for numbers) they are estimated, and counted apart under `estimated` as well, so that every budget ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PER_PRICE = 1_000_000
"""Tokens for which a price is given."""
BYTES_PER_TOKEN = 4
"""In UTF-8; about right for most scripts."""


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
    """Of both, those that the endpoint did not say."""
    trouble: str = ""
    """Why the last try that failed did."""

    def sent(self, again: int) -> None:
        """A try goes out; `again` is 0 for the first."""
        self.calls += 1
        self.retries += again > 0

    def took(
        self,
        messages: Iterable[Mapping[str, Any]],
        text: str = "",
        tokens_in: int | None = None,
        tokens_out: int | None = None,
    ) -> None:
        """What a try took, as the endpoint said; what it did not say is estimated by the texts.

        None, or 0 for a text that is not empty, is not said: a budget must not stand still for it.
        """
        if not tokens_in:
            tokens_in = estimate("".join(str(message.get("content", "")) for message in messages))
            self.estimated += tokens_in
        if not tokens_out and text:
            tokens_out = estimate(text)
            self.estimated += tokens_out
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out or 0

    def plain(self) -> dict[str, Any]:
        """As it stands in a result."""
        cost = (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / PER_PRICE
        told = {
            name: getattr(self, name)
            for name in ("endpoint", "calls", "failed", "throttled", "retries", "tokens_in", "tokens_out", "estimated")
        }
        return {**told, "cost": cost}


def estimate(text: str) -> int:
    """About how many tokens a text has."""
    return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1


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
