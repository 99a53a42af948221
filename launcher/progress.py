"""Which roles have done what they are there for since their process started, as the standings tell.

Invariant: being there is no progress. An actor's is what it played or rolled out, a learner's its versions, the
tracker's what it stored, an endpoint's the calls that it answered or, where it counts none, what actors did meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher import words


class Progress:
    """Remembers what each process had done when it was first seen."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, float]] = {}
        """By role, its process and the least that was counted of it."""

    def observe(self, document: Mapping[str, Any], processes: Mapping[str, int]) -> list[str]:
        """The roles that have done something. `processes` are those that live now, by role."""
        roles = words.objects(document.get("roles"))
        played = sum(_count(role) for role in roles if role.get("kind") == "actor")
        working = []
        for role in roles:
            name, process = words.text(role.get("name")), role.get("pid")
            if process is None or processes.get(name) != process:
                continue  # what is shown is of a process before this one
            count = _count(role)
            if role.get("kind") == "tracker":
                count = words.number(words.mapping(document.get("facts")).get("stored")) or 0.0
            elif role.get("kind") == "endpoint":
                answered = words.number(words.mapping(role.get("rates")).get("answered"))
                count = played if answered is None else answered
            known, first = self._first.get(name, (process, count))
            self._first[name] = process, min(first, count) if known == process else count
            if count > self._first[name][1]:
                working.append(name)
        return working


def _count(role: Mapping[str, Any]) -> float:
    return words.number(role.get("progress")) or 0.0
