"""Who plays, who learns and who runs where: the run file and the environment's spaces, resolved.

Invariant: every agent has exactly one policy, agents of one policy have equal spaces, and each policy has one learner.
A plan is plain (`to_plain`), and it is all that a role is given of the run; whoever reads it needs no code of ours:

    {"run": resolved run file, "environment_kind": "gymnasium" | "pettingzoo" | null,
     "agents": {agent: policy},
     "policies": {policy: {"agents": [agent], "observation": plain spec | null, "action": plain spec | null,
                           "fragment_steps": agent steps in a fragment | null, "batch_steps": agent steps | null,
                           "staleness": expected, in versions | null, "max_fragment": bytes}},
     "roles": [{"name", "kind": tracker | endpoint | learner | actor, "policy": str | null, "index": int, "engine",
                "entry", "settings"}]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from actors.prompts.settings import SCRIPTED
from broker.errors import RequestError
from launcher.child import ChildSpec
from launcher.combinations import policy_mistake
from launcher.decisions import Kind
from launcher.directory import RunDirectory
from launcher.probing import Spaces
from launcher.prompting import is_simulated, told_of
from launcher.reading import from_plain
from launcher.runfile import RunFile

DEFAULT_BATCH_STEPS = {"ppo": 2048}
"""What an algorithm takes where its settings name no batch_steps; a test holds it to the learners' own defaults."""
MAINS = {"tracker": "tracker.role:main", "learner": "learners.role:main", "actor": "actors.role:main"}
ARRAY_PADDING = 64
"""Most bytes that padding adds to an array in a payload (`broker.layouts`)."""
TRACKER_FINISH_SECONDS = 3.0
"""For its last commit, when the launcher has died."""


@dataclass(frozen=True)
class Role:
    """One process of the run. `engine`: a fresh interpreter, or a fork of the nursery.

    A fresh one is for whom the nursery has nothing: the tracker and endpoints need no torch, and are there before the
    nursery has imported it.
    """

    name: str
    kind: Kind
    policy: str | None = None
    index: int = 0
    """Its place among those of its kind."""
    engine: Literal["plain", "nursery"] = "nursery"
    entry: str = ""
    """An endpoint's main, `package.module:function`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What an endpoint's main is given as `settings`."""

    @property
    def main(self) -> str:
        """Dotted path of its main."""
        return self.entry or MAINS[self.kind]


@dataclass(frozen=True)
class Policy:
    """One policy: whose it is, its spaces, and the arithmetic of its flow (agent steps, versions)."""

    name: str
    agents: tuple[str, ...] = ()
    observation: dict[str, Any] | None = None
    action: dict[str, Any] | None = None
    fragment_steps: int | None = None
    batch_steps: int | None = None
    staleness: float | None = None
    max_fragment: int = 2**30
    """Most bytes of a fragment."""


@dataclass(frozen=True)
class Plan:
    """The resolved run."""

    run: RunFile
    environment_kind: str | None
    agents: dict[str, str]
    policies: dict[str, Policy]
    roles: tuple[Role, ...]

    def kinds(self) -> dict[str, Kind]:
        """Role -> kind, as the supervisor takes it."""
        return {role.name: role.kind for role in self.roles}

    def role(self, name: str) -> Role:
        """The role of that name. KeyError if there is none."""
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(name)

    def to_plain(self) -> dict[str, Any]:
        """What every child receives: JSON-able, see the module's docstring."""
        policies = {name: asdict(policy) for name, policy in self.policies.items()}
        for policy in policies.values():
            policy["agents"] = list(policy["agents"])
            del policy["name"]
        return {
            "run": self.run.to_plain(),
            "environment_kind": self.environment_kind,
            "agents": dict(self.agents),
            "policies": policies,
            "roles": [asdict(role) for role in self.roles],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_plain` gave."""
        policies = {
            name: Policy(**{"name": name, **policy, "agents": tuple(policy["agents"])})
            for name, policy in plain["policies"].items()
        }
        return cls(
            from_plain(plain["run"]),
            plain["environment_kind"],
            dict(plain["agents"]),
            policies,
            tuple(Role(**role) for role in plain["roles"]),
        )


def make_plan(run: RunFile, spaces: Spaces | None) -> Plan:
    """The plan of a run. `spaces` is what the probe answered. RequestError where the agents cannot be mapped."""
    if spaces is None:
        agents: dict[str, str] = {}
        largest = run.learner.max_fragment_mb * 2**20
        policies = {
            name: Policy(name, batch_steps=batch_steps(run), max_fragment=largest) for name in run.policies.names
        }
    else:
        if not spaces.agents:
            raise RequestError("the environment has no agents")
        agents = map_agents(spaces.agents, run.policies.agents)
        policies = {name: _policy(run, name, agents, spaces) for name in dict.fromkeys(agents.values())}
    return Plan(run, spaces.kind if spaces else None, agents, policies, roles(run, policies))


def map_agents(agents: Iterable[str], globs: Mapping[str, str]) -> dict[str, str]:
    """Agent -> policy: the first glob that matches, else a policy of its own. RequestError names what cannot be."""
    agents = list(agents)
    for glob in globs:
        if not any(fnmatchcase(agent, glob) for agent in agents):
            raise RequestError(f"policies.agents: {glob!r} matches none of the agents {', '.join(agents)}")
    mapped = {agent: next((globs[glob] for glob in globs if fnmatchcase(agent, glob)), agent) for agent in agents}
    for agent, policy in mapped.items():
        mistake = policy_mistake(policy)
        if mistake:
            raise RequestError(
                f'agent {agent!r}: {mistake}; map it, for example policies.agents = {{ "*" = "shared" }}'
            )
    return mapped


def batch_steps(run: RunFile) -> int | None:
    """Agent steps in a learner's batch, or None where the algorithm is the user's own and does not say."""
    given = run.learner.settings.get("batch_steps", DEFAULT_BATCH_STEPS.get(run.learner.algorithm))
    return given if isinstance(given, int) else None


def expected_staleness(run: RunFile, fragment_steps: int, batch: int) -> float:
    """Versions behind at use, when every window is full: actors x window x fragment steps / batch steps."""
    return run.actors.processes * run.learner.window * fragment_steps / batch


def roles(run: RunFile, policies: Iterable[str]) -> tuple[Role, ...]:
    """The processes of the run: the tracker, the endpoints, a learner for each policy, the actors."""
    endpoints = [endpoint(name, service.main, service.settings) for name, service in run.services.items()]
    if is_simulated(run):
        settings = run.scripted.model_dump() if run.scripted is not None else {}
        endpoints.append(endpoint(SCRIPTED, "actors.scripted.role:main", settings))
    learners = [
        Role(f"learner-{policy}", "learner", policy=policy, index=index) for index, policy in enumerate(policies)
    ]
    actors = [Role(f"actor-{index}", "actor", index=index) for index in range(run.actors.processes)]
    return (Role("tracker", "tracker", engine="plain"), *endpoints, *learners, *actors)


def endpoint(name: str, main: str, settings: Mapping[str, Any]) -> Role:
    """A process that serves something to rollouts, found by its name in the tracker's directory."""
    return Role(f"endpoint-{name}", "endpoint", engine="plain", entry=main, settings=dict(settings))


def child_of(  # noqa: PLR0917 - an attempt is identified by this many values
    plan: Plan, name: str, attempt: int, directory: RunDirectory, launch: int = 1, clock: int = 0
) -> ChildSpec:
    """What the process of this attempt of a role is given: `broker.station.Spec` and what `launcher.child` needs."""
    role = plan.role(name)
    spec = {
        "role": name,
        "kind": role.kind,
        "index": role.index,
        "policy": role.policy,
        "attempt": attempt,
        "launch": launch,
        "clock": clock,
        "directory": str(directory.path),
        "sockets": str(directory.ipc or ""),
        "tracker": tracker_address(plan.run, directory),
        "plan": plan.to_plain(),
        "settings": role.settings,
    }
    finish = TRACKER_FINISH_SECONDS if role.kind == "tracker" else 0.0
    return ChildSpec(name, attempt, role.main, str(directory.log(name, attempt)), spec, plan.run.folder, finish)


def tracker_address(run: RunFile, directory: RunDirectory) -> str:
    """The one address that a newcomer needs."""
    return f"ipc://{directory.ipc}/tracker" if run.tracker.address == "ipc" else run.tracker.address


def _policy(run: RunFile, name: str, agents: Mapping[str, str], spaces: Spaces) -> Policy:
    mine = tuple(agent for agent, policy in agents.items() if policy == name)
    first = spaces.agents[mine[0]]
    for agent in mine[1:]:
        for what in ("observation", "action"):
            if spaces.agents[agent][what] != first[what]:
                raise RequestError(
                    f"policy {name!r}: its agents {mine[0]} and {agent} have different {what} spaces "
                    f"({spec_words(first[what])} and {spec_words(spaces.agents[agent][what])}); give them a policy each"
                )
    fragment = run.learner.fragment_steps * run.actors.environments * len(mine)
    from broker.wire import MAX_PAYLOAD

    size = _fragment_bytes(first, run.learner.fragment_steps + 1, run.actors.environments * len(mine))
    if size > MAX_PAYLOAD:
        raise RequestError(
            f"policy {name!r}: a fragment would have {size / 2**30:.1f} GiB, and a message holds 1; "
            "lower learner.fragment_steps or actors.environments"
        )
    batch = batch_steps(run)
    staleness = expected_staleness(run, fragment, batch) if batch else None
    is_custom = run.actors.rollout != "environments"
    largest = run.learner.max_fragment_mb * 2**20 if is_custom else size
    return Policy(name, mine, first["observation"], first["action"], fragment, batch, staleness, largest)


def _fragment_bytes(spaces: Mapping[str, Any], rows: int, width: int) -> int:
    """Return an upper bound of a fragment's bytes (`actors.columns`), with the padding of each array."""
    import numpy as np  # here, because the launcher starts without it

    leaves, action = spaces["observation"]["leaves"], spaces["action"]
    seen: int = sum(np.dtype(leaf["dtype"]).itemsize * math.prod(leaf["shape"]) for leaf in leaves)
    chosen: int = 8 * math.prod(action["shape"]) + sum(action["nvec"])  # an action, and which choices are legal
    rest = 4 + 4 + 3  # log-probability, reward, three flags
    return rows * width * (seen + chosen + rest) + ARRAY_PADDING * (len(leaves) + 7)


def check_text(plan: Plan) -> str:
    """What `headrace check` prints: the roles, the policies and their staleness, then the resolved run file."""
    run = plan.run
    stop = run.stop.model_dump(by_alias=True, exclude_none=True)
    ends = " or ".join(f"{key} {value:g}" for key, value in stop.items()) or "interrupted"
    lines = [f"run {run.name}, seed {run.seed}, until {ends}"]
    if run.environment is not None:
        each = f"{run.actors.environments} in each of {run.actors.processes} actors"
        lines.append(f"environment {run.environment.id} ({plan.environment_kind}), {each}")
    lines += ["", "roles, all on this host"]
    width = max(len(role.name) for role in plan.roles)
    places = {"tracker": "own interpreter", "endpoint": "own interpreter", "actor": "nursery, cpu"}
    places["learner"] = f"nursery, device {run.learner.device}"
    lines += [f"  {role.name:<{width}}  {places[role.kind]} {role.entry}".rstrip() for role in plan.roles]
    lines += told_of(run)
    lines += ["", "policies"]
    for policy in plan.policies.values():
        made_of = "a prompt template" if run.prompts is not None else run.policies.network
        lines.append(f"  {policy.name}: {made_of}, {run.learner.algorithm}")
        if policy.agents:
            lines.append(f"    agents {', '.join(policy.agents)}")
            lines.append(f"    sees {spec_words(policy.observation)}, does {spec_words(policy.action)}")
        lines.append(f"    {_flow(policy, run)}")
    return "\n".join([*lines, "", "resolved run file", "", run.to_toml()])


def _flow(policy: Policy, run: RunFile) -> str:
    if policy.fragment_steps is None or policy.batch_steps is None or policy.staleness is None:
        return "expected staleness: not known before the run"
    steps = f"fragments of {policy.fragment_steps} agent steps, batches of {policy.batch_steps}"
    text = f"{steps}: expected staleness {policy.staleness:.1f} versions"
    if policy.staleness > run.learner.max_staleness:
        text += f", above max_staleness {run.learner.max_staleness}: much will be dropped; raise "
        text += "learner.settings.batch_steps, or lower learner.window or actors.environments"
    return text


def spec_words(spec: Mapping[str, Any] | None) -> str:
    """A plain spec in few words."""
    if spec is None:
        return "anything"
    parts = spec.get("leaves", [spec])
    told = []
    for part in parts:
        size = part.get("n") or part.get("nvec") or part.get("shape") or ""
        traits = [trait for trait in ("masked", "rescaled") if part.get(trait)]
        words = (part.get("name"), part.get("kind"), json.dumps(size) if size else "", *traits)
        told.append(" ".join(filter(None, words)))
    return " + ".join(told)
