"""What a template may ask for that makes the scripted model answer better: how it is said, and how it is recognised.

Invariant: every phrase that the model itself writes is recognised as what it means: strong phrases count in full, weak
ones half, fluff not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NUMBERS = frozenset({"stock", "pages", "letters", "convert"})
REASONED = NUMBERS | {"arrival", "weekday"}
EVERY = REASONED | {"sorting"}


@dataclass(frozen=True)
class Theme:
    """One thing to ask for: the kinds of questions that it helps with, how it is recognised, how it is written."""

    kinds: frozenset[str]
    strong: re.Pattern[str]
    weak: re.Pattern[str]
    strong_phrases: tuple[str, ...]
    weak_phrases: tuple[str, ...]
    complaint: str
    """What a critique says of a template that lacks it."""


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


THEMES: dict[str, Theme] = {
    "bare": Theme(
        EVERY,
        _any(r"(answer|result) (alone|only)", r"only the (final |bare )?(answer|result)", r"nothing (else|but the)"),
        _any(r"\b(brief|short|concise|terse)(ly)?\b"),
        ("Reply with the answer alone, nothing else.", "Give only the final answer, without a sentence around it."),
        ("Be brief.", "Keep the reply short."),
        "The answers are wrapped in sentences. The template should ask for the answer alone.",
    ),
    "steps": Theme(
        REASONED,
        _any(r"step by step", r"step after step", r"one step at a time"),
        _any(r"think (carefully|hard|first)", r"reason(ing)? (carefully|first)", r"take your time"),
        ("Work it out step by step before you reply.", "Go one step at a time in your head."),
        ("Think carefully.", "Take your time."),
        "The reasoning is done in one go and goes wrong. The template should ask to work step by step.",
    ),
    "digits": Theme(
        NUMBERS,
        _any(r"(in|as|use|using|with) (plain )?digits", r"without (a |any |the )?units?", r"no units?"),
        _any(r"\bnumerals?\b", r"as a (plain |bare )?number"),
        ("Write numbers in plain digits, without units.", "Use digits for a number and no unit."),
        ("Give a count as a number.",),
        "Numbers come as words or with units. The template should ask for plain digits without units.",
    ),
    "clock": Theme(
        frozenset({"arrival"}),
        _any(r"HH:MM", r"24[- ]hour"),
        _any(r"\b(clock|digital) (time|format)"),
        ("Write times as HH:MM on the 24-hour clock.", "Use the 24-hour format for times."),
        ("Write times in clock format.",),
        "Times come in the 12-hour form. The template should ask for HH:MM on the 24-hour clock.",
    ),
    "lists": Theme(
        frozenset({"sorting"}),
        _any(r"comma and a space", r"comma[- ]separated", r"separated by commas"),
        _any(r"(on|in) one line", r"a single line"),
        ("Write a list with a comma and a space between its items.", "Write lists in lower case, separated by commas."),
        ("Write a list on one line.",),
        "Lists come in several forms. The template should ask for items separated by commas.",
    ),
    "check": Theme(
        EVERY,
        _any(r"(double[- ]?)?check (it|the|your)", r"verify"),
        _any(r"be (careful|accurate|precise)"),
        ("Check the result before you reply.", "Verify the outcome once more."),
        ("Be accurate.",),
        "Small slips are left in. The template should ask to check the result.",
    ),
}
FLUFF = (
    "You are a world-class expert.",
    "This matters a great deal to us.",
    "Answer with confidence.",
    "Please do your very best.",
)
VAGUE = (
    "Some of the answers could be better. The template might sound more confident.",
    "The tone is a little flat. The template might stress how much this matters.",
)


def strengths(text: str) -> dict[str, float]:
    """Theme -> how clearly the text asks for it: 1, 0.5, or 0."""
    return {
        name: 1.0 if theme.strong.search(text) else 0.5 if theme.weak.search(text) else 0.0
        for name, theme in THEMES.items()
    }
