"""Types of the fields of facts, each with a bound: names, texts, counts, and maps of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from broker.delivery import MAX_BODY, MAX_LONG_TEXT
from broker.messages import MAX_ITEMS, MAX_TEXT

FIT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
HOT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""For kinds that arrive thousands of times a second: unknown fields stay in the ledger and are not parsed for folds."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that identifies something. It fits the integers of SQLite and msgpack."""
Amount = Annotated[int, Field(ge=0, le=2**40)]
"""A number that folds sum. 8 million of the largest amount stay below 2^63, and the sums are Python's integers."""
Number = Annotated[float, Field(ge=-1e300, le=1e300)] | None
"""None if the source's number was not finite. The bound keeps sums finite."""
Id = Annotated[str, Field(max_length=256)]
"""The name of an agent, a policy, a role, a task, a loss."""
Reason = Annotated[str, Field(max_length=MAX_TEXT)]
LongText = Annotated[str, Field(max_length=MAX_LONG_TEXT)]
"""A traceback, or the end of a process's output. Sources shorten a longer one (`broker.delivery.shortened`)."""
Text = Annotated[str, Field(max_length=MAX_BODY)]
"""A text as long as a body may be: a template, or what the tracker quotes from other sources."""
Ids = Annotated[list[Id], Field(max_length=MAX_ITEMS)]
Staleness = Annotated[dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Amount], Field(max_length=MAX_ITEMS)]
Amounts = Annotated[dict[Id, Amount], Field(max_length=MAX_ITEMS)]
Numbers = Annotated[dict[Id, Number], Field(max_length=MAX_ITEMS)]
