"""The simulation as a real process, and rollouts against it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from actors.prompts.rollout import Answers
from actors.prompts.settings import Endpoint, Endpoints, Prompts
from actors.rollout import LeasedTask, Outcome, Parameters, RolloutContext
from actors.scoring.template import identity
from launcher.prompting import resolve

SEED_TEMPLATE = "Answer the question.\n{question}"
GOOD_TEMPLATE = (
    "Answer the question.\nReply with the answer alone, nothing else.\nWork it out step by step before you reply.\n"
    "Write numbers in plain digits, without units.\nWrite times as HH:MM on the 24-hour clock.\n"
    "Write a list with a comma and a space between its items.\nCheck the result before you reply.\n{question}"
)


@contextmanager
def serving(*settings: str, seed: int = 1, port: int = 0, key: str | None = None) -> Iterator[str]:
    """The URL of a simulation that runs while the block does."""
    command = [sys.executable, "-m", "actors.scripted", "--seed", str(seed), "--port", str(port)]
    command += [part for one in ("latency_seconds=0.005", *settings) for part in ("--set", one)]
    environment = dict(os.environ)
    if key is not None:
        command += ["--key-env", "SIMULATION_KEY"]
        environment["SIMULATION_KEY"] = key
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            assert "simulation" in told["is"]
            yield told["url"]
        finally:
            process.terminate()
            process.wait(10)


def got(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as response:
        found: dict[str, Any] = json.load(response)
    return found


def counts(url: str) -> dict[str, Any]:
    return got(url.removesuffix("/v1") + "/counts")


def said(url: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a chat completion that is asked for without any client of ours."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + "/chat/completions", raw, headers), timeout=10
        ) as done:
            return done.status, json.load(done)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def completion(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "scripted-1", "messages": [{"role": "user", "content": text}], **more}


def resolved(url: str, processes: int = 1, prompts: dict[str, Any] | None = None, **endpoint: Any) -> dict[str, Any]:
    """The part of a resolved run file that a runner reads."""
    asked = {
        "template": SEED_TEMPLATE, "training": "questions/training.jsonl", "validation": "questions/validation.jsonl",
    }  # fmt: skip
    tables: dict[str, Any] = {"prompts": {**asked, **(prompts or {})}}
    resolve(tables, "the run file")
    settings = {"url": url, "model": "scripted-1", "backoff_seconds": 0.01, **endpoint}
    return {
        "prompts": Prompts(**tables["prompts"]).model_dump(),
        "endpoints": Endpoints(answer=Endpoint(**settings)).model_dump(),
        "actors": {"processes": processes},
    }


def runner(run: dict[str, Any], index: int = 0) -> Answers:
    return Answers(RolloutContext(f"actor-{index}", index, 1, {}, run=run))


@asynccontextmanager
async def rolling(run: dict[str, Any], index: int = 0) -> AsyncIterator[Answers]:
    """A runner's rollout, which lets go of its connections at the end."""
    rollout = runner(run, index)
    try:
        yield rollout
    finally:
        await rollout.close()


def answering(item: int, template: str = SEED_TEMPLATE, split: str = "validation", attempt: int = 1) -> LeasedTask:
    body = {"do": "answer", "template": identity(template), "item": item, "split": split, "attempt": attempt}
    return LeasedTask(f"answer/{identity(template)}/{split}/{item}/{attempt}", "answerer", body)


def completing(role: str, text: str, name: str = "critique/1") -> LeasedTask:
    return LeasedTask(
        name, "answerer", {"do": "complete", "role": role, "messages": [{"role": "user", "content": text}]}
    )


def published(*templates: str) -> dict[str, Parameters]:
    tree = {"templates": {identity(text): text for text in templates}, "best": identity(templates[0]), "round": 0}
    return {"answerer": Parameters((1, 0), tree)}


async def result_of(rollout: Answers, task: LeasedTask, *templates: str) -> tuple[dict[str, Any], Outcome]:
    outcome = await rollout.run(task, published(*(templates or (SEED_TEMPLATE,))))
    assert outcome.result is not None
    result = dict(outcome.result)
    json.dumps(result, allow_nan=False)
    return result, outcome


def one(run: dict[str, Any], task: LeasedTask | None = None, *templates: str) -> tuple[dict[str, Any], Outcome]:
    """Result and outcome of one task with a runner of its own."""

    async def made() -> tuple[dict[str, Any], Outcome]:
        async with rolling(run) as rollout:
            return await result_of(rollout, task or answering(0), *templates)

    return asyncio.run(made())
