"""How a standings document is read and said: tolerant readers and short phrases for people.

Invariant: nothing here raises, whatever JSON it is given: what is missing, null, of another type or not finite reads
as nothing and is shown as a dash. Text from elsewhere reaches a terminal only through `text`, `lines` or `as_json`:
without control, bidirectional and zero-width characters, so that it cannot control the terminal.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

DASH = "–"

STATES: dict[str, tuple[str, str, str]] = {
    "alive": ("●", "alive", "green"),
    "returned": ("●", "alive", "green"),
    "suspect": ("◐", "silent", "yellow"),
    "stalled": ("◌", "no progress", "yellow"),
    "restarting": ("↻", "restarting", "yellow"),
    "lost": ("✖", "lost", "bold red"),
    "left": ("○", "finished", "grey58"),
}
"""A role's state in the standings: sign, the word that a user reads, style."""


def number(value: Any) -> float | None:
    """The finite number that this is, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def text(value: Any, default: str = "") -> str:
    """One line of printable text; `default` where there is none."""
    if value is None:
        return default
    line = value if isinstance(value, str) else str(value)
    return line if line.isprintable() else "".join(sign if sign.isprintable() else " " for sign in line)


def lines(value: str) -> str:
    """Make a text of any number of lines printable; tabs stay."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else " " for sign in value.replace("\r\n", "\n"))


def as_json(value: Any, indent: int | None = None) -> str:
    """Write JSON for people and scripts: letters are not escaped, and characters that control a terminal are."""
    plain = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    if plain.isprintable():
        return plain
    return "".join(sign if sign.isprintable() or sign == "\n" else _escaped(sign) for sign in plain)


def _escaped(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))


def mapping(value: Any) -> dict[str, Any]:
    """The JSON object that this is, or an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """The JSON list that this is, or an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else []


def objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list; whatever else it holds is left out."""
    return [item for item in listing(value) if isinstance(item, dict)]


def clock(seconds: Any) -> str:
    """A running time: `1:23`, `1:02:03`."""
    found = number(seconds)
    if found is None:
        return DASH
    whole = max(0, int(found))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def span(seconds: Any) -> str:
    """A duration in at most six characters: `3.2 s`, `45 s`, `2m05`, `3h07`, `4d02`."""
    found = number(seconds)
    if found is None:
        return DASH
    found = max(0.0, found)
    if found < 9.95:
        return f"{found:.1f} s"
    if found < 99.5:
        return f"{found:.0f} s"
    minutes, rest = divmod(round(found), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}"
    if minutes < 60 * 24:
        return f"{minutes // 60}h{minutes % 60:02d}"
    return f"{minutes // 1440}d{minutes // 60 % 24:02d}"


def count(value: Any) -> str:
    """A whole number with thousands marked: `123,456`."""
    found = number(value)
    return DASH if found is None else f"{found:,.0f}"


def short(value: Any) -> str:
    """A count in at most five characters: `950`, `12.3k`, `4.56M`."""
    found = number(value)
    if found is None:
        return DASH
    if abs(found) < 9.95 and found != int(found):
        return f"{found:.1f}"
    for limit, divisor, unit in ((999.5, 1.0, ""), (999.5e3, 1e3, "k"), (999.5e6, 1e6, "M"), (999.5e9, 1e9, "G")):
        if abs(found) < limit:
            scaled = found / divisor
            places = 0 if not unit or abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:.{places}f}{unit}"
    return f"{found:.0e}"


def decimal(value: Any, digits: int = 4) -> str:
    """A real number with about `digits` significant digits: `-18.20`, `0.0123`, `3.1e-05`."""
    found = number(value)
    if found is None:
        return DASH
    if found == 0:
        return "0"
    size = math.floor(math.log10(abs(found)))
    if size < -4 or size >= 7:
        return f"{found:.1e}"
    return f"{found:,.{min(4 if size < -2 else digits, max(0, digits - 1 - size))}f}"


def rate(value: Any) -> str:
    """Something per second: `1,234/s`, `2.1/s`."""
    found = number(value)
    if found is None:
        return f"{DASH}/s"
    return f"{found:.1f}/s" if abs(found) < 99.5 and found != int(found) else f"{found:,.0f}/s"


def version(value: Any) -> str:
    """A policy's version: `v812`, and in a later life `v812 (life 2)`."""
    parts = listing(value)
    if len(parts) != 2 or number(parts[1]) is None:
        return DASH
    life = number(parts[0]) or 0
    if not life and not parts[1]:
        return DASH  # nothing was published yet
    return f"v{parts[1]:.0f}" + (f" (life {life:.0f})" if life > 1 else "")


def state(value: Any) -> tuple[str, str, str]:
    """(sign, word, style) of a role's state; an unknown state is shown as it came."""
    key = text(value)
    return STATES.get(key, ("?", key or "unknown", "yellow"))


def time_of_day(unix: Any) -> str:
    """The local time of an event, `12:03:59`."""
    found = number(unix)
    try:
        return DASH * 8 if found is None else datetime.fromtimestamp(found).astimezone().strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return DASH * 8


def waits(document: dict[str, Any]) -> list[tuple[str, str, str, float]]:
    """Who waits for whom and for what, since how many seconds: the longest first."""
    found = [
        (
            text(item.get("who"), "?"),
            text(item.get("for"), "?"),
            text(item.get("what")),
            number(item.get("seconds")) or 0.0,
        )
        for item in objects(document.get("waits"))
    ]
    return sorted(found, key=lambda wait: -wait[3])


def progress(document: dict[str, Any]) -> float | None:
    """How much of the run is done, 0 to 1, by the stop rule that is nearest; None where none can tell."""
    stop = mapping(document.get("stop"))
    shares = []
    for rule in ("seconds", "env_steps"):
        limit, done = number(stop.get(rule)), number(document.get(rule))
        if limit and limit > 0 and done is not None:
            shares.append(min(1.0, max(0.0, done / limit)))
    return max(shares, default=None)
