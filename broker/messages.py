"""Every message that may pass between two processes, as one closed union.

Invariant: what is not one of these models, field for field, is not a message. The models are strict (no coercion),
frozen and closed (an unknown field is an error), and every text, list and number has a bound, so that a header that
validates is safe to act upon. Payload bytes are not here: a header only describes them (see `broker.layouts`).

`docs/protocol.md` says in prose what each message means and who may send it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from broker import addresses

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Address = Annotated[str, Field(max_length=256, pattern=addresses.URL)]
MAX_TEXT = 4096
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
Body = Annotated[str, Field(max_length=262_144)]
Incarnation = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""Start time by the run's clock (16 hex digits) and 64 random bits (16 hex digits): sorts by start time."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
VersionPart = Annotated[int, Field(ge=0, lt=2**53)]
"""The next version is still a `Count`, and every JSON reader represents it exactly."""
Version = tuple[VersionPart, VersionPart]
"""(life, number), compared in that order."""
RoleKind = Literal["launcher", "tracker", "learner", "actor", "endpoint", "dashboard"]
MAX_STEPS = 2**32
"""One fragment has fewer agent steps than this, so that sums over a run fit into 63 bits."""
MAX_ITEMS = 4096
"""Fragments, or facts, of one message."""
MAX_RATES = 256
PhaseName = Literal["starting", "running", "stopping", "ended"]


MAX_DEPTH = 32
"""Most levels of a plain value: code that walks it may be recursive."""
MAX_NOTE_VALUES = 100_000
_plain_types = (type(None), bool, int, float, str, bytes)


def count_plain(value: Any) -> int:
    """Count the maps, lists, numbers, texts and bytes in a plain value. ValueError if it is not plain or too deep."""
    level: list[Any] = [(value,)]
    values = 0
    for _ in range(MAX_DEPTH):
        below = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        values += len(below)
        level = [node for node in below if not isinstance(node, _plain_types)]
        if not level:
            return values
        if not all(isinstance(node, dict | list | tuple) for node in level):
            raise ValueError("holds something that is not plain")
    raise ValueError(f"is more than {MAX_DEPTH} levels deep")


def _check_plain(value: Any) -> Any:
    count_plain(value)
    return value


def _check_note(value: dict[str, Any]) -> dict[str, Any]:
    if count_plain(value) > MAX_NOTE_VALUES:
        raise ValueError(f"holds more than {MAX_NOTE_VALUES:,} values")
    return value


Plain = Annotated[Any, AfterValidator(_check_plain)]
"""A value without a model: a layout, or the note of a user's rollout. Only this type bounds its depth."""


class Message(BaseModel):
    """What all messages share: closed, frozen, strict."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="null")


# --- spoke to hub --------------------------------------------------------------------------------------------------


class Hello(Message):
    """I am here. Repeated every second as a heartbeat, at once when the sender is behind or blocked."""

    kind: Literal["hello"] = "hello"
    role: RoleKind
    pid: Count
    host: Annotated[str, Field(max_length=255)] = ""
    address: Address | None = None
    """Where the sender can be reached: a hub of its own (learners), or what it serves (endpoints: a URL)."""
    policy: Name | None = None
    sent_through: Count = 0
    """The highest fragment sequence that the sender has sent on this socket to the addressed hub incarnation."""
    blocked: bool = False
    """Nothing under way was settled for a second: settle what is missing up to `sent_through` as lost."""
    version: Version | None = None
    """The newest version applied."""


class FragmentItem(Message):
    """One fragment of a batch: its place in the stream and what it was made with."""

    sequence: Annotated[int, Field(ge=1, lt=2**63)]
    version: Version
    crc: Count
    """Checksum of the parameters it was made with."""
    steps: Annotated[int, Field(ge=0, lt=MAX_STEPS)]
    """Agent steps in it."""
    task: Annotated[str, Field(max_length=256)] | None = None
    minted: bool = False
    """Whether the policy minted `task`: then the life in the task's id decides whether it still wants the fragment."""
    note: Annotated[dict[str, Any], AfterValidator(_check_note)] | None = None
    """A small plain mapping of the rollout's own (checked for size with the header)."""
    given_up: Text | None = None
    """Nothing comes of `task`, and why; the fragment has no arrays."""


class Fragments(Message):
    """A batch of fragments of one layout; their payloads come one after another, or each in a frame of its own."""

    kind: Literal["fragments"] = "fragments"
    layout: Digest
    define: Plain = None
    """The layout itself, until the hub's pulse names `layout` among those it knows."""
    items: Annotated[tuple[FragmentItem, ...], Field(min_length=1, max_length=MAX_ITEMS)]


class Facts(Message):
    """Consecutive facts of one source, numbered from `first`."""

    kind: Literal["facts"] = "facts"
    first: Annotated[int, Field(ge=1, lt=2**63)]
    items: Annotated[
        tuple[tuple[Count, Name, Annotated[str, Field(max_length=262_144)]], ...], Field(max_length=MAX_ITEMS)
    ]
    """(time in ns, kind, body as JSON text)"""


class Status(Message):
    """What a role does just now: ephemeral, folded into the standings, not kept."""

    kind: Literal["status"] = "status"
    doing: Annotated[str, Field(max_length=200)] = ""
    waits: Annotated[tuple[tuple[Name, Annotated[str, Field(max_length=100)], float], ...], Field(max_length=64)] = ()
    """(for whom, for what, since how many seconds)"""
    rates: Annotated[dict[Name, float | int | None], Field(max_length=MAX_RATES)] = {}
    """Gauges and rates by name, e.g. `queue`, `credit`, `cpu`, `rss_mb`."""


class TaskRequest(Message):
    """Give me tasks. Idempotent: the same `request` of the same incarnation is answered with the same assignment."""

    kind: Literal["task_request"] = "task_request"
    request: Annotated[int, Field(ge=1, lt=2**63)]
    count: Annotated[int, Field(ge=1, le=1024)]
    policy: Name | None = None
    generate: bool = False
    """The sender can make new tasks too: it may be given generation work when the run's pool has room."""


class CheckpointOffer(Message):
    """A checkpoint of `size` bytes that the tracker may fetch in chunks; a newer offer replaces it."""

    kind: Literal["checkpoint_offer"] = "checkpoint_offer"
    offer: Annotated[int, Field(ge=1, lt=2**63)]
    policy: Name
    version: Version
    size: Annotated[int, Field(ge=1, lt=2**40)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    score: float | None = None
    """What `best` is judged by (a mean return), where there is one; greater is better."""


class Chunk(Message):
    """One chunk of a checkpoint, up (offer) or down (restore); the payload is its bytes, at most 1 MiB."""

    kind: Literal["chunk"] = "chunk"
    offer: Count
    """The offer's number on the way up, the ledger position of the checkpoint on the way down."""
    index: Count


class RestoreRequest(Message):
    """A learner asks where to resume: `index` None asks for the RestorePoint, a number for that chunk of `position`."""

    kind: Literal["restore_request"] = "restore_request"
    policy: Name
    position: Count | None = None
    index: Count | None = None


class Farewell(Message):
    """The sender is done and has nothing unacknowledged."""

    kind: Literal["farewell"] = "farewell"
    reason: Text = ""
    sent_through: Count = 0
    """As in Hello: fragments up to here that have not arrived are lost."""


# --- hub to spoke --------------------------------------------------------------------------------------------------


class SpokeCounters(Message):
    """What the hub has of one spoke: the whole of its flow control."""

    incarnation: Incarnation
    """The incarnation that holds the name; an older one reads here that it was superseded."""
    settled: Count = 0
    """Highest fragment sequence that has left the learner's queue."""
    received: Count = 0
    """Highest fact sequence received in order."""
    durable: Count = 0
    """Highest fact sequence synced to disk."""
    layouts: Annotated[tuple[Digest, ...], Field(max_length=256)] = ()
    """Layouts of this spoke that the hub knows."""
    offer: Count = 0
    """The checkpoint offer being fetched."""
    chunks: Count = 0
    """Chunks of it received in order."""
    offer_state: Literal["none", "fetching", "durable", "refused"] = "none"
    lost: Count = 0
    """Fragments of this spoke settled as lost."""


class Pulse(Message):
    """The one control message that a hub repeats: liveness, phase, version; to a spoke's own topic its counters too."""

    kind: Literal["pulse"] = "pulse"
    phase: PhaseName
    reason: Text = ""
    version: Version | None = None
    crc: Count = 0
    env_steps_left: Count | None = None
    """The tracker's pulses: what is left of the run's `stop.env_steps`, by the facts that `spoke.durable` counts."""
    spoke: SpokeCounters | None = None


class Parameters(Message):
    """One version of a policy; the payload is its tree of arrays (`broker.arrays`)."""

    kind: Literal["parameters"] = "parameters"
    policy: Name
    version: Version
    crc: Count
    """crc32 of the payload: fragments name the parameters that acted by it."""
    layout: Plain
    """The tree's skeleton and the arrays' dtypes and shapes."""


class DirectoryEntry(Message):
    """Where one hub, or one endpoint, is."""

    name: Name
    role: RoleKind
    policy: Name | None = None
    address: Address
    incarnation: Incarnation


class Directory(Message):
    """Every hub and endpoint of the run, published on each change and to each newcomer."""

    kind: Literal["directory"] = "directory"
    entries: Annotated[tuple[DirectoryEntry, ...], Field(max_length=4096)]


class LeasedTask(Message):
    """One task, leased until the deadline."""

    task: Annotated[str, Field(max_length=256)]
    policy: Name | None = None
    body: Annotated[str, Field(max_length=262_144)]
    """JSON text, as its minter wrote it; `{"generate": n}` of generation work."""
    label: Annotated[str, Field(max_length=256)] | None = None
    draw: Count | None = None
    """Of a task from the pool: the number of this draw, for its outcome to repeat."""
    generate: bool = False
    """Generation work: make tasks, answer with a `mint` or `generation_failed` fact that names `task`."""
    version: Version | None = None
    """The version of `policy` with which it was minted: nobody begins it with an older one."""
    recorded: Annotated[str, Field(max_length=262_144)] | None = None
    """The body of its `outcome` fact, where one with a `result` is in the ledger, or else of its `given_up` fact: that
    is delivered, and nothing is run."""


class Assignment(Message):
    """The answer to the TaskRequest with the same number; empty when there is no work just now."""

    kind: Literal["assignment"] = "assignment"
    incarnation: Incarnation
    request: Annotated[int, Field(ge=1, lt=2**63)]
    seconds: float
    """The lease's length from now."""
    tasks: Annotated[tuple[LeasedTask, ...], Field(max_length=1024)]


class RestorePoint(Message):
    """Where a learner begins: its life, and the checkpoint to fetch (position 0: none, begin afresh)."""

    kind: Literal["restore_point"] = "restore_point"
    policy: Name
    incarnation: Incarnation
    life: Count
    position: Count = 0
    version: Version | None = None
    size: Count = 0
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    seen: Version | None = None
    """The newest version that the ledger knows of: what lies between it and `version` is lost."""
    skipped: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Checkpoints that were found damaged, and why."""


class Standings(Message):
    """What the run looks like now; the payload is JSON (see `tracker.standings`). Topic `standings`."""

    kind: Literal["standings"] = "standings"


ToHub = Annotated[
    Hello | Fragments | Facts | Status | TaskRequest | CheckpointOffer | Chunk | RestoreRequest | Farewell,
    Field(discriminator="kind"),
]
ToSpoke = Annotated[
    Pulse | Parameters | Directory | Assignment | RestorePoint | Chunk | Standings, Field(discriminator="kind")
]


def _by_kind(union: Any) -> dict[str, TypeAdapter[Any]]:
    models = get_args(get_args(union)[0])
    return {model.model_fields["kind"].default: TypeAdapter(model) for model in models}


to_hub = _by_kind(ToHub)
to_spoke = _by_kind(ToSpoke)
"""What reads the fields of a message, by its kind: a fifth less work than to let the union look it up."""
