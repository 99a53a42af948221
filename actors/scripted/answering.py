"""How the scripted model answers a question, and how well: by what the rest of the prompt asks for.

Invariant: the question decides what is right, the template how likely that is and in which form it comes, the draws the
rest. Nobody is told whether an answer was meant to be right.
"""

from __future__ import annotations

from actors.scripted.draws import Draws
from actors.scripted.questions import Question
from actors.scripted.themes import NUMBERS, strengths

HASTY = {
    "stock": 0.62,
    "pages": 0.74,
    "arrival": 0.6,
    "weekday": 0.66,
    "sorting": 0.85,
    "letters": 0.62,
    "convert": 0.75,
}
"""How often each kind is right without thinking about it."""
STEPPED, CHECKED = 0.93, 0.03
"""How often it is right step by step; what checking adds."""
CHATTY, SHOWN, LEAK = 0.4, 0.75, 0.015
"""How often an answer comes in a sentence: unasked; with its steps; though the answer alone was asked for."""
FREE = {"arrival": 0.6, "sorting": 0.5, **dict.fromkeys(NUMBERS, 0.25)}
"""How often an answer's form is the model's own where none is asked for."""
FORM = {"arrival": "clock", "sorting": "lists", **dict.fromkeys(NUMBERS, "digits")}
LONG, TIRED = 700, 0.0002
"""Characters of a prompt from which on each more makes mistakes likelier, by that much."""
WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905 - reads better
SENTENCES = ("The answer is {}.", "That makes {}.", "It is {}, I believe.", "Sure! The answer is {}.")
UNKNOWN = "This is a simulation: it does not know how to answer that."


def answer(question: Question, prompt: str, draws: Draws) -> str:
    """What the model says to `question`; `prompt` is everything else that it was given."""
    asked = strengths(prompt)
    right = draws.chance("right", accuracy(question.kind, asked, len(prompt)))
    said = question.answer if right else question.slip
    form = FORM.get(question.kind)
    if form is not None and draws.chance("free", FREE[question.kind] * (1 - asked[form])):
        said = _free(question, said, draws)
    if draws.chance("chatty", chattiness(asked)):
        sentence = draws.choose("sentence", SENTENCES).format(said)
        return (
            f"Step by step: first I read the numbers, then I put them together.\n{sentence}"
            if asked["steps"]
            else sentence
        )
    return said


def accuracy(kind: str, asked: dict[str, float], length: int) -> float:
    """How likely the answer is right, whatever its form."""
    base = HASTY[kind]
    thought = base if kind == "sorting" else base + asked["steps"] * max(0.0, STEPPED - base)
    if kind == "sorting":
        thought += 0.1 * asked["check"]
    return max(0.1, min(0.99, thought + CHECKED * asked["check"] - TIRED * max(0, length - LONG)))


def chattiness(asked: dict[str, float]) -> float:
    """How likely the answer comes with words around it: thinking aloud is talk, unless the answer alone is wanted."""
    free = CHATTY + asked["steps"] * (SHOWN - CHATTY)
    return max(LEAK, free * (1 - asked["bare"]))


def _free(question: Question, said: str, draws: Draws) -> str:
    if question.kind == "arrival":
        hour, minute = said.split(":")
        return f"{(int(hour) - 1) % 12 + 1}:{minute} {'am' if int(hour) < 12 else 'pm'}"
    if question.kind == "sorting":
        words = said.split(", ")
        return draws.choose("list", (", ".join(words[:-1]) + " and " + words[-1], "\n".join(words), " < ".join(words)))
    small = int(said) < len(WORDS) and draws.chance("word", 0.5)
    return WORDS[int(said)] if small else f"{said} {question.unit}"
