"""Thoughts of a reasoning model that its server leaves in the reply.

Such a reply begins with `<think>...</think>`, or with the thoughts and only `</think>` if the chat format has already
opened the tag.
"""

from __future__ import annotations

import re

_OPENED = re.compile(r"\s*<(think|thinking|reasoning)>", re.IGNORECASE)
_CLOSED = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)


def without_thoughts(reply: str) -> str:
    """Return the reply without its thoughts; empty if the thoughts have no end."""
    while opened := _OPENED.match(reply):
        end = re.compile(f"</{opened[1]}>", re.IGNORECASE).search(reply, opened.end())
        if end is None:
            return ""
        reply = reply[end.end() :].lstrip()
    closed = _CLOSED.search(reply)
    if closed is not None and re.search(f"<{closed[0][2:]}", reply[: closed.start()], re.IGNORECASE) is None:
        return reply[closed.end() :].lstrip()
    return reply
