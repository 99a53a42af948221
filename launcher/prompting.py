"""What the sections `[prompts]`, `[endpoints.*]` and `[scripted]` mean for a run file, and what can be wrong with them.

Invariants: the resolved run file stands on its own: it has the template's text, absolute paths and the sha256 of the
questions, and never a key. No
message shows what stands where the name of a key's variable should: it may be the key.
"""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.prompts import keys
from actors.prompts.settings import DEFAULT_GRADER, RESERVED_OPTIONS, SCRIPTED, Endpoint, Prompts, share
from actors.scoring import dataset
from actors.scoring.template import placeholders, template_error
from actors.scripted.settings import MODEL
from broker.errors import RequestError
from broker.text_files import exists, read_bytes, read_text
from launcher.runfile import RunFile
from learners.prompts.settings import checked

SPLITS = ("training", "validation")
SEARCHES = ("textual_gradients", "gepa")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
NEEDED = ("openai", "tenacity", "aiohttp")
"""The extra `prompts` of the package."""
DELIVERY = 5.0
"""Seconds that a lease must be longer than a rollout: its result is then recorded and delivered."""


def resolve(tables: dict[str, Any], label: str) -> None:
    """Fill in, in place, what `[prompts]` and `[endpoints]` imply: the rollout, whole paths, the template's text.

    What has not the right type is left as it is: the models say so. RequestError where a file cannot be found.
    """
    prompts, folder = tables.get("prompts"), tables.get("folder")
    if isinstance(prompts, dict):
        if isinstance(actors := tables.setdefault("actors", {}), dict) and "environment" not in tables:
            actors.setdefault("rollout", "answers")
        for split in SPLITS:
            if isinstance(prompts.get(split), str):
                path = _found(f"prompts.{split}", prompts[split], folder, label)
                prompts[split] = str(path)
                with suppress(RequestError):  # `check_files` says what is wrong with the file
                    prompts.setdefault(f"{split}_sha256", dataset.digest(read_bytes(path)))
        if isinstance(prompts.get("template_file"), str) and "template" not in prompts:
            path = _found("prompts.template_file", prompts.pop("template_file"), folder, label)
            try:
                prompts["template"] = read_text(path)
            except RequestError as error:
                raise RequestError(f"{label} is wrong:\n  prompts.template_file: {error}") from None
    endpoints = tables.get("endpoints")
    for endpoint in endpoints.values() if isinstance(endpoints, dict) else ():
        if isinstance(endpoint, dict) and isinstance(endpoint.get("key_file"), str):
            endpoint["key_file"] = str(Path(folder or Path.cwd()) / Path(endpoint["key_file"]).expanduser())
        if isinstance(endpoint, dict) and endpoint.get("url") == SCRIPTED:
            tables.setdefault("scripted", {})


def contradictions(run: RunFile) -> list[tuple[str, str]]:
    """(path, what is wrong and how to mend it) of every contradiction in these sections."""
    wrong: list[tuple[str, str]] = []
    if run.actors.rollout == "answers" and run.prompts is None:
        wrong.append(("prompts", "is missing: actors.rollout = 'answers' needs a template and questions"))
    if run.prompts is not None:
        if run.endpoints is None:
            wrong.append(("endpoints.answer", "is missing: who is to answer the prompts? Give url and model"))
        if run.environment is not None:
            wrong.append(("prompts", "is for runs without an [environment]"))
        elif run.actors.rollout == "environments":
            wrong.append(("actors.rollout", "'environments' plays no [prompts]: leave it out, or write 'answers'"))
        wrong += _prompts(run.prompts)
        if run.actors.rollout == "answers" and run.learner.algorithm == "ppo":
            told = "'ppo' improves no prompt: write 'textual_gradients' or 'gepa', or an algorithm of your own"
            wrong.append(("learner.algorithm", told))
        if run.actors.rollout == "answers" and run.prompts.rollout_seconds + DELIVERY > run.tracker.lease_seconds:
            least = run.prompts.rollout_seconds + DELIVERY
            wrong.append(
                ("tracker.lease_seconds", f"must be {least:g} or more: prompts.rollout_seconds and {DELIVERY:g}")
            )
    if is_simulated(run) and SCRIPTED in run.services:
        wrong.append((f"services.{SCRIPTED}", "is the simulation's own name; call yours something else"))
    return wrong + _endpoints(run)


def is_simulated(run: RunFile) -> bool:
    """Whether an endpoint of the run is the simulation, which the launcher then starts."""
    return any(endpoint.url == SCRIPTED for _, endpoint in _given(run))


def told_of(run: RunFile) -> list[str]:
    """What `headrace check` says of the endpoints, line by line; nothing for a run without them."""
    if run.prompts is None or run.endpoints is None:
        return []
    lines = ["", "endpoints"]
    for name, endpoint in _given(run):
        place = "a simulation" if endpoint.url == SCRIPTED else endpoint.url
        fewest = share(endpoint.concurrency, run.actors.processes, run.actors.processes - 1)
        calls = f"{endpoint.concurrency} calls at once, {fewest} or more for each actor"
        lines.append(f"  {name}: {endpoint.model} of {place}, {calls}")
    return lines


def check_files(run: RunFile) -> None:
    """Read the search's settings, questions and keys. RequestError names the first mistake; nothing is sent."""
    if run.prompts is None or run.endpoints is None:
        return
    for package in NEEDED:
        if not _installed(package):
            raise RequestError(f"prompts: needs the package {package!r}; pip install 'headrace[prompts]'")
    if run.learner.algorithm in SEARCHES:
        settings = checked(run.learner.settings, run.learner.algorithm)
        if settings.money is not None and not any(end.price_in or end.price_out for _, end in _given(run)):
            raise RequestError(
                "learner.settings.money: no endpoint has a price, so this budget would never be used up; set"
                " endpoints.answer.price_in and price_out, or a budget in calls or tokens"
            )
    fields = {run.prompts.solution} if run.prompts.grader == DEFAULT_GRADER else set()
    template = run.prompts.template or ""
    for split in SPLITS:
        items, sha256 = getattr(run.prompts, f"{split}_items"), getattr(run.prompts, f"{split}_sha256")
        try:
            dataset.load(getattr(run.prompts, split), fields, items, sha256, template)
        except dataset.UnfilledTemplate as error:
            raise RequestError(f"prompts.template: {error}") from None
        except RequestError as error:
            raise RequestError(f"prompts.{split}: {error}") from None
    for name, endpoint in _given(run):
        keys.read(name, endpoint.model_dump())


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # taken out of this process
        return False


def _prompts(prompts: Prompts) -> list[tuple[str, str]]:
    wrong = []
    if prompts.template is None:
        wrong.append(("prompts.template", "is missing: give it, or template_file"))
    elif prompts.template_file is not None:
        wrong.append(("prompts.template_file", "and prompts.template are two templates; give one"))
    elif error := template_error(prompts.template):
        wrong.append(("prompts.template", error))
    elif prompts.solution in placeholders(prompts.template):
        shown = f"{{{prompts.solution}}}"
        mistake = (
            f"shows {shown}, the field of the solution, to the model; write {{{shown}}} for the text {shown}, "
            "or name another field in prompts.solution"
        )
        wrong.append(("prompts.template", mistake))
    elif not placeholders(prompts.template):
        wrong.append(("prompts.template", "has no placeholder; write {question} where the task's field is to stand"))
    for key, value in (("prompts.agent", prompts.agent), ("prompts.grader", prompts.grader)):
        if not REFERENCE.fullmatch(value):
            wrong.append((key, f'{value!r} is not known; your own is "package.module:name"'))
    return wrong


def _given(run: RunFile) -> list[tuple[str, Endpoint]]:
    if run.endpoints is None:
        return []
    named = (("answer", run.endpoints.answer), ("critique", run.endpoints.critique), ("edit", run.endpoints.edit))
    return [(name, endpoint) for name, endpoint in named if endpoint is not None]


def _endpoints(run: RunFile) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    calls: dict[tuple[str, str | None, str | None], tuple[str, int]] = {}
    for name, endpoint in _given(run):
        path = f"endpoints.{name}"
        wrong += _url(f"{path}.url", endpoint)
        if endpoint.key_env is not None and not VARIABLE.fullmatch(endpoint.key_env):
            wrong.append((f"{path}.key_env", "is no name of an environment variable (give its name, never the key)"))
        if endpoint.key_env is not None and endpoint.key_file is not None:
            wrong.append((f"{path}.key_file", "and key_env both say where the key is; give one"))
        if reserved := sorted(endpoint.options.keys() & RESERVED_OPTIONS):
            wrong.append((f"{path}.options.{reserved[0]}", "may not be an option: it is set by Headrace, or has a key"))
        if endpoint.concurrency < run.actors.processes:
            told = f"must be {run.actors.processes} or more (actors.processes): each runner needs a call of its own"
            wrong.append((f"{path}.concurrency", told))
        place = (endpoint.url, endpoint.key_env, endpoint.key_file)
        other, many = calls.setdefault(place, (name, endpoint.concurrency))
        if many != endpoint.concurrency:
            told = f"must be {many}, as endpoints.{other} has it: calls are counted by URL and key"
            wrong.append((f"{path}.concurrency", told))
    return wrong


def _url(path: str, endpoint: Endpoint) -> list[tuple[str, str]]:
    if endpoint.url == SCRIPTED:
        return [] if endpoint.model == MODEL else [(path[:-3] + "model", f"the simulation has one model, {MODEL!r}")]
    try:
        parts = urlsplit(endpoint.url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return [(path, 'is no URL: write "scripted" or "https://host/v1"')]
    if parts.username or parts.password or parts.query:
        return [(path, "may hold no user, password or query: a key belongs in key_env or key_file")]
    if not usable:
        return [(path, 'is no URL: write "scripted" or "https://host/v1"')]
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return [(path, "must end before /chat/completions")]
    return []


def _found(key: str, given: str, folder: Any, label: str) -> Path:
    """The file itself, beside the run file, or shipped with Headrace."""
    path = Path(given).expanduser()
    beside = Path(folder) / path if isinstance(folder, str) else Path.cwd() / path
    shipped = Path(str(resources.files("runs"))) / path
    places = [path] if path.is_absolute() else [beside, shipped]
    for place in places:
        try:
            if exists(place):
                return place
        except RequestError as error:
            raise RequestError(f"{label} is wrong:\n  {key}: {error}") from None
    raise RequestError(f"{label} is wrong:\n  {key}: there is no file {places[0]}")
