"""The types of what stands in facts, each with its bound: names, texts, counts, and maps of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from broker.delivery import MAX_BODY, MAX_LONG_TEXT
from broker.messages import MAX_ITEMS, MAX_TEXT

FIT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
HOT = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""For what comes by the thousands a second: other fields are in the ledger, and are not built for the folds."""

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that identifies something. It fits SQLite's integers and msgpack's."""
Amount = Annotated[int, Field(ge=0, le=2**40)]
"""A number that is summed. 8 million facts of the largest amount stay below 2^63; the sums themselves are Python's."""
Number = Annotated[float, Field(ge=-1e300, le=1e300)] | None
"""None where the source had a number that was not finite. The bound keeps sums finite."""
Id = Annotated[str, Field(max_length=256)]
"""The name of an agent, a policy, a role, a task, a loss."""
Reason = Annotated[str, Field(max_length=MAX_TEXT)]
LongText = Annotated[str, Field(max_length=MAX_LONG_TEXT)]
"""A traceback, or what a process wrote last. Sources send the end of a longer one (`broker.delivery.ending`)."""
Text = Annotated[str, Field(max_length=MAX_BODY)]
"""As long as a body may be: a template, or what the tracker writes about texts of others."""
Ids = Annotated[list[Id], Field(max_length=MAX_ITEMS)]
Staleness = Annotated[dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Amount], Field(max_length=MAX_ITEMS)]
Amounts = Annotated[dict[Id, Amount], Field(max_length=MAX_ITEMS)]
Numbers = Annotated[dict[Id, Number], Field(max_length=MAX_ITEMS)]
