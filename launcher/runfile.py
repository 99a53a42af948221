"""The run file: what a run is asked to be, as closed and frozen models.

Invariant: a `RunFile` that exists is right: every key is known, every value has its type and range, and no combination
contradicts itself. What is wrong raises one RequestError that names every mistake by its path. A resolved run file
(`write`) read again (`load`) is equal to itself, so that `--resume` rests on it.

The models are the only description of the keys: `launcher.mistakes` reads them to find the nearest known key.
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
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from actors.prompts.settings import Endpoints, Prompts
from actors.scripted.settings import Scripted
from broker.errors import RequestError
from launcher import prompting
from launcher.combinations import contradictions, leaves
from launcher.curriculum import Curriculum
from launcher.mistakes import nearest, report
from tracker.curriculum.settings import differences

DEFAULT_RUN = "spread"

Settings = dict[str, JsonValue]
Count = Annotated[int, Field(ge=1, lt=2**53)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """What all sections share: closed, frozen, strict."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Stop(Section):
    """When the run ends: at the first that is reached; with none of them it goes on until it is interrupted."""

    seconds: Seconds | None = None
    env_steps: Count | None = None
    mean_return: Annotated[float, Field(allow_inf_nan=False)] | None = Field(default=None, alias="return")
    """The mean over the last 100 episodes; the key is `return`."""


class Environment(Section):
    """What the actors step: a Gymnasium id, a PettingZoo module, or `package.module:callable`."""

    id: Annotated[str, Field(min_length=1, max_length=256)]
    settings: Settings = {}
    normalise: Annotated[tuple[Literal["observation", "reward"], ...], Field(strict=False)] = ()


class Actors(Section):
    """How many actors there are, and what each does."""

    processes: Annotated[int, Field(ge=1, le=4096)] = 2
    environments: Annotated[int, Field(ge=1, le=65536)] = 16
    """Copies of the environment within each actor."""
    vector: bool = False
    """Take Gymnasium's own vector form of the environment, where it has one."""
    rollout: str = "environments"
    concurrency: Annotated[int, Field(ge=1, le=4096)] = 1
    """Rollouts that one actor runs at once, where they are asynchronous."""
    settings: Settings = {}


class Policies(Section):
    """Which policies there are, and what they are made of."""

    network: str = "mlp"
    settings: Settings = {}
    agents: dict[str, str] = {}
    """Glob of agents -> policy; the first that matches counts; an agent that none matches has a policy of its own."""
    names: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """The policies of a run without an environment."""


class Service(Section):
    """A process of the user's own that serves something to rollouts; its role is `endpoint-NAME`."""

    main: str
    """`package.module:function`, called as `function(plain, ending)`."""
    settings: Settings = {}


class Learner(Section):
    """How each policy learns."""

    algorithm: str = "ppo"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    settings: Settings = {}
    fragment_steps: Annotated[int, Field(ge=1, le=65536)] = 32
    """Steps of one environment in a fragment (T)."""
    window: Annotated[int, Field(ge=1, le=65536)] = 2
    """Fragments that one actor may have under way to one learner."""
    max_staleness: Annotated[int, Field(ge=0, lt=2**31)] = 10
    """Versions; older experience is dropped and counted."""
    checkpoint_seconds: Seconds = 30.0


class Tracker(Section):
    """The one that writes: where it listens and how it counts."""

    epoch_steps: Count = 50_000
    """Environment steps that close an epoch."""
    lease_seconds: Seconds = 60.0
    address: str = "ipc"
    """`ipc`, or `tcp://host:port` (its XPUB is the next port)."""
    insecure: bool = False
    """Allows an address that is not loopback without keys."""


class Supervision(Section):
    """How often a role may fall before the run gives up."""

    restarts: Annotated[int, Field(ge=0, le=1000)] = 5
    """Restarts of one role within 60 s."""
    backoff_seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.5
    """The wait before the first restart; it doubles with each one in the same 60 s."""


class RunFile(Section):
    """The whole run file. `seed` and `folder` are filled in by `load`, everything else has a default."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "run"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    folder: str | None = None
    """Where the user's own modules are: appended to the children's path, never put first."""
    stop: Stop = Stop()
    environment: Environment | None = None
    actors: Actors = Actors()
    policies: Policies = Policies()
    services: dict[str, Service] = {}
    learner: Learner = Learner()
    tracker: Tracker = Tracker()
    supervision: Supervision = Supervision()
    curriculum: Curriculum | None = None
    prompts: Prompts | None = None
    endpoints: Endpoints | None = None
    scripted: Scripted | None = None

    def to_plain(self) -> dict[str, Any]:
        """The resolved run file as JSON-able mappings, without the keys that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], label: str = "the run file") -> Self:
        """The run file that `to_plain` gave, or a parsed TOML; RequestError names every mistake."""
        try:
            run = cls.model_validate(dict(plain))
        except ValidationError as error:
            raise report(label, error, cls) from None
        wrong = contradictions(run)
        if wrong:
            raise report(label, wrong, cls)
        return run

    def to_toml(self) -> str:
        """The resolved run file as TOML text."""
        import tomli_w

        return tomli_w.dumps(self.to_plain())

    def write(self, path: Path) -> None:
        """Write the resolved run file, synced and whole or not at all."""
        temporary = path.with_name(path.name + ".new")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(self.to_toml())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


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
        if file.is_file():
            return Source(file.read_text(encoding="utf-8"), f"run {name}", None)
        if not path.is_file():
            raise RequestError(f"no run is named {name!r}{nearest(name, shipped())}; a file of your own ends in .toml")
    try:
        return Source(path.read_text(encoding="utf-8"), name, path.resolve().parent)
    except UnicodeDecodeError as error:
        raise RequestError(f"{name}: not UTF-8 text (byte {error.start}); TOML must be") from None
    except OSError as error:
        raise RequestError(f"{name}: cannot be read: {error.strerror}") from None


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


def load(run: str | Path | None = None, overrides: Sequence[str] = (), seed: int | None = None) -> RunFile:
    """The resolved run file: the TOML, then the overrides, then the seed (drawn and recorded when none is given)."""
    source = locate(run)
    tables = parse(source)
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
    return RunFile.from_plain(tables, label)


def resume(stored: Path, overrides: Sequence[str] = ()) -> tuple[RunFile, dict[str, tuple[Any, Any]]]:
    """The stored run file with the overrides that a resumed run may have, and what they changed."""
    before = load(stored)
    after = load(stored, overrides)
    return after, resume_differences(before, after)


_MAY_CHANGE = re.compile(
    r"stop\..*|actors\.processes|learner\.checkpoint_seconds|learner\.settings\.(\w*_)?rate"
    r"|tracker\.lease_seconds|supervision\..*|curriculum\..*|prompts\.rollout_seconds|scripted\..*"
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
            "a resumed run may change only [stop], actors.processes, rates, and where and how fast endpoints are; "
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
