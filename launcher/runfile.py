"""The run file: what a run is asked to be, as closed and frozen models.

Invariant: in a `RunFile` every key is known, and every value has its type and range; one that `launcher.reading` gives
does not contradict itself either. A resolved one (`write`) that is read again is equal to itself, so that `--resume`
rests on it.

The models are the only description of the keys: `launcher.mistakes` reads them to find the nearest known key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from actors.curriculum.settings import DrawingSettings
from actors.prompts.settings import Endpoints, Prompts
from actors.scripted.settings import Scripted
from broker.files import write_whole
from tracker.curriculum.settings import CurriculumSettings

Settings = dict[str, JsonValue]
Count = Annotated[int, Field(ge=1, lt=2**53)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_SECONDS = 366 * 86400.0
"""Of a deadline, which is a moment in ns."""


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
    start_seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 60.0
    """Deadline for making up to three copies, and playing them for a moment, before a run."""
    step_seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 600.0
    """An actor whose environment does not return from one call for this long is ended and started again."""


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
    actions: Literal["rescale", "clip"] = "rescale"
    """How actions reach a Box with finite bounds: -1 to 1 are mapped to the bounds, or actions are only clipped."""
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
    ending_seconds: Annotated[float, Field(ge=0, le=MOST_SECONDS)] = 30.0
    """Longest wait for a running update at the end of a run."""
    max_fragment_mb: Annotated[int, Field(ge=1, le=1024)] = 64
    """Largest fragment of a user's own rollout, in MiB. An environment's fragment size follows from its spaces."""


class Tracker(Section):
    """The one that writes: where it listens and how it counts."""

    epoch_steps: Count = 50_000
    """Environment steps that close an epoch."""
    lease_seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 60.0
    address: str = "ipc"
    """`ipc`, or `tcp://host:port` (its XPUB is the next port)."""
    insecure: bool = False
    """Allows an address that is not loopback without keys."""


class Supervision(Section):
    """How often a role may fall before the run gives up."""

    restarts: Annotated[int, Field(ge=0, le=1000)] = 5
    """Most restarts of one role within `window_seconds`, and within any time in which it makes no progress."""
    window_seconds: Annotated[float, Field(ge=1, le=MOST_SECONDS)] = 60.0
    """How long a failure of a role counts if the role makes progress after it."""
    backoff_seconds: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.5
    """The wait before the first restart; it doubles with each restart that counts."""
    silence_seconds: Annotated[float, Field(ge=1, le=MOST_SECONDS)] = 60.0
    """A tracker that was heard, lives and says nothing for so long is ended, and started again."""
    check_seconds: Annotated[float, Field(gt=0, le=MOST_SECONDS)] = 60.0
    """Deadline for `headrace check` to make the algorithm, the networks and the rollout."""


class Curriculum(CurriculumSettings, DrawingSettings):
    """The `[curriculum]` section: the tracker's keys and the actors', whose models know nothing of each other."""

    def to_plain(self) -> dict[str, Any]:
        """The tracker's part alone, by the names of the run file: what is compared when a run is resumed."""
        return CurriculumSettings.of(self.model_dump(mode="json", by_alias=True, exclude={"migrate"})).to_plain()


class RunFile(Section):
    """The whole run file. `seed` and `folder` are filled in by `launcher.reading`, everything else has a default."""

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

    def to_toml(self) -> str:
        """The resolved run file as TOML text."""
        import tomli_w

        return tomli_w.dumps(self.to_plain())

    def write(self, path: Path) -> None:
        """Write the resolved run file, synced and whole or not at all."""
        write_whole(path, self.to_toml().encode())
