"""The default agent: it fills the template with the task and says that.

Your own is any `async def answer(task, template, chat) -> str`: it may say several things, in turn or at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.prompts.chat import Chat
from actors.scoring.template import fill


async def answer(task: Mapping[str, Any], template: str, chat: Chat) -> str:
    """The model's reply to the filled template."""
    return await chat(fill(template, task))
