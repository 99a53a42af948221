"""How the scripted model criticises a template from transcripts, and edits it to answer a critique.

It looks at which kinds of questions failed and how, and asks for what the template lacks. Some critiques are vague,
some edits clumsy: they add fluff, forget a sentence or break the placeholders.

A transcript is a paragraph with the question's text, a line `answer: ...` and the reward, in any order.

Invariant: a critique names only what the template lacks and what could help with a question that failed in the
transcripts; an edit keeps what it does not change.
"""

from __future__ import annotations

import re

from actors.scoring.template import BRACES
from actors.scripted.draws import Draws
from actors.scripted.questions import find
from actors.scripted.themes import FLUFF, THEMES, VAGUE, strengths

REWARD = re.compile(r"\breward\W{1,6}([01](?:\.\d+)?)", re.IGNORECASE)
ANSWER = re.compile(
    r"^(?:answer|output|response):[ \t]*(.*?)(?=^(?:reward|reason|grader)\b|\Z)",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)
PARAGRAPHS = re.compile(r"\n[ \t]*\n")
CONTENT = "The answers shown are all right; nothing in the template stands in the way."
VAGUENESS, FORGETFULNESS, CAUTION = 0.15, 0.12, 0.35
"""Shares: of vague critiques; of edits that lose a sentence; of sentences that are put weakly."""


def lacks(template: str, transcripts: str) -> dict[str, float]:
    """Theme -> how much the failed transcripts speak for it."""
    has = strengths(template)
    weights = dict.fromkeys(THEMES, 0.0)
    for told in PARAGRAPHS.split(transcripts):
        reward, questions = REWARD.search(told), find(told)
        if reward is None or not questions or float(reward[1]) >= 1.0:
            continue
        shown = ANSWER.search(told)
        wrapped = shown is not None and questions[0].answer in shown[1]
        for name, theme in THEMES.items():
            if questions[0].kind in theme.kinds:
                weights[name] += (1 - has[name]) * _relevance(name, wrapped)
    return weights


def critique(template: str, transcripts: str, draws: Draws) -> str:
    """Up to two complaints about the template."""
    weights = lacks(template, transcripts)
    if not any(weights.values()):
        return CONTENT
    if draws.chance("vague", VAGUENESS):
        return draws.choose("vague words", VAGUE)
    first = draws.weighted("first", weights)
    second = draws.weighted("second", {**weights, first: 0.0}) if draws.chance("two", 0.5) else None
    return " ".join(THEMES[name].complaint for name in (first, second) if name is not None)


def edit(template: str, criticism: str, draws: Draws, broken: float = 0.0) -> str:
    """The template with a sentence for each complaint, before its first placeholder's line."""
    wanted = [name for name, strength in strengths(criticism).items() if strength > 0]
    has = strengths(template)
    sentences = []
    for name in wanted:
        theme = THEMES[name]
        weakly = has[name] == 0 and draws.chance(f"weakly {name}", CAUTION)
        sentences.append(draws.choose(f"phrase {name}", theme.weak_phrases if weakly else theme.strong_phrases))
    if not wanted:
        sentences.append(draws.choose("fluff", FLUFF))
    kept = template
    if draws.chance("forget", FORGETFULNESS):
        kept = _without_a_sentence(template, draws)
    place = next((match for match in BRACES.finditer(kept) if match[1]), None)
    start = kept.rfind("\n", 0, place.start()) + 1 if place else len(kept)
    edited = f"{kept[:start].rstrip()}\n{' '.join(sentences)}\n{kept[start:]}".lstrip("\n")
    if draws.chance("broken", broken):
        other = "{input}" if draws.chance("renamed", 0.5) else ""
        return BRACES.sub(lambda match: other if match[1] else match[0], edited)
    return edited


def _relevance(name: str, wrapped: bool) -> float:
    if name == "bare":
        return 2.0 if wrapped else 0.5
    if name == "check":
        return 0.0 if wrapped else 0.3
    return 0.2 if wrapped else 1.0


def _without_a_sentence(template: str, draws: Draws) -> str:
    """One sentence without a placeholder taken out, where there are several."""
    sentences = re.findall(r"[^.\n]+\.", template)
    loose = [sentence for sentence in sentences if not BRACES.search(sentence)]
    return template.replace(draws.choose("forgotten", loose), "", 1) if len(loose) > 1 else template
