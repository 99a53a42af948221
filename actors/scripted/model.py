"""The scripted model: what it replies to a list of messages.

It reads its messages as a model does: a prompt with a `<template>` in it asks for an edit or a critique of that
template, any other asks for an answer to the last question in it.

Invariant: a reply is a function of the seed, the messages and the attempt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from actors.scripted import editing
from actors.scripted.answering import UNKNOWN, answer
from actors.scripted.draws import Draws
from actors.scripted.questions import find

Role = Literal["answer", "critique", "edit"]
TAGGED = re.compile(r"<(template|critique)>[ \t]*\n?(.*?)\n?[ \t]*</\1>", re.DOTALL | re.IGNORECASE)
FORBIDDEN = re.compile(r"\b(do not|don't|never|without)\b[^.\n]*", re.IGNORECASE)
EDITS = re.compile(
    r"\b(edit(ed)?|rewrit(e|ten)|revised?|improved?|better|new)\b[^.\n]{0,60}\b(template|prompt|instructions?)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Asked:
    """What a request is for."""

    role: Role
    text: str
    """All that was said, without the template and the critique."""
    template: str = ""
    critique: str = ""


def read(messages: Sequence[Mapping[str, Any]]) -> Asked:
    """What these messages ask for. Whether a template is wanted, or only what is wrong with one, the last one says."""
    said = "\n".join(text_of(message.get("content")) for message in messages)
    tagged: dict[str, str] = {}
    for match in TAGGED.finditer(said):
        tagged.setdefault(match[1].lower(), match[2])
    if "template" not in tagged:
        return Asked("answer", said)
    rest = TAGGED.sub("", said)
    wanted = FORBIDDEN.sub("", TAGGED.sub("", text_of(messages[-1].get("content"))))
    edits = bool(tagged.get("critique")) or EDITS.search(wanted) is not None
    return Asked("edit" if edits else "critique", rest, tagged["template"], tagged.get("critique", ""))


def reply(asked: Asked, draws: Draws, *, broken: float = 0.0, empty: float = 0.0) -> str:
    """What the model says. `broken`, `empty`: shares of edits that break placeholders, of critiques that are empty."""
    if asked.role == "critique":
        return "" if draws.chance("empty", empty) else editing.critique(asked.template, asked.text, draws)
    if asked.role == "edit":
        criticism = asked.critique or editing.critique(asked.template, asked.text, draws)
        return f"<template>\n{editing.edit(asked.template, criticism, draws, broken)}\n</template>"
    questions = find(asked.text)
    if not questions:
        return UNKNOWN
    question = questions[-1]
    return answer(question, asked.text[: question.start] + asked.text[question.end :], draws)


def text_of(content: Any) -> str:
    """A message's content as text: it may be a text, or a list of parts with texts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""
