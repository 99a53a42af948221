"""Reading an endpoint's response: the text of a completion or a fault in the endpoint's words, and the token usage.

Invariant: pure, and never raises: every body with any status is a text, or a fault that quotes the body.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from actors.prompts.failures import EVENT_STREAM, STATUS_OF_CODE, Fault
from actors.scoring.thoughts import without_thoughts

QUOTED = 300
"""Most characters of a response that a reason quotes."""
MAX_TOKENS = 100_000_000
"""Most tokens of one call: more than any model takes. A larger number is ignored."""
UNFINISHED = {
    "length": "max_tokens were used up before the answer began",
    "tool_calls": "it calls a tool instead of answering",
    "function_call": "it calls a function instead of answering",
    "content_filter": "the endpoint's content filter removed the answer",
}
"""Finish reasons with which an empty content is a failure of the template: another template may do better under the
same settings, and leaving such trials out would leave out the questions that a template makes too hard."""


class Reply(NamedTuple):
    """What was read from a response. Tokens are None if the response has no usable number."""

    text: str | None
    fault: Fault | None = None
    unfinished: str | None = None
    """Why there is no text, if the model ended without an answer."""
    tokens_in: int | None = None
    tokens_out: int | None = None


def read_reply(status: int, content_type: str, body: bytes) -> Reply:
    """Read the body of a response of any status."""
    try:
        whole = json.loads(body)
    except (ValueError, RecursionError):
        return Reply(None, _not_json(status, content_type, body))
    if not isinstance(whole, dict):
        return Reply(None, _no_completion(status, body))
    usage = whole.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    error = _error_in(whole, body)
    if error is not None:
        return Reply(None, error._replace(status=status) if status >= 300 else error, None, *tokens)
    try:
        choice = whole["choices"][0]
        message = choice["message"]
        content = _text(message.get("content"))
        text = without_thoughts(content)
        refusal, finish = message.get("refusal"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Reply(None, _no_completion(status, body), None, *tokens)
    if status >= 300:
        return Reply(None, _no_completion(status, body), None, *tokens)
    if not text and isinstance(refusal, str) and refusal:
        return Reply(None, None, f"the model refuses: {quoted(refusal)}", *tokens)
    if not text and isinstance(finish, str) and finish in UNFINISHED:
        return Reply(None, None, f"finish_reason {finish!r}: {UNFINISHED[finish]}", *tokens)
    if content and not text:
        return Reply(None, None, f"the reply is a thought without an answer after it: {quoted(content)}", *tokens)
    return Reply(text, None, None, *tokens)


def quoted(text: str) -> str:
    """Return the beginning of a text as one line without control characters."""
    line = " ".join("".join(part if part.isprintable() else " " for part in text[: 8 * QUOTED]).split())
    return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"


def _text(content: Any) -> str:
    """Return the text of a message's content: a text or a list of parts, without the parts that are thoughts."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError("a content is either a text or a list of parts")
    texts = [part if isinstance(part, str) else part.get("text") for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _error_in(whole: dict[str, Any], body: bytes) -> Fault | None:
    """Return the error in a JSON body, whatever its status; None if it has no error."""
    choices = whole.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    error = whole.get("error") or (whole if whole.get("object") == "error" else None)
    error = error or (first.get("error") if isinstance(first, dict) else None)
    if not error:
        return None
    if not isinstance(error, dict):
        return Fault(None, error if isinstance(error, str) else _quoted_body(body))
    message, code, kind = error.get("message"), error.get("code"), error.get("type")
    text = message if isinstance(message, str) and message else _quoted_body(body)
    return Fault(_status(code), text, " ".join(word for word in (code, kind) if isinstance(word, str)))


def _status(code: Any) -> int | None:
    if isinstance(code, str):
        code = int(code) if code.isdecimal() and len(code) == 3 else STATUS_OF_CODE.get(code)
    return code if type(code) is int and 300 <= code <= 599 else None


def _not_json(status: int, content_type: str, body: bytes) -> Fault:
    if status >= 300:
        return Fault(status, _quoted_body(body))
    if content_type.startswith("text/event-stream") or body.lstrip().startswith((b"data:", b"event:")):
        message = f"its response is an event stream, which was not requested: {_quoted_body(body)}"
        return Fault(None, message, EVENT_STREAM)
    kind = quoted(content_type.partition(";")[0]) or "without a content type"
    return Fault(None, f"its response is not a chat completion ({kind}): {_quoted_body(body)}")


def _no_completion(status: int, body: bytes) -> Fault:
    if status >= 300:
        return Fault(status, _quoted_body(body))
    return Fault(None, f"its response is not a chat completion: {_quoted_body(body)}")


def _quoted_body(body: bytes) -> str:
    return quoted(body[: 32 * QUOTED].decode("utf-8", "replace")) or "an empty body"


def _count(value: Any) -> int | None:
    """Return a number of tokens as an integer (50.0 is 50); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
        return None
    return math.ceil(value)
