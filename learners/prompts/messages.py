"""What a model is told when it criticises and edits a template, and how its reply is read.

The critique names what the template made go wrong ("textual gradient"), the edit answers the critique: Pryzant et al.
2023, "Automatic Prompt Optimization with 'Gradient Descent' and Beam Search", section 3. The reflection does both at
once: Agrawal et al. 2025, "GEPA", section 3.2.

Invariant: pure: equal parents, transcripts and places give equal messages, so that their completions have equal names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.scoring.template import MAX_TEMPLATE
from actors.scoring.thoughts import without_thoughts
from learners.prompts.requests import Answered, Complete

ROOM = 60_000
"""Characters that all transcripts together may take: a task's body has an end."""
SHOWN_TASK = 2_000
"""Characters of a task that are shown, where there is room."""
LONGEST_CRITIQUE = 8_000

_CRITIC = (
    "You improve prompt templates. A template is filled with a task's fields in place of its {placeholders} and sent "
    "to a model; a grader gives the model's answer a reward from 0 to 1."
)
_FENCE = re.compile(r"\A```[^\n`]*\n(.*?)\n?```\Z", re.DOTALL)


@dataclass(frozen=True)
class Transcript:
    """One rollout as a critique sees it."""

    task: Mapping[str, Any]
    result: Answered


def critique(template: str, transcripts: Sequence[Transcript], sequence: int) -> Complete:
    """Ask what the template made go wrong in these transcripts."""
    wanted = (
        "Say what in the template costs reward, and what it lacks. Be concrete: name the wording, and what an answer "
        "must look like. Do not write a new template. Do not speak of single tasks but of what they have in common."
    )
    return _complete("critique", f"{_template(template)}\n\n{_told(transcripts)}\n\n{wanted}", sequence)


def edit(
    template: str, criticism: str, placeholders: frozenset[str], place: tuple[int, int], sequence: int
) -> Complete:
    """Ask for a template that answers a critique; `place`: the n-th of so many children of this parent."""
    wanted = f"Write a new template that answers the critique and keeps what works.{_variety(place)}"
    user = f"{_template(template)}\n\n<critique>\n{criticism}\n</critique>\n\n{wanted}\n{_form(placeholders)}"
    return _complete("edit", user, sequence)


def reflection(
    template: str,
    transcripts: Sequence[Transcript],
    placeholders: frozenset[str],
    place: tuple[int, int],
    sequence: int,
) -> Complete:
    """Ask for a better template straight from the transcripts."""
    wanted = (
        "Reflect on these transcripts: what did the template make go wrong, what does a good answer need that it does "
        f"not say? Then write a new template that says so and keeps what works.{_variety(place)}"
    )
    user = f"{_template(template)}\n\n{_told(transcripts)}\n\n{wanted}\n{_form(placeholders)}"
    return _complete("edit", user, sequence)


def template_of(reply: str) -> str | None:
    """Return the template in a model's reply: the text between <template> and </template>. None without these tags,
    empty for an empty reply.

    The last template counts: a model may first show the old one or a draft. A fence of backticks around all of it is
    removed.
    """
    reply = without_thoughts(reply).strip()
    begin, end = reply.find("<template>"), reply.rfind("</template>")
    if 0 <= reply.find("</template>", max(begin, 0)) < end:
        begin = reply.rfind("<template>", 0, end)
    if not 0 <= begin < end:
        return None if reply else ""
    text = reply[begin + len("<template>") : end].strip()
    fenced = _FENCE.match(text)
    return fenced.group(1).strip() if fenced else text


def _complete(role: Any, user: str, sequence: int) -> Complete:
    return Complete(role, (("system", _CRITIC), ("user", user)), sequence)


def _template(text: str) -> str:
    return f"<template>\n{text}\n</template>"


def _told(transcripts: Sequence[Transcript]) -> str:
    parts = []
    room = ROOM // max(1, len(transcripts))
    for number, transcript in enumerate(transcripts, start=1):
        result = transcript.result
        task = json.dumps(transcript.task, ensure_ascii=False, sort_keys=True)[: min(SHOWN_TASK, room * 2 // 5)]
        lines = [f"{number}. reward {result.reward:g}{' (the rollout failed)' if result.failed else ''}"]
        lines += [f"task: {task}", f"answer: {result.answer[: room * 2 // 5]}"]
        if result.reason:
            lines.append(f"grader: {result.reason[: room // 5]}")
        parts.append("\n".join(lines))
    return "<transcripts>\n" + "\n\n".join(parts) + "\n</transcripts>"


def _variety(place: tuple[int, int]) -> str:
    number, count = place
    if count == 1:
        return ""
    return f" This is proposal {number} of {count}: others are asked for too, so go a way of your own."


def _form(placeholders: frozenset[str]) -> str:
    names = ", ".join(f"{{{name}}}" for name in sorted(placeholders))
    return (
        f"Keep exactly these placeholders: {names}. Write every other brace twice, {{{{ and }}}}. The template has "
        f"at most {MAX_TEMPLATE:,} characters. Reply with the new template between <template> and </template>."
    )
