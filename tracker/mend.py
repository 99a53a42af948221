"""A new ledger from what can be read of a damaged one.

Invariants: the damaged file is changed in nothing and kept beside the new one; the new one holds the facts from the
first up to the last before the damage, as they were (positions without holes, each source's in order). What stands
behind the damage stays in the damaged file alone: a ledger with a hole would promise what it does not hold. A fact of
which only the body is damaged keeps its place, as `refused`. If it is killed at any moment, running it once more
completes it: the plan of the exchange is on disk before the exchange begins.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from broker.delivery import body_text
from broker.errors import RequestError
from broker.files import read, sync_folder, write_whole
from tracker.facts import Row
from tracker.ledger import LEDGER, Ledger, LedgerDamaged, LedgerReader
from tracker.lock import RunLock
from tracker.reader import BESIDE, check_files, mending

CHUNK = 1_000
NEW = f"{LEDGER}.mended"
REFUSED = "refused"


class Mended(NamedTuple):
    """What came of it."""

    facts: int
    """In the new ledger."""
    why: str
    """Why it ends there; empty if every fact could be read."""
    aside: Path
    """The damaged file."""
    refused: int = 0
    """Number of facts with a damaged body."""


def mend(run_dir: Path) -> Mended:
    """Put a new ledger in the place of a damaged one.

    RequestError: there is no ledger, a tracker holds it, or it is sound.
    """
    path = Path(run_dir) / LEDGER
    begun = mending(path)
    if not check_files(path) and not os.path.lexists(begun):
        raise RequestError(f"no ledger at {path}: name the directory of a run (it holds {LEDGER})")
    with RunLock(path.parent):
        if not os.path.lexists(begun):
            if _sound(path):
                raise RequestError(f"{path} is not damaged: there is nothing to mend")
            facts, why, refused = _make(path)
            _begin(path, facts, why, refused)
        return _finish(path)


def rescue(ledger: Ledger) -> Path:
    """Write the ledger that a tracker has open into a new file that replaces the changed files.

    Returns where the changed files were moved; the tracker goes on with the new ledger. LedgerFull if there is no room
    for it. Another RunError if the tracker cannot read all of its ledger; nothing was replaced then.
    """
    path = ledger.path
    new = _clear(path)
    ledger.copy(new)
    with LedgerReader(new) as copy:
        copy.verify()
        copy.check_newest()
        if copy.last_position != ledger.last_position:
            raise LedgerDamaged(f"{copy.last_position} of {ledger.last_position} facts are left of {path}")
    _begin(path, ledger.last_position)
    aside = _finish(path).aside
    ledger.reopen()
    return aside


def _begin(path: Path, facts: int, why: str = "", refused: int = 0) -> None:
    """Record on disk that the new ledger is whole and will replace the other one."""
    plan = {"facts": facts, "why": why, "aside": _free(path).name, "refused": refused}
    write_whole(mending(path), json.dumps(plan).encode())
    sync_folder(path.parent)


def _finish(path: Path) -> Mended:
    """Exchange the ledgers according to the plan on disk."""
    begun = mending(path)
    try:
        plan = Mended(**json.loads(read(begun)))
    except (ValueError, TypeError) as error:
        raise RequestError(f"{begun} is damaged ({error}): remove it if {path} is whole") from error
    aside = path.parent / plan.aside
    _exchange(path, aside)
    sync_folder(path.parent)  # before the plan is removed
    begun.unlink()
    sync_folder(path.parent)
    return plan._replace(aside=aside)


def _clear(path: Path) -> Path:
    """Return the path of the new ledger, after removing the files of an earlier attempt."""
    new = path.with_name(NEW)
    for suffix in BESIDE:
        Path(f"{new}{suffix}").unlink(missing_ok=True)
    return new


def _make(path: Path) -> tuple[int, str, int]:
    """Write the new ledger. Returns its number of facts, why it has no more, and how many have a damaged body."""
    new = _clear(path)
    why: list[str] = []
    refused: list[int] = []
    with Ledger(new) as ledger:
        for rows in _readable(path, why, refused):
            with ledger.commit():
                ledger.append(rows)
        return ledger.last_position, " ".join(why), len(refused)


def _exchange(path: Path, aside: Path) -> None:
    """The damaged ledger goes aside and the new one in its place, from wherever this was left."""
    new = path.with_name(NEW)
    if not new.exists():
        return
    if not aside.exists():
        _move(path, aside)
    _move(new, path)  # where there was no room to fold its WAL in, that holds facts


def _move(path: Path, to: Path) -> None:
    """A ledger, and before it what stands beside it: once the file is there, all of it is."""
    for suffix in BESIDE:
        if Path(f"{path}{suffix}").exists():
            Path(f"{path}{suffix}").rename(f"{to}{suffix}")


def _sound(path: Path) -> bool:
    try:
        with LedgerReader(path) as ledger:
            ledger.verify()
            ledger.check_newest()
    except LedgerDamaged:
        return False
    why: list[str] = []
    refused: list[int] = []
    for _ in _readable(path, why, refused):  # pages have no checksum: only reading finds a flipped bit
        pass
    return not why and not refused


def _free(path: Path) -> Path:
    number = 1
    while any(os.path.lexists(f"{path}.damaged-{number}{suffix}") for suffix in BESIDE):
        number += 1
    return path.with_name(f"{path.name}.damaged-{number}")


def _readable(path: Path, why: list[str], refused: list[int]) -> Iterator[list[Row]]:
    """Yield facts in batches, from the first up to the last that can be read.

    Appends to `why` the error that ended it, and to `refused` the positions of facts with a damaged body.
    """
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        why.append(f"it cannot be opened ({error})")
        return
    connection.text_factory = bytes
    last: dict[tuple[str, str], int] = {}
    after, size = 0, CHUNK
    query = "SELECT * FROM facts NOT INDEXED WHERE position > ? ORDER BY position LIMIT ?"
    while True:
        try:
            found = connection.execute(query, (after, size)).fetchall()
        except sqlite3.Error as error:
            if size == 1:
                why.append(f"the fact {after + 1} cannot be read ({error})")
                break
            size = max(1, size // 8)  # nearer to the damage, step by step
            continue
        rows: list[Row] = []
        try:
            for position, *row in found:
                fact = _fact(after + len(rows) + 1, position, row, last)
                if fact[4] == REFUSED != row[4].decode():
                    refused.append(position)
                rows.append(fact)
        except ValueError as flaw:
            why.append(str(flaw))
        if rows:
            yield rows
        after += len(rows)
        if len(rows) < len(found) or not found:
            break
    connection.close()


def _fact(expected: int, position: object, row: list[Any], last: dict[tuple[str, str], int]) -> Row:
    """Decode the fact at the position that is expected next. ValueError if it is missing or cannot be decoded."""
    if position != expected:
        raise ValueError(f"the fact {expected} is missing")
    try:
        source, incarnation, kind = (row[place].decode() for place in (0, 1, 4))
        sequence, time, body = int(row[2]), int(row[3]), bytes(row[5])
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the fact {expected} cannot be decoded") from error
    key = (source, incarnation)
    if sequence != last.get(key, 0) + 1:
        raise ValueError(f"the fact {expected} of {source} has the sequence {sequence}, not {last.get(key, 0) + 1}")
    last[key] = sequence
    try:
        text = body.decode()
        from_json(text)
    except ValueError:
        begin = body[:1000].decode(errors="replace")
        kind, text = REFUSED, body_text({"kind": kind, "reason": "its body was damaged", "text": begin})
    return source, incarnation, sequence, time, kind, text
