"""Graders and agents of the user's own: every form they may have, and what becomes of a rollout in which they fail."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from actors.rollout import Outcome
from broker.errors import RequestError
from tests.actors.simulation import answering, one, resolved, result_of, rolling, runner


def own(path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """A module of the user's own with this text."""
    name = "own_" + path.name.replace("-", "_")
    (path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(path))
    return name


GRADERS = """
import threading

def raises(task, answer): raise KeyError("no key")
def nan(task, answer): return float("nan")
def seven(task, answer): return 7.0
def nothing(task, answer): return None
def huge(task, answer): return 10**400
def silent(task, answer): return Silent()

class Silent:
    def __repr__(self): raise LookupError("no repr")

async def half(task, answer): return 0.5, "half right"
ended, begun = threading.Event(), []

def hangs_once(task, answer):
    begun.append(task)
    if len(begun) == 1:
        ended.wait(60)
    return 1.0

def hangs(task, answer): ended.wait(60)

class Strict:
    def grade(self, task, answer): return 1.0 if answer == task["answer"] else 0.25
"""


@pytest.mark.parametrize(
    ("grader", "says"),
    [("raises", "the grader raised KeyError: 'no key'"), ("nan", "the grader returned nan"),
     ("huge", "the grader returned 1000"), ("silent", "the grader raised LookupError: no repr"),
     ("seven", "the grader returned 7.0: a reward is a number from 0 to 1"), ("nothing", "the grader returned None")],
)  # fmt: skip
def test_a_grader_that_gives_no_reward_measures_nothing(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grader: str, says: str
) -> None:
    module = own(tmp_path, monkeypatch, GRADERS)
    result, outcome = one(resolved(server, prompts={"grader": f"{module}:{grader}"}))
    assert (result["reward"], result["failed"], result["missing"]) == (None, True, "grader")
    assert says in result["reason"]
    assert result["answer"], "the answer stays"
    assert result["usage"][0]["calls"] == 1
    ((kind, body),) = outcome.facts
    assert kind == "grader_error"
    assert says in body["reason"]


def test_graders_of_every_form(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = own(tmp_path, monkeypatch, GRADERS)
    result, _ = one(resolved(server, prompts={"grader": f"{module}:half"}))
    assert (result["reward"], result["reason"], result["failed"]) == (0.5, "half right", False)
    assert one(resolved(server, prompts={"grader": f"{module}:Strict"}))[0]["reward"] in (0.25, 1.0)


def test_a_grader_that_does_not_return_costs_its_own_rollout_alone(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = own(tmp_path, monkeypatch, GRADERS)

    async def graded(grader: str, items: int) -> list[tuple[dict[str, Any], Outcome]]:
        prompts = {"grader": f"{module}:{grader}", "rollout_seconds": 0.5}
        async with rolling(resolved(server, prompts=prompts)) as rollout:
            return await asyncio.gather(*(result_of(rollout, answering(item)) for item in range(items)))

    try:
        results = asyncio.run(graded("hangs_once", 4))
        late = [outcome for result, outcome in results if result["failed"]]
        assert [result["missing"] for result, _ in results if result["reward"] != 1.0] == ["grader"]
        (((kind, body),),) = [outcome.facts for outcome in late]
        assert kind == "grader_error"
        assert "the grader raised TimeoutError: it did not return within 0.5 s" in body["reason"]
        with pytest.raises(RequestError, match=r"prompts\.grader: did not return 9 times in actor-0"):
            asyncio.run(hung_again_and_again(f"{module}:hangs", server))
    finally:
        importlib.import_module(module).ended.set()


async def hung_again_and_again(grader: str, server: str) -> None:
    async with rolling(resolved(server, prompts={"grader": grader, "rollout_seconds": 0.1})) as rollout:
        for item in range(24):
            result, _ = await result_of(rollout, answering(item))
            assert result["failed"]


AGENTS = """
import asyncio, sys, threading, time

ended, waiting = threading.Event(), []

def plain(task, template, chat): return "plain " + threading.current_thread().name
def plain_chat(task, template, chat): return chat(template.replace("{question}", task["question"]))
def hangs(task, template, chat): ended.wait(60)

def hangs_once(task, template, chat):
    waiting.append(task)
    if len(waiting) == 1:
        ended.wait(60)
    return task["answer"]

async def blocks(task, template, chat):
    time.sleep(0.8)
    return task["answer"]

async def leaves(task, template, chat): sys.exit("no key")

async def twice(task, template, chat):
    first = await asyncio.gather(*(chat(template.replace("{question}", task["question"])) for _ in range(6)))
    return "|".join(first)

async def raises(task, template, chat): raise LookupError("lost")
async def surrogate(task, template, chat): return "half \\ud800"
async def long(task, template, chat): return "x" * 20_000
async def number(task, template, chat): return 42
async def late(task, template, chat): raise TimeoutError("its own")
async def lost(task, template, chat): return await chat("x", endpoint="judge")
async def stream(task, template, chat): return await chat("x", stream=True)

class Patient:
    async def answer(self, task, template, chat):
        return await chat([{"role": "system", "content": template}, {"role": "user", "content": task["question"]}],
                          temperature=0.5)
"""


@pytest.mark.parametrize(
    ("agent", "says"),
    [("raises", "LookupError: lost"), ("number", "TypeError: it returned int, not text"),
     ("leaves", "SystemExit: no key"), ("late", "TimeoutError: its own"), ("lost", "no endpoint is named 'judge'"),
     ("stream", "'stream' may not be an option of a call")],
)  # fmt: skip
def test_agents_that_fail(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str, says: str) -> None:
    module = own(tmp_path, monkeypatch, AGENTS)
    result, outcome = one(resolved(server, prompts={"agent": f"{module}:{agent}"}))
    assert (result["reward"], result["failed"], result["missing"]) == (None, True, "agent")
    assert "the agent raised" in result["reason"]
    assert says in result["reason"]
    assert [kind for kind, _ in outcome.facts] == ["agent_error"]


def test_agents_of_every_form(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = own(tmp_path, monkeypatch, AGENTS)
    several, _ = one(resolved(server, prompts={"agent": f"{module}:twice"}))
    assert several["usage"][0]["calls"] == 6
    assert len(set(several["answer"].split("|"))) > 1, "equal messages are told apart"
    same, _ = one(resolved(server, prompts={"agent": f"{module}:twice"}))
    assert sorted(same["answer"].split("|")) == sorted(several["answer"].split("|"))
    assert not one(resolved(server, prompts={"agent": f"{module}:Patient"}))[0]["failed"]


def test_plain_agents_have_threads(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = own(tmp_path, monkeypatch, AGENTS)
    assert one(resolved(server, prompts={"agent": f"{module}:plain"}))[0]["answer"].startswith("plain agent")
    assert one(resolved(server, prompts={"agent": f"{module}:plain_chat"}))[0]["usage"][0]["calls"] == 1


def test_a_plain_agent_that_does_not_return_is_late(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = own(tmp_path, monkeypatch, AGENTS)

    async def several(agent: str, items: int) -> list[dict[str, Any]]:
        prompts = {"agent": f"{module}:{agent}", "rollout_seconds": 0.3}
        async with rolling(resolved(server, prompts=prompts)) as rollout:
            return [(await result_of(rollout, answering(item)))[0] for item in range(items)]

    try:
        first, *others = asyncio.run(several("hangs_once", 4))
        assert (first["failed"], first["missing"]) == (True, "time")
        assert "not done within 0.3 s" in first["reason"]
        assert [result["reward"] for result in others] == [1.0] * 3, "nobody waits for its thread"
        with pytest.raises(RequestError, match=r"prompts\.agent: did not return 9 times in actor-0"):
            asyncio.run(several("hangs", 24))
    finally:
        importlib.import_module(module).ended.set()


def test_an_answer_that_comes_late_does_not_count(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = own(tmp_path, monkeypatch, AGENTS)
    result, _ = one(resolved(server, prompts={"agent": f"{module}:blocks", "rollout_seconds": 0.3}))
    assert (result["failed"], result["missing"]) == (True, "time")
    assert one(resolved(server, prompts={"agent": f"{module}:blocks"}))[0]["reward"] == 1.0


def test_any_text_can_be_recorded(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = own(tmp_path, monkeypatch, AGENTS)
    result, _ = one(resolved(server, prompts={"agent": f"{module}:surrogate"}))
    assert result["answer"] == "half ?"
    assert len(one(resolved(server, prompts={"agent": f"{module}:long"}))[0]["answer"]) == 8000


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ({"agent": "nowhere:answer"}, "prompts.agent 'nowhere:answer': cannot import 'nowhere'"),
        ({"agent": "actors.prompts.agent:answr"}, "has no 'answr'"),
        ({"grader": "actors.prompts.agent:answer"}, r"cannot be called as grade\(task, answer\)"),
        ({"grader": "actors.prompts.usage:Usage"}, "the class has no method 'grade'"),
    ],
)
def test_what_cannot_be_called_is_one_message(server: str, prompts: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        runner(resolved(server, prompts=prompts))
