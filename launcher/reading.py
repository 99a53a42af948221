"""From what was asked on the command line to a `RunFile`: found, parsed, overridden, resolved.

Invariant: whatever is wrong on the way is one RequestError, with file and line where there is one. A resumed run takes
only such overrides as leave what was learned its meaning.
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from broker.errors import RequestError
from broker.text_files import exists, read_text
from launcher import prompting
from launcher.combinations import contradictions, leaves
from launcher.mistakes import nearest, report
from launcher.runfile import RunFile
from tracker.curriculum.settings import differences

DEFAULT_RUN = "spread"


@dataclass(frozen=True)
class Source:
    """A run file as it was found: its text, what errors call it, and the folder of the user's modules beside it."""

    text: str
    label: str
    folder: Path | None


def shipped() -> list[str]:
    """The names of the run files that come with the package."""
    return sorted(file.name[:-5] for file in resources.files("runs").iterdir() if file.name.endswith(".toml"))


def locate(run: str | Path | None = None) -> Source:
    """The run file of that path or shipped name (None: `spread`); RequestError if there is none."""
    name = str(run if run is not None else DEFAULT_RUN)
    path = Path(name).expanduser()
    if not (isinstance(run, Path) or path.suffix == ".toml" or os.sep in name):
        file = resources.files("runs").joinpath(f"{name}.toml")
        if name in shipped():
            return Source(file.read_text(encoding="utf-8"), f"run {name}", None)
        if not exists(path):
            raise RequestError(f"no run is named {name!r}{nearest(name, shipped())}; a file of your own ends in .toml")
    return Source(read_text(path), name, path.resolve().parent)


def parse(source: Source) -> dict[str, Any]:
    """The TOML's tables; RequestError with file and line where the syntax is wrong."""
    try:
        return tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        text = str(error)
        place = re.search(r" \(at line (\d+), column (\d+)\)$", text)
        if place:
            where, text = f"{source.label}:{place[1]}:{place[2]}", text[: place.start()]
        else:
            where = f"{source.label}:{source.text.count(chr(10)) + 1}"
        raise RequestError(f"{where}: {text}") from None


def override(tables: dict[str, Any], setting: str) -> None:
    """Apply one `--set a.b=value` in place: the value is TOML, or else text; an empty one takes the key away."""
    key, equals, value = setting.partition("=")
    path = _key_path(key.strip())
    if not equals or not all(path):
        raise RequestError(f"--set {setting}: write it as key=value, for example --set actors.processes=4")
    table = tables
    for place, part in enumerate(path[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RequestError(f"--set {setting}: {'.'.join(path[: place + 1])} is a value, not a section")
    if value.strip():
        table[path[-1]] = _toml_value(value.strip())
    else:
        table.pop(path[-1], None)


def from_plain(plain: Mapping[str, Any], label: str = "the run file") -> RunFile:
    """The run file that `RunFile.to_plain` gave, or a parsed TOML; RequestError names every mistake."""
    try:
        run = RunFile.model_validate(dict(plain))
    except ValidationError as error:
        raise report(label, error, RunFile) from None
    wrong = contradictions(run)
    if wrong:
        raise report(label, wrong, RunFile)
    return run


def load(
    run: str | Path | None = None, overrides: Sequence[str] = (), seed: int | None = None, *, stored: bool = False
) -> RunFile:
    """The resolved run file: the TOML, then the overrides, then the seed (drawn and recorded when none is given).

    `stored`: the file is a run's own copy, and keys that are newer than it get the values that held for the run.
    """
    source = locate(run)
    tables = parse(source)
    if stored and isinstance(tables.get("policies"), dict):
        tables["policies"].setdefault("actions", "clip")
    for setting in overrides:
        override(tables, setting)
    if seed is not None:
        tables["seed"] = seed
    if "name" not in tables and source.folder is not None:
        tables["name"] = Path(source.label).stem
    tables.setdefault("seed", secrets.randbelow(2**31))
    if source.folder is not None and not isinstance(tables.get("folder"), str):
        tables.setdefault("folder", str(source.folder))
    elif isinstance(tables.get("folder"), str):
        tables["folder"] = str((source.folder or Path.cwd()) / Path(tables["folder"]).expanduser())
    label = source.label + (" with --set" if overrides else "")
    prompting.resolve(tables, label)
    return from_plain(tables, label)


def resume(stored: Path, overrides: Sequence[str] = ()) -> tuple[RunFile, dict[str, tuple[Any, Any]]]:
    """The stored run file with the overrides that a resumed run may have, and what they changed."""
    before = load(stored, stored=True)
    after = load(stored, overrides, stored=True)
    return after, resume_differences(before, after)


_MAY_CHANGE = re.compile(
    r"stop\..*|environment\.(start|step)_seconds|actors\.processes|learner\.(checkpoint|ending)_seconds"
    r"|learner\.settings\.(\w*_)?rate|tracker\.lease_seconds|supervision\..*|curriculum\..*"
    r"|prompts\.(rollout_seconds|max_missing_share)|scripted\..*"
    r"|endpoints\.\w+\.(url|key_env|key_file|concurrency|timeout_seconds|retries|backoff_seconds|price_in|price_out)"
)


def resume_differences(stored: RunFile, asked: RunFile) -> dict[str, tuple[Any, Any]]:
    """Path -> (stored, asked) of what changed; RequestError if a resumed run may not change it.

    Of the curriculum, what tunes it may change, and what shapes it where the run file names a migration.
    """
    if stored.curriculum is not None and asked.curriculum is not None:
        differences(stored.curriculum.to_plain(), asked.curriculum)
    elif stored.curriculum is not asked.curriculum:
        raise RequestError("a resumed run keeps its [curriculum], or goes on without one; start a new run")
    before, after = leaves(stored.to_plain()), leaves(asked.to_plain())
    changed = {
        path: (before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }
    refused = {path: values for path, values in changed.items() if not _MAY_CHANGE.fullmatch(path)}
    if refused:
        told = "\n".join(f"  {path}: {old!r} -> {new!r}" for path, (old, new) in refused.items())
        raise RequestError(
            "a resumed run may change [stop], actors.processes, checkpoint_seconds, ending_seconds, rates, "
            "lease_seconds, the environment's deadlines, [supervision], [curriculum], and addresses and speeds of "
            "endpoints (docs/run-file.md has the list); "
            f"start a new run for\n{told}"
        )
    return changed


def _key_path(key: str) -> list[str]:
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return key.split(".")  # a glob such as policies.agents.agent_* is no bare TOML key
    path = []
    while isinstance(table, dict) and len(table) == 1:
        (part, table) = next(iter(table.items()))
        path.append(part)
    return path


def _toml_value(text: str) -> Any:
    try:
        tables = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return tables["value"] if tables.keys() == {"value"} else text
