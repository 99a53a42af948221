"""Prompt templates: their placeholders, their identity, and how they are filled.

A placeholder is an identifier in braces, `{question}`. `{{` and `}}` write one brace each, as in Python's format
strings. Any other brace is an error of the template: it may be a misspelt placeholder or literal text (LaTeX, JSON,
code), and nothing tells which.

Invariant: a template is its text and nothing else: equal texts have one identity, and filling is one pass, so that a
question which itself contains `{question}` is not filled again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from broker.errors import RequestError

BRACES = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
"""An escaped brace, a placeholder (group 1 is its name), or a brace that is neither."""
HASH_DIGITS = 16
MAX_TEMPLATE = 32_000
"""Most characters of a template, whether the first one or an edit: with its lineage it must fit into one fact."""


def identity(text: str) -> str:
    """The name of a template: the first 16 hex digits of the sha256 of its text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]


def placeholders(text: str) -> frozenset[str]:
    """The names of its placeholders, each once."""
    return frozenset(match[1] for match in BRACES.finditer(text) if match[1])


def template_error(text: str) -> str | None:
    """Say why a text cannot be a template (a brace without a meaning, too many characters), or return None."""
    if len(text) > MAX_TEMPLATE:
        return f"it has {len(text):,} characters; a template has at most {MAX_TEMPLATE:,}"
    for match in BRACES.finditer(text):
        if match[0] in "{}":
            line = text.count("\n", 0, match.start()) + 1
            near = text[max(0, match.start() - 10) : match.start() + 20].split("\n")
            shown = near[0] if match[0] in near[0] else near[-1]
            return (
                f"the brace {match[0]!r} in line {line} (near {shown!r}) is no placeholder such as {{question}}; "
                f"write {match[0] * 2} for a brace that is text"
            )
    return None


def refusal(parent: str, child: str) -> str | None:
    """Say why a child cannot replace its parent (other placeholders, or not a template), or return None."""
    before, after = placeholders(parent), placeholders(child)
    lost = ", ".join(f"{{{name}}}" for name in sorted(before - after))
    new = ", ".join(f"{{{name}}}" for name in sorted(after - before))
    if lost and new:
        return f"it lost {lost} and added {new}"
    if lost:
        return f"it lost {lost}"
    if new:
        return f"it added {new}, which no task fills"
    return template_error(child)


def fill(text: str, task: Mapping[str, Any]) -> str:
    """Fill the template's placeholders with the task's fields, and write double braces as single ones.

    RequestError if the task lacks a field, or a brace has no meaning.
    """

    def piece(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            if len(match[0]) == 1:
                raise RequestError(f"the template cannot be filled: {template_error(text)}")
            return match[0][0]
        if name not in task:
            raise RequestError(
                f"the template has {{{name}}}, which this task lacks (it has {', '.join(sorted(task))}); "
                f"write {{{{{name}}}}} for the text {{{name}}}"
            )
        return str(task[name])

    return BRACES.sub(piece, text)
