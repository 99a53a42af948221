"""The questions that the scripted model can read, each solved from its text, and what a hasty reader makes of it.

Invariant: a question is known by its text alone, wherever it stands in a longer one; `answer` is right and `slip` is
wrong, and both are functions of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FACTORS = {("hours", "minutes"): 60, ("minutes", "seconds"): 60, ("days", "hours"): 24, ("weeks", "days"): 7}


@dataclass(frozen=True)
class Question:
    """One question found in a text."""

    kind: str
    text: str
    answer: str
    slip: str
    """The mistake of one who does not look closely."""
    unit: str = ""
    """What is counted, where a number is asked for."""
    start: int = 0
    end: int = 0
    """Where it stood."""


Solved = tuple[str, str, str]
"""Answer, slip, unit."""


def _stock(match: re.Match[str]) -> Solved:
    has, boxes, each, gone = (int(match[name]) for name in ("has", "boxes", "each", "gone"))
    return str(has + boxes * each - gone), str(has + boxes * each), match["thing"]


def _pages(match: re.Match[str]) -> Solved:
    each, days, more = (int(match[name]) for name in ("each", "days", "more"))
    return str(each * days + more), str(each * days), match["thing"]


def _arrival(match: re.Match[str]) -> Solved:
    hour, minute, hours, minutes = (int(match[name]) for name in ("hour", "minute", "hours", "minutes"))
    total = hour * 60 + minute + hours * 60 + minutes
    hasty = hour + hours + (0 if minute + minutes >= 60 else 1)  # the carry, forgotten or invented
    return _clock(total), _clock(hasty * 60 + (minute + minutes) % 60), ""


def _weekday(match: re.Match[str]) -> Solved:
    today, after = DAYS.index(match["today"]), int(match["after"])
    return DAYS[(today + after) % 7], DAYS[(today + after + 1) % 7], ""


def _sorting(match: re.Match[str]) -> Solved:
    given = match["words"].split(", ")
    words = sorted(given)
    hasty = words[:-2] + words[:-3:-1]
    return ", ".join(words), ", ".join(hasty), ""


def _letters(match: re.Match[str]) -> Solved:
    count = match["word"].count(match["letter"])
    return str(count), str(count - 1 if count > 1 else count + 1), "times"


def _convert(match: re.Match[str]) -> Solved:
    much, more = int(match["much"]), int(match["more"])
    factor = FACTORS[match["large"], match["small"]]
    return str(much * factor + more), str(much * factor), match["small"]


def _clock(minutes: int) -> str:
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


KINDS: dict[str, tuple[re.Pattern[str], Callable[[re.Match[str]], Solved]]] = {
    "stock": (
        re.compile(
            r"An? [a-z ]{3,40} has (?P<has>\d{1,6}) (?P<thing>[a-z]{3,20})\. It gets (?P<boxes>\d{1,4}) boxes of "
            r"(?P<each>\d{1,4}) (?P=thing) and sells (?P<gone>\d{1,4}) (?P=thing)\. How many (?P=thing) are left\?"
        ),
        _stock,
    ),
    "pages": (
        re.compile(
            r"[A-Z][a-z]{1,20} [a-z]{3,20} (?P<each>\d{1,4}) (?P<thing>[a-z]{3,20}) on each of (?P<days>\d{1,3}) days "
            r"and (?P<more>\d{1,4}) (?P=thing) on the day after\. How many (?P=thing) is that in all\?"
        ),
        _pages,
    ),
    "arrival": (
        re.compile(
            r"A [a-z]{3,20} leaves at (?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d) and travels for "
            r"(?P<hours>\d{1,2}) hours and (?P<minutes>[1-5]?\d) minutes\. When does it arrive\?"
        ),
        _arrival,
    ),
    "weekday": (
        re.compile(
            rf"Today is (?P<today>{'|'.join(DAYS)})\. Which day of the week is it in (?P<after>\d{{1,4}}) days\?"
        ),
        _weekday,
    ),
    "sorting": (
        re.compile(r"Put these words in alphabetical order: (?P<words>[a-z]{2,20}(?:, [a-z]{2,20}){3,7})\."),
        _sorting,
    ),
    "letters": (
        re.compile(r"How often does the letter (?P<letter>[a-z]) occur in the word (?P<word>[a-z]{3,40})\?"),
        _letters,
    ),
    "convert": (
        re.compile(
            r"How many (?P<small>minutes|seconds|hours|days) are (?P<much>\d{1,4}) (?P<large>hours|minutes|days|weeks) "
            r"and (?P<more>\d{1,3}) (?P=small)\?"
        ),
        _convert,
    ),
}


def find(text: str) -> list[Question]:
    """All questions in a text that can be solved, in their order."""
    found = []
    for kind, (pattern, solve) in KINDS.items():
        for match in pattern.finditer(text):
            if kind == "convert" and (match["large"], match["small"]) not in FACTORS:
                continue
            answer, slip, unit = solve(match)
            found.append(Question(kind, match[0], answer, slip, unit, match.start(), match.end()))
    return sorted(found, key=lambda question: question.start)
