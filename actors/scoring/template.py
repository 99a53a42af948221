"""Prompt templates: their placeholders, their identity, and how they are filled.

A placeholder is an identifier in braces, `{question}`. Every other brace is text, so that a template may show JSON;
there is no escape.

Invariant: a template is its text and nothing else: equal texts have one identity, and filling is one pass, so that a
question which itself contains `{question}` is not filled again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from broker.errors import RequestError

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
HASH_DIGITS = 16


def identity(text: str) -> str:
    """The name of a template: the first 16 hex digits of the sha256 of its text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]


def placeholders(text: str) -> frozenset[str]:
    """The names of its placeholders, each once."""
    return frozenset(PLACEHOLDER.findall(text))


def refusal(parent: str, child: str) -> str | None:
    """Why a child may not stand beside its parent (its placeholders differ), or None."""
    before, after = placeholders(parent), placeholders(child)
    lost = ", ".join(f"{{{name}}}" for name in sorted(before - after))
    new = ", ".join(f"{{{name}}}" for name in sorted(after - before))
    if lost and new:
        return f"it lost {lost} and brought {new}"
    if lost:
        return f"it lost {lost}"
    return f"it brought {new}, which no task fills" if new else None


def fill(text: str, task: Mapping[str, Any]) -> str:
    """The template with the task's fields in its placeholders. RequestError where the task lacks one."""

    def field(match: re.Match[str]) -> str:
        name = match[1]
        if name not in task:
            raise RequestError(f"the template has {{{name}}}, which this task lacks (it has {', '.join(sorted(task))})")
        return str(task[name])

    return PLACEHOLDER.sub(field, text)
