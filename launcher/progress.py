"""Which roles have made progress since their process started, by the standings.

Invariant: running is not progress. An actor's progress is what it played or rolled out, a learner's its versions, the
tracker's the facts that it stored, and an endpoint's the calls that it answered (or, if it does not count them, what
actors did in that time).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher import words


class Progress:
    """Compares the work of each process with what it had done when it was first seen."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, float]] = {}
        """By role, its process and the lowest count of its work."""

    def observe(self, document: Mapping[str, Any], processes: Mapping[str, int]) -> list[str]:
        """Return the roles that have made progress. `processes` are the running ones by role."""
        roles = words.objects(document.get("roles"))
        played = sum(_count(role) for role in roles if role.get("kind") == "actor")
        working = []
        for role in roles:
            name, process = words.text(role.get("name")), role.get("pid")
            if process is None or processes.get(name) != process:
                continue  # the standings still show an earlier process
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
