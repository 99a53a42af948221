"""An agent that asks three times and takes what most say, and a grader that gives half for the right answer in a frame.

Any module beside the run file will do. The fields of a task are those of your questions, here `text` and `solution`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from actors.prompts.chat import Chat
from actors.scoring.template import fill


async def answer(task: Mapping[str, Any], template: str, chat: Chat) -> str:
    """What two of three replies agree on, else the first. `chat` tries again by itself, and counts what it took."""
    prompt = fill(template, task)
    replies = await asyncio.gather(*(chat(prompt) for _ in range(3)))
    said, times = Counter(reply.strip() for reply in replies).most_common(1)[0]
    return said if times > 1 else replies[0].strip()


def grade(task: Mapping[str, Any], answer: str) -> tuple[float, str]:
    """A reward from 0 to 1, and a reason, which critiques are shown."""
    wanted = str(task["solution"])
    if answer == wanted:
        return 1.0, "right"
    if wanted in answer:
        return 0.5, f"{wanted!r} is there, but not alone"
    return 0.0, f"expected {wanted!r}"
