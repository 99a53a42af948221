"""Prompt templates: their placeholders, their identity, and how they are filled.

A placeholder is an identifier in braces, `{question}`. `{{` and `}}` write one brace each, as in Python's format
strings. Any other brace is an error of the template: it may be a misspelt placeholder, or text (LaTeX, JSON, code) of
which nobody can say where it ends.

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
"""Characters of a template, be it the first one or an edit: with its lineage it must fit into one fact."""


def identity(text: str) -> str:
    """The name of a template: the first 16 hex digits of the sha256 of its text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]


def placeholders(text: str) -> frozenset[str]:
    """The names of its placeholders, each once."""
    return frozenset(match[1] for match in BRACES.finditer(text) if match[1])


def template_error(text: str) -> str | None:
    """Why a text cannot be a template (a brace without a meaning, too many characters), or None."""
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
    """Why a child may not stand beside its parent (its placeholders differ, or it is no template), or None."""
    before, after = placeholders(parent), placeholders(child)
    lost = ", ".join(f"{{{name}}}" for name in sorted(before - after))
    new = ", ".join(f"{{{name}}}" for name in sorted(after - before))
    if lost and new:
        return f"it lost {lost} and brought {new}"
    if lost:
        return f"it lost {lost}"
    if new:
        return f"it brought {new}, which no task fills"
    return template_error(child)


def fill(text: str, task: Mapping[str, Any]) -> str:
    """The prompt: the task's fields in the template's placeholders, and single braces for double ones.

    RequestError where the task lacks a field, or a brace means nothing.
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
