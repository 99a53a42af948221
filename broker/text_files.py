"""Text files and records that users wrote with any tool: editors, spreadsheets, other systems.

A text is UTF-8, with or without a byte order mark, or UTF-16 with one; any line ends are accepted. Records are JSON
lines, or one JSON list. A file that cannot be read is one RequestError that names the file and, if there is one, the
line.
"""

from __future__ import annotations

import codecs
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broker.errors import RequestError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def path_error(error: OSError | ValueError) -> str:
    """Say why a path cannot be opened, and how to repair that."""
    if isinstance(error, OSError):
        if error.errno == errno.ENAMETOOLONG:
            return "the path, or a name in it, is too long; choose a shorter one"
        return error.strerror or str(error)
    return "the path holds a zero byte; remove it" if "null" in str(error) else str(error)


def exists(path: Path) -> bool:
    """Tell whether there is a file at `path`. RequestError for a path that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError) as error:
        raise RequestError(f"{str(path)[:200]}: {path_error(error)}") from None


def read_text(path: Path) -> str:
    """Read the text of a file; its lines end with a line feed."""
    return decode(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Read the content of a file. RequestError if it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise RequestError(f"{str(path)[:200]}: cannot be read: {path_error(error)}") from None


def decode(content: bytes, path: Path) -> str:
    """Decode the content of a text file; an error names `path`."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path}: not {encoding.upper()} text (byte {len(mark) + error.start}); save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def records(text: str, path: Path, max_characters: int) -> Iterator[tuple[str, Any]]:
    """Yield (place, value) for each record of a text, in order; empty lines are skipped.

    A line may have at most `max_characters` characters.
    """
    if text.lstrip().startswith("["):
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            raise RequestError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
        except RecursionError:
            raise RequestError(f"{path}: not JSON: it is nested too deeply; write one object a line") from None
        for number, value in enumerate(whole, start=1):
            yield f"{path}: item {number}", value
        return
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON text may hold U+2028
        if line.strip():
            yield f"{path}:{number}", _value(f"{path}:{number}", line, max_characters)


def _value(place: str, line: str, max_characters: int) -> Any:
    if len(line) > max_characters:
        raise RequestError(f"{place}: the line is longer than {max_characters:,} characters")
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{place}: not JSON: {error}; write one JSON object a line, or one list of them") from None
