"""What calls took: tries, failures, tokens and cost, by endpoint.

Invariant: a try is counted when it is sent, whatever its result, also when the rollout around it is abandoned. Tokens
are those that the endpoint reported. If it reported no usable number (it timed out, the answer broke off, the usage is
missing or not numeric) they are estimated, and `estimated` counts them as well, so that every budget ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

PER_PRICE = 1_000_000
"""Tokens for which a price is given."""
BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 for each token, which is about right for most scripts."""


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
    """The part of both kinds of tokens that the endpoint did not report."""
    trouble: str = ""
    """Why the last failed try failed."""

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
        """Count the tokens of a try as the endpoint reported them, or estimate them from the texts.

        None, and 0 for a text that is not empty, count as not reported: otherwise a budget would never be used up.
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
    """Estimate how many tokens a text has."""
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
