"""Whether an environment gives what its spaces and its interface promise, found out by one reset and one step.

Invariant: what it raises is not judged here. That may be its business (a task is missing, an action is not legal), and
is told with seed and traceback when it is played.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.environments.gym import AGENT
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import VectorEnvironment
from actors.spaces import ObservationSpec
from broker import references
from broker.errors import RequestError

RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")


def check_manners(settings: EnvironmentSettings, environment: VectorEnvironment) -> None:
    """RequestError: `reset` or `step` gives something else than Gymnasium or PettingZoo have it."""
    copies = getattr(environment, "_environments", None)
    if copies is None:  # Gymnasium's vector forms are its own
        return
    raw, zoo = copies[0], environment.kind == "pettingzoo"
    try:
        begun = raw.reset(seed=0)
    except Exception:
        return
    seen = _parts(settings, "reset", begun, RESET)[0]
    _observed(settings, environment, "reset", seen, zoo=zoo)
    agents = list(seen) if zoo else [AGENT]
    if any(environment.action_specs[agent].masked for agent in agents):
        return  # which actions are legal is the environment's own affair
    spaces = {agent: raw.action_space(agent) if zoo else raw.action_space for agent in agents}
    actions = {agent: space.sample() for agent, space in spaces.items()}
    try:
        stepped = raw.step(actions if zoo else actions[AGENT])
    except Exception:
        return
    seen, rewards, *_ = _parts(settings, "step", stepped, STEP)
    _observed(settings, environment, "step", seen, zoo=zoo)
    if zoo and not isinstance(rewards, Mapping):
        raise _wrong(settings, f"step() gave rewards as {type(rewards).__name__}", "give one by each agent's name")
    for reward in rewards.values() if zoo else (rewards,):
        try:
            float(reward)
        except (TypeError, ValueError):
            told = f"step() gave a reward of type {type(reward).__name__}"
            raise _wrong(settings, told, "make it a number") from None


def _parts(settings: EnvironmentSettings, method: str, found: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if isinstance(found, tuple) and len(found) == len(names):
        return found
    given = f"{len(found)} of them" if isinstance(found, tuple) else type(found).__name__
    raise _wrong(settings, f"{method}() gave {given}", f"return ({', '.join(names)})")


def _observed(
    settings: EnvironmentSettings, environment: VectorEnvironment, method: str, seen: Any, *, zoo: bool
) -> None:
    if zoo and not (isinstance(seen, Mapping) and set(seen) <= set(environment.agents)):
        told = sorted(map(str, seen)) if isinstance(seen, Mapping) else type(seen).__name__
        raise _wrong(settings, f"{method}() gave observations of {told}", "give one for each agent that is there")
    for agent, one in seen.items() if zoo else ((AGENT, seen),):
        if zoo and one is None:  # an agent that has nothing more to see
            continue
        who = f"{method}() gave {agent}" if zoo else f"{method}() gave"
        _fits(settings, who, environment.observation_specs[agent], one)


def _fits(settings: EnvironmentSettings, who: str, spec: ObservationSpec, one: Any) -> None:
    mend = "let observation_space say what is given, or give what it says"
    try:
        arrays = spec.encode(one)
    except (TypeError, ValueError, LookupError) as error:
        raise _wrong(settings, f"{who} an observation that is none of its space ({error!r:.200})", mend) from error
    for leaf in spec.leaves:
        if arrays[leaf.name].shape != leaf.shape:
            which = f" at {leaf.name!r}" if leaf.name else ""
            shapes = f"{list(arrays[leaf.name].shape)}{which}, and its observation_space says {list(leaf.shape)}"
            raise _wrong(settings, f"{who} an observation of shape {shapes}", mend)


def _wrong(settings: EnvironmentSettings, wrong: str, mend: str) -> RequestError:
    return references.wrong(settings.id, "environment.id", wrong, mend)
