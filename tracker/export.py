"""The ledger for other tools: one JSON file, or a folder of CSV or Parquet files by kind of fact; the best template.

Invariants: every fact up to the moment of the call is in the export once, in order; memory does not grow with the
ledger; what exists at `out` is replaced only once the new export is whole.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from pydantic_core import from_json

from broker.errors import RequestError
from tracker.disk import corrupt, failure
from tracker.folds import Folds
from tracker.leaderboard import best_text, texts_and_rewards
from tracker.ledger import LEDGER, LedgerReader, StoredFact
from tracker.templates import Templates

EXPORTS = "export"
"""The folder of a run directory that holds exports."""
_OWN = ("position", "source", "incarnation", "sequence", "time")


def export(run_dir: Path, to: str, out: Path) -> Path:
    """Export the ledger of a run to the file (json) or folder (csv, parquet) `out`, and give its path.

    json: `{"run": directory, "count": n, "facts": {kind: [{position, source, incarnation, sequence, time, body}]}}`; of
    a run that searches prompts also `"templates": [text, ...], "rewards": {text: [reward, ...]}`, first seen first,
    whole texts as keys, `[]` for a template without a trial.
    csv: `out/<kind>.csv`, a body's nested keys joined by dots, lists as JSON text.
    parquet: `out/<kind>.parquet`, the same columns with types (see `tracker.parquet`).
    RequestError: no ledger there, another form, pyarrow is missing (parquet), or `out` cannot be written.
    LedgerDamaged: the ledger cannot be read.
    """
    forms: dict[str, Callable[[LedgerReader, int, Path, Path], None]] = {
        "json": _to_json,
        "csv": _to_csv,
        "parquet": _to_parquet,
    }
    if to not in forms:
        raise RequestError(f"cannot export to {to!r}: choose one of {', '.join(forms)}")
    run_dir, out = Path(run_dir), Path(out)
    if to == "parquet" and find_spec("pyarrow") is None:
        raise RequestError("parquet needs pyarrow: `pip install 'headrace[parquet]'`, or export to json or csv")
    if to != "json" and out.exists() and not out.is_dir():
        raise RequestError(f"{out} is a file: {to} needs a folder, one file is written for each kind of fact")
    if to == "json" and out.is_dir():
        raise RequestError(f"{out} is a folder: name a file, for example {out / 'facts.json'}")
    if out.exists() and not (out.is_file() or out.is_dir()):
        raise RequestError(f"{out} is no file that may be replaced: name another")
    check_place(out)
    with LedgerReader(run_dir / LEDGER) as ledger:
        through = ledger.last_position
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
                forms[to](ledger, through, Path(scratch), out)
        except OSError as error:
            raise RequestError(f"cannot export to {out}: {error.strerror or error}; choose another place") from error
    return out


def check_place(out: Path) -> None:
    """Raise a RequestError if `out` is a file of a run, unless it is an earlier export: no other may be replaced."""
    place = out.resolve()
    for folder in place.parents:
        is_run = (folder / LEDGER).exists() or (folder / "run.toml").exists()
        if is_run and place.is_file() and place.relative_to(folder).parts[0] != EXPORTS:
            raise RequestError(
                f"{out} is a file of the run in {folder}: name another path, for example in {folder / EXPORTS}"
            )


def best_template(run_dir: Path, policy: str | None = None) -> str:
    """The text of the best template of a run, of this policy if there are several.

    RequestError: no ledger there, no templates in it, or several policies and none of them named.
    """
    with LedgerReader(Path(run_dir) / LEDGER) as ledger:
        text, known = best_text(_templates(ledger), policy)
    if text is not None:
        return text
    if not known:
        raise RequestError(f"{run_dir} has no templates: --best is for runs that search prompts")
    if policy is None and len(known) > 1:
        raise RequestError(f"{run_dir} has several searches: add --policy and one of {', '.join(known)}")
    if policy is not None and policy not in known:
        raise RequestError(f"--policy {policy!r} has no templates; {', '.join(known)} has")
    raise RequestError(f"the search of {policy or known[0]!r} has not scored a template yet: ask again later")


def _templates(ledger: LedgerReader) -> Templates:
    """The templates of a run, from their snapshot and the facts after it."""
    templates = Templates()
    Folds({"templates": templates}).restore(ledger)
    return templates


def _to_json(ledger: LedgerReader, through: int, scratch: Path, out: Path) -> None:
    kinds: dict[str, Path] = {}
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {}
        for position, source, incarnation, sequence, time, kind, body in ledger.read_all(0, through):
            own = json.dumps(dict(zip(_OWN, (position, source, incarnation, sequence, time), strict=True)))
            if kind not in files:
                kinds[kind] = scratch / f"{len(kinds)}.part"
                files[kind] = stack.enter_context(kinds[kind].open("w", encoding="utf-8"))
            else:
                files[kind].write(",\n")
            _parsed(ledger, position, body)  # it was checked on its way in: what is no JSON now was damaged since
            files[kind].write(f'{own[:-1]}, "body": {body}}}')
    whole = scratch / "whole"
    with whole.open("w", encoding="utf-8") as file:
        file.write(f'{{"run": {json.dumps(str(ledger.path.parent))}, "count": {through}, "facts": {{')
        for index, (kind, part) in enumerate(kinds.items()):
            file.write(f"{',' if index else ''}\n{json.dumps(kind)}: [\n")
            with part.open(encoding="utf-8") as content:
                shutil.copyfileobj(content, file)
            part.unlink()
            file.write("\n]")
        file.write("\n}")
        for key, value in (texts_and_rewards(_templates(ledger)) or {}).items():
            file.write(f",\n{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
        file.write("}\n")
    whole.replace(out)


def _to_csv(ledger: LedgerReader, through: int, scratch: Path, out: Path) -> None:
    columns: dict[str, dict[str, None]] = {}
    for kind, _, body in _flat(ledger, through):
        columns.setdefault(kind, {}).update(dict.fromkeys(body))
    with ExitStack() as stack:
        writers: dict[str, Any] = {}
        for kind, names in columns.items():
            file = stack.enter_context((scratch / f"{kind}.csv").open("w", encoding="utf-8", newline=""))
            writers[kind] = csv.writer(file)
            writers[kind].writerow([*_OWN, *names])
        for kind, own, body in _flat(ledger, through):
            writers[kind].writerow([*own, *(body.get(name) for name in columns[kind])])
    out.mkdir(exist_ok=True)
    for kind in columns:
        (scratch / f"{kind}.csv").replace(out / f"{kind}.csv")


def _to_parquet(ledger: LedgerReader, through: int, scratch: Path, out: Path) -> None:
    from tracker.parquet import write

    kinds = write(lambda: _flat(ledger, through), scratch)
    out.mkdir(exist_ok=True)
    for kind in kinds:
        (scratch / f"{kind}.parquet").replace(out / f"{kind}.parquet")


def _flat(ledger: LedgerReader, through: int) -> Iterator[tuple[str, StoredFact | tuple[Any, ...], dict[str, Any]]]:
    for *own, kind, body in ledger.read_all(0, through):
        flat: dict[str, Any] = {}
        _flatten("", _parsed(ledger, own[0], body), flat)
        yield kind, tuple(own), flat


def _parsed(ledger: LedgerReader, position: object, body: str) -> Any:
    try:
        return from_json(body)
    except ValueError as error:
        raise failure(corrupt(f"the body of fact {position} is no JSON: {error}"), ledger.path) from None


def _flatten(prefix: str, value: Any, flat: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), item, flat)
    elif isinstance(value, list):
        flat[prefix or "body"] = json.dumps(value)
    else:
        flat[prefix or "body"] = value
