"""The rollout `answers`: runs the user's agent on one task with one template, or says one critique or edit.

Invariant: every task that begins ends with a recorded result and its usage. A rollout that failed because of its
template has a reward of 0 and the reason; one that failed because of its surroundings has no reward and is missing,
with the reason and `Missing`. Only a fault that concerns every rollout (a wrong key) ends the run.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.prompts.chat import Chat, make_lanes
from actors.prompts.failures import CallFailed, Missing
from actors.prompts.loading import load
from actors.prompts.settings import DEFAULT_GRADER, share
from actors.prompts.usage import Usage
from actors.rollout import LeasedTask, Outcome, Parameters, RolloutContext
from actors.scoring import dataset, grading
from actors.scoring.template import MAX_TEMPLATE
from broker.errors import RequestError, RunError

LONGEST = 8000
"""Characters of an answer that are kept."""
LONGEST_TEXT = MAX_TEMPLATE + 8_000
"""Most characters of a critique or an edit: a template and the text around it. A longer one is a failure. Written as
JSON with every character escaped, it fits into one fact."""
MOST_STUCK = 8
"""Most threads of a grader, or of an agent, that do not return in one runner. With more the run ends."""
SLACK = 4
"""One rollout more for so many: what is being graded or delivered leaves its place at the endpoint to another."""


@dataclass
class _Tried:
    """What came of one try: a graded answer, or why there is none and the fact that tells it."""

    answer: str = ""
    grade: grading.Grade = field(default_factory=lambda: grading.Grade(0.0))
    problem: str | None = None
    kind: str | None = None
    missing: Missing | None = None
    """What failed, if the try measures nothing."""

    def fail(self, reason: str, missing: Missing | None = None, kind: str | None = None, detail: str = "") -> None:
        """Record that it failed for this reason, with a reward of 0 or, with `missing`, without a measurement."""
        self.grade = grading.Grade(0.0, reason)
        self.problem, self.kind, self.missing = detail or reason, kind, missing


class Answers:
    """Made once in each runner."""

    def __init__(self, context: RolloutContext) -> None:
        run = context.run
        prompts = run["prompts"]
        self._runner = context.actor
        self._seconds = float(prompts["rollout_seconds"])
        self._agent = load("prompts.agent", prompts["agent"], "answer", 3)
        self._grader = load("prompts.grader", prompts["grader"], "grade", 2)
        if prompts["grader"] == DEFAULT_GRADER:
            self._grader = partial(self._grader, solution=prompts["solution"])
        self._tasks = {
            split: dataset.load(prompts[split], (), prompts.get(f"{split}_items"), prompts.get(f"{split}_sha256"))
            for split in ("training", "validation")
        }
        self._lanes = make_lanes(run, context.index, context.services)
        # A user's grader may take its time: one thread, so that it holds up no call and is not run twice at once.
        plain = prompts["grader"] == DEFAULT_GRADER or asyncio.iscoroutinefunction(self._grader)
        self._thread = None if plain else ThreadPoolExecutor(1, "grader")
        self._grading, self._stuck = asyncio.Lock(), 0
        calls = share(int(run["endpoints"]["answer"]["concurrency"]), int(run["actors"]["processes"]), context.index)
        self.at_once = calls + max(2, calls // SLACK)
        """Rollouts that this runner wants at once."""
        # An agent that is not a coroutine may block: it has a thread for each rollout, beside those that are stuck.
        coroutine = inspect.iscoroutinefunction(self._agent) or inspect.iscoroutinefunction(type(self._agent).__call__)
        self._agents = None if coroutine else ThreadPoolExecutor(self.at_once + MOST_STUCK + 1, "agent")
        self._abandoned: set[asyncio.Future[Any]] = set()
        """Calls of agents that were late and still occupy their threads."""

    async def run(self, task: LeasedTask, parameters: Mapping[str, Parameters]) -> Outcome:
        """One task: `{"do": "answer", ...}` or `{"do": "complete", ...}`. RequestError if no rollout can succeed."""
        match task.body.get("do"):
            case "answer":
                return await self._answer(task, parameters[task.policy].tree)
            case "complete":
                return await self._complete(task)
            case other:
                raise RunError(f"task {task.task}: do is {other!r}, neither 'answer' nor 'complete'")

    async def close(self) -> None:
        """Close the connections, and abandon the threads of graders and agents."""
        for lane in set(self._lanes.values()):
            await lane.close()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        if self._agents is not None:
            self._agents.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, leased: LeasedTask, published: Mapping[str, Any]) -> Outcome:
        body = leased.body
        name = {key: body[key] for key in ("template", "item", "split", "attempt")}
        task, template = self._item(leased), published["templates"].get(name["template"])
        if template is None:
            raise RunError(f"task {leased.task}: the parameters have no template {name['template']}")
        usage = Usage()
        for key, stuck in (("prompts.grader", self._stuck), ("prompts.agent", len(self._abandoned))):
            if stuck > MOST_STUCK:
                raise RequestError(
                    f"{key}: did not return {stuck} times in {self._runner}, the last time within"
                    f" {self._seconds:g} s; give it a time limit of its own, or raise prompts.rollout_seconds"
                )
        tried = await self._tried(task, template, usage, str(name["attempt"]))
        result = {
            "do": "answer",
            **name,
            "runner": self._runner,
            "reward": None if tried.missing else tried.grade.reward,
            "reason": _plain(tried.grade.reason),
            "failed": tried.problem is not None,
            "missing": tried.missing,
            "answer": _plain(tried.answer[:LONGEST]),
            "usage": usage.plain(),
        }
        return Outcome(
            result["reward"], facts=self._facts(leased, tried), result=result, missing=tried.missing is not None
        )

    async def _complete(self, leased: LeasedTask) -> Outcome:
        body, usage = leased.body, Usage()
        chat = Chat(self._lanes, str(body.get("attempt") or attempt_of(leased.task)), usage)
        tried = _Tried()
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                tried.answer = await chat(body["messages"], endpoint=body["role"])
            if _is_over(limit):
                tried.fail(self._late(usage), "time")
            elif len(tried.answer) > LONGEST_TEXT:
                tried.fail(f"it is {len(tried.answer):,} characters long, more than {LONGEST_TEXT:,}")
        except TimeoutError:
            tried.fail(self._late(usage), "time")
        except CallFailed as error:
            tried.fail(str(error), error.missing, "endpoint_error")
        report: dict[str, Any] = {"failed": tried.problem is not None, "reason": _plain(tried.grade.reason)}
        report["missing"] = tried.missing
        report["text"] = "" if report["failed"] else _plain(tried.answer)
        result = {"do": "complete", "role": body["role"], "runner": self._runner, **report, "usage": usage.plain()}
        return Outcome(None, facts=self._facts(leased, tried), result=result, missing=tried.missing is not None)

    async def _tried(self, task: Mapping[str, Any], template: str, usage: Usage, attempt: str) -> _Tried:
        """Ask for one answer and grade it. Every failure is recorded in the result, except a RequestError."""
        tried, chat = _Tried(), Chat(self._lanes, attempt, usage)
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                tried.answer = await self._said(task, template, chat)
                tried.grade = await grading.grade(self._grader, task, tried.answer, partial(self._in_thread, limit))
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            call = _call_behind(error)
            if _is_over(limit):
                tried.fail(self._late(usage), "time")
            elif isinstance(call, RequestError):
                raise call from None
            elif call is not None:
                tried.fail(str(call), call.missing, "endpoint_error")
            else:
                reason = f"the agent raised {type(error).__name__}: {error}"[: grading.LONGEST_REASON]
                tried.fail(reason, "agent", "agent_error", traceback.format_exc()[-4000:])
        else:
            if tried.grade.error is not None:
                tried.fail(str(tried.grade.reason), "grader", "grader_error", tried.grade.error)
            elif _is_over(limit):  # it blocked and could not be cancelled; a late answer does not count
                tried.fail(self._late(usage), "time")
        return tried

    def _late(self, usage: Usage) -> str:
        troubles = [each.trouble for each in usage.endpoints.values() if each.trouble]
        return f"not done within {self._seconds:g} s{f' (the last failure: {troubles[-1]})' if troubles else ''}"

    def _facts(self, leased: LeasedTask, tried: _Tried) -> list[tuple[str, dict[str, Any]]]:
        if tried.problem is None or tried.kind is None:
            return []
        named: dict[str, Any] = {
            key: leased.body[key] for key in ("template", "item", "split", "role") if key in leased.body
        }
        body = {"task": leased.task, **named, "runner": self._runner, "reason": _plain(tried.grade.reason)}
        return [(tried.kind, {**body, "detail": _plain(tried.problem)})]

    async def _said(self, task: Mapping[str, Any], template: str, chat: Chat) -> str:
        if self._agents is None:
            answer = self._agent(dict(task), template, chat)
        else:
            thread = asyncio.wrap_future(self._agents.submit(self._agent, dict(task), template, chat))
            answer = await self._returned(thread)
        if inspect.isawaitable(answer):
            answer = await answer
        if not isinstance(answer, str):
            raise TypeError(f"it returned {type(answer).__name__}, not text")
        return answer

    async def _returned(self, thread: asyncio.Future[Any]) -> Any:
        """Wait for the answer of an agent in a thread. On cancellation the thread, which cannot end, is remembered."""
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            if not thread.done():
                self._abandoned.add(thread)
                thread.add_done_callback(self._come_back)
            raise

    def _come_back(self, thread: asyncio.Future[Any]) -> None:
        self._abandoned.discard(thread)
        if not thread.cancelled():
            thread.exception()  # marks a late exception as retrieved, so that asyncio does not log it

    async def _in_thread(
        self, limit: asyncio.Timeout, grader: Callable[..., Any], task: Mapping[str, Any], answer: str
    ) -> Any:
        """The grader's word. TimeoutError if it does not return: its thread cannot be ended, and is left to itself."""
        if self._thread is None:
            return grader(task, answer)
        loop, until = asyncio.get_running_loop(), limit.when() or 0.0
        left = until - loop.time()
        limit.reschedule(None)  # the wait for another's grading is no fault of this one
        async with self._grading:
            limit.reschedule(loop.time() + left)
            try:
                return await loop.run_in_executor(self._thread, grader, task, answer)
            except asyncio.CancelledError:
                if not limit.expired():
                    raise
                self._thread.shutdown(wait=False)
                self._thread, self._stuck = ThreadPoolExecutor(1, "grader"), self._stuck + 1
                raise TimeoutError(f"it did not return within {self._seconds:g} s of the rollout's begin") from None

    def _item(self, leased: LeasedTask) -> dict[str, Any]:
        split, item = str(leased.body["split"]), int(leased.body["item"])
        tasks: tuple[dict[str, Any], ...] = self._tasks[split]
        if not 0 <= item < len(tasks):
            raise RunError(f"task {leased.task}: {split} has {len(tasks)} items, and item {item} was asked for")
        return tasks[item]


def _is_over(limit: asyncio.Timeout) -> bool:
    """Tell whether the time limit has passed, also if the event loop had no chance to notice."""
    until = limit.when()
    return limit.expired() or (until is not None and asyncio.get_running_loop().time() > until)


def _call_behind(error: BaseException) -> CallFailed | RequestError | None:
    """Return the failed call that made an agent raise, also from an exception group or from a chain of causes."""
    if isinstance(error, CallFailed | RequestError):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__,)
    return next((call for each in inner if each is not None and (call := _call_behind(each)) is not None), None)


def _plain(text: str | None) -> str | None:
    """The text, with what cannot be written in UTF-8 (half a surrogate pair) as question marks."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def attempt_of(task: str) -> str:
    """What tells this completion from others of equal messages: its name, without the life that minted it."""
    return hashlib.sha256(task.partition("@life-")[0].encode()).hexdigest()[:16]
