"""From an environment's id to environments that can be stepped.

An id is one of: a Gymnasium id, where "package:Id-v0" imports the package that registers it first; a PettingZoo module,
"package:module" or with dots, which has `parallel_env` or `env`; or "package.module:callable", which gives either kind.

Invariant: whatever goes wrong here, in an import, a name, a setting or an environment's own constructor, is one
RequestError that names `environment.id` and how to mend it.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from actors.environments.calls import CALLS
from actors.environments.gym import GymEnvironments, GymVectorForm
from actors.environments.settings import EnvironmentSettings
from actors.environments.vector import RAISED, VectorEnvironment
from actors.environments.zoo import ZooEnvironments
from actors.worker_ids import WorkerIds
from broker import references
from broker.errors import RequestError, UnsupportedSpace

KEY = "environment.id"
WORKER_ID = "worker_id"
WORKERS = WorkerIds()
FORMS = (
    'a Gymnasium id ("CartPole-v1"), a PettingZoo module ("mpe2:simple_spread_v3") or "package.module:callable" '
    "that returns a Gymnasium or PettingZoo environment"
)

# pygame greets on standard output when imported, in every process that plays an environment.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


def make(settings: EnvironmentSettings, count: int, seed: int = 0, workers: WorkerIds = WORKERS) -> VectorEnvironment:
    """Make `count` copies of the environment, to be reset with `seed`. Raises RequestError (also UnsupportedSpace).

    `workers` gives each copy a number, for constructors that take a `worker_id`.
    """
    if count < 1:
        raise RequestError(f"actors.environments is {count}: an actor needs at least one environment")
    environments = [_vector_form(settings, count, workers)] if settings.vector else []
    try:
        if settings.vector:
            return GymVectorForm(environments[0], seed, settings.id, rescale=settings.rescale)
        build = builder(settings)
        environments.extend(build(workers.of(i)) for i in range(count))
        form = GymEnvironments if isinstance(environments[0], gymnasium.Env) else ZooEnvironments
        return form(environments, seed, settings.id, rescale=settings.rescale)
    except Exception as error:
        for environment in environments:
            with suppress(Exception):
                environment.close()
        if isinstance(error, UnsupportedSpace):
            raise UnsupportedSpace(f"{KEY} {settings.id!r}: {error}") from error
        if isinstance(error, RequestError):
            raise
        raise _wrong(settings, f"its spaces cannot be read: {_text(error)}", "mend the environment") from error


def builder(settings: EnvironmentSettings) -> Callable[[int], Any]:
    """Return a function that takes a `worker_id` and makes one gymnasium.Env or pettingzoo.ParallelEnv.

    AEC environments are converted. Both this and the function raise RequestError.
    """
    with CALLS.within("construction"):  # imports the user's module
        construct = _constructor(settings)

    def build(worker: int) -> Any:
        try:
            with CALLS.within("construction"):
                return _accepted(settings, construct(worker))
        except RequestError:
            raise
        except RAISED as error:
            mend = "check environment.settings against what its constructor takes, or mend the environment"
            raise _wrong(
                settings, f"with settings {settings.settings} its constructor raised {_text(error)}", mend
            ) from error

    return build


def _constructor(settings: EnvironmentSettings) -> Callable[[int], Any]:
    name = settings.id
    if name in gymnasium.registry:
        return _registered(settings, name)
    package, colon, rest = name.partition(":")
    if not colon:
        if "." in name:
            return _from_zoo(settings, _module(settings, name))
        try:
            gymnasium.spec(name)
        except Exception as error:
            raise _wrong(settings, f"Gymnasium does not know it ({_text(error)})", f"give {FORMS}") from error
        return _registered(settings, name)
    if not package or not rest:
        raise _wrong(settings, "it has nothing on one side of its colon", f"give {FORMS}")
    module = _module(settings, package)
    found: Any = module
    for part in rest.split("."):
        found = getattr(found, part, None)
    if callable(found):
        return _called(settings, found)
    if rest in gymnasium.registry:  # importing the package has registered it
        return _registered(settings, rest)
    try:
        inner = importlib.util.find_spec(f"{package}.{rest}")
    except ModuleNotFoundError:  # what should hold it is no package
        inner = None
    if inner is None:
        wrong = f"module {package!r} has no {rest!r}, neither an attribute nor a module ({module.__file__})"
        raise _wrong(settings, wrong, "check the name")
    return _from_zoo(settings, _module(settings, inner.name))


def _registered(settings: EnvironmentSettings, name: str) -> Callable[[int], Any]:
    # The checker costs a call a step and only says what our own columns find out as well.
    make_registered = partial(gymnasium.make, name, disable_env_checker=True)
    return _called(settings, make_registered, gymnasium.spec(name).entry_point)


def _called(settings: EnvironmentSettings, call: Callable[..., Any], constructor: Any = None) -> Callable[[int], Any]:
    """Return a function that calls `call` with the settings, and with the `worker_id` if its constructor takes one."""
    asks = WORKER_ID not in settings.settings and _asks(call if constructor is None else constructor)
    return lambda worker: call(**settings.settings, **({WORKER_ID: worker} if asks else {}))


def _asks(constructor: Any) -> bool:
    """Tell whether a constructor, or the entry point of a registered environment, has a parameter `worker_id`."""
    try:
        creator = load_env_creator(constructor) if isinstance(constructor, str) else constructor
        return WORKER_ID in inspect.signature(creator).parameters
    except (ImportError, AttributeError, TypeError, ValueError):  # calling it will raise the same error
        return False


def _from_zoo(settings: EnvironmentSettings, module: ModuleType) -> Callable[[int], Any]:
    for maker in ("parallel_env", "env"):
        call = getattr(module, maker, None)
        if callable(call):
            return _called(settings, call)
    raise _wrong(settings, f"module {module.__name__} has neither parallel_env nor env", f"give {FORMS}")


def _accepted(settings: EnvironmentSettings, environment: Any) -> Any:
    """The environment, in a form that we step."""
    if isinstance(environment, gymnasium.Env):
        return environment
    from pettingzoo import AECEnv, ParallelEnv
    from pettingzoo.utils.conversions import aec_to_parallel, aec_to_parallel_wrapper

    from actors.environments.turns import InTurns

    if isinstance(environment, AECEnv):
        if not environment.metadata.get("is_parallelizable", False):
            mend = "use a parallel environment: its metadata does not say is_parallelizable"
            raise _wrong(settings, "it is a turn-based PettingZoo environment", mend)
        environment = aec_to_parallel(environment)
    if not isinstance(environment, ParallelEnv):
        raise _wrong(
            settings, f"it gave a {type(environment).__module__}.{type(environment).__qualname__}", f"give {FORMS}"
        )
    if not getattr(environment, "possible_agents", None):
        raise _wrong(settings, "it does not name its possible_agents", "list there every agent that can ever appear")
    if type(environment) is aec_to_parallel_wrapper:
        environment = InTurns(environment)
    return environment


def _vector_form(settings: EnvironmentSettings, count: int, workers: WorkerIds) -> Any:
    mend = "set actors.vector = false"
    name = settings.id
    if name not in gymnasium.registry and ":" in name:
        package, _, rest = name.partition(":")
        _module(settings, package)
        name = rest
    spec = gymnasium.registry.get(name)
    if spec is None or spec.vector_entry_point is None:
        _constructor(settings)  # raises where there is no such environment at all
        raise _wrong(settings, "Gymnasium has no vector form of its own for it", mend)
    try:
        make_vector = partial(gymnasium.make_vec, name, count, vectorization_mode="vector_entry_point")
        with CALLS.within("construction"):
            environment = _called(settings, make_vector, spec.vector_entry_point)(workers.of(0))
    except RAISED as error:
        wrong = f"with settings {settings.settings} the constructor of its vector form raised {_text(error)}"
        raise _wrong(settings, wrong, f"check environment.settings, or {mend}") from error
    mode = environment.metadata.get("autoreset_mode")
    if mode != gymnasium.vector.AutoresetMode.NEXT_STEP:
        environment.close()
        raise _wrong(settings, f"its vector form resets in mode {mode}, not in the next step", mend)
    return environment


def _module(settings: EnvironmentSettings, path: str) -> ModuleType:
    return references.import_module(path, settings.id, KEY, f"install its package, or give {FORMS}")


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _wrong(settings: EnvironmentSettings, wrong: str, mend: str) -> RequestError:
    return references.wrong(settings.id, KEY, wrong, mend)
