"""The templates of a prompt search, as a fold: lineage, rewards, rounds, what was refused, what endpoints took.

Invariants: a template is known by its content, whoever says it and however often: of several that say it the first
candidate's lineage stands; the first measured outcome of a task is its reward, and every outcome counts in the usage,
for each was paid. So a search that fell and was resumed folds to the templates, rewards and rounds of one that did not.
A trial is missing until its task has a measured outcome.

Templates stand in the order of (round, candidate): that is the order in which a search came to them. Candidates of one
round are written side by side, and whose rollouts end first is chance.
"""

from __future__ import annotations

from typing import Any

from broker.names import task_name
from tracker.facts import Fact
from tracker.template_facts import fitting
from tracker.trials import ATTEMPTS, SPLITS, Trials

REFUSED = 1_000
"""Refused candidates that are kept with their reasons; all are counted."""
AMOUNTS = ("calls", "failed", "throttled", "retries", "tokens_in", "tokens_out", "estimated", "cost")
"""What is summed of each endpoint."""
REASONS, REASON = 32, 200
"""Different reasons of failures that are kept, and characters of each; those of others are counted together."""
OTHERS = "other reasons"
MOST = 1e15
"""Of one amount, so that no sum of them is infinite."""
Usage = dict[str, dict[str, float]]


class Tested:
    """One template and its trials. `text` is None while only rewards of it are known."""

    def __init__(self, first: int) -> None:
        self.first = first
        """The position of the first fact about it."""
        self.text: str | None = None
        self.parent: str | None = None
        self.critique = ""
        self.round = self.candidate = 0
        self.version: list[int] | None = None
        self.placeholders: list[str] = []
        self.open = 0
        """Rollouts that were minted and have no outcome."""
        self.trials = Trials()

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Its place among all."""
        return (self.text is None, self.round, self.candidate, self.first)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        version = None if self.version is None else list(self.version)
        own = {"trials": self.trials.plain(), "placeholders": list(self.placeholders), "version": version}
        return {**vars(self), **own}

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Tested:
        """From `plain`."""
        tested = cls(0)
        vars(tested).update(plain)
        tested.trials = Trials.of(plain["trials"])
        return tested


class PolicyTemplates:
    """All of one policy's search."""

    def __init__(self) -> None:
        self.tested: dict[str, Tested] = {}
        self.rounds: dict[int, dict[str, Any]] = {}
        self.refused: dict[tuple[int, int], dict[str, Any]] = {}
        """By round and candidate."""
        self.open: dict[str, str] = {}
        """By the name of a minted task without an outcome: its template, or the role of its completion."""
        self.completions: dict[str, int] = {}
        """First outcomes of completions, by role."""
        self.completed: dict[str, None] = {}
        """Names of completions that have an outcome."""
        self.failed_completions = 0
        self.failures: dict[str, int] = {}
        """Rollouts and completions that failed, by the reason."""
        self.missing: dict[str, list[str]] = {}
        """By name of a task without a measurement: its template or role, and the reason."""
        self.usage: Usage = {}

    def template(self, name: str, position: int) -> Tested:
        """The template of that identity, made when it is first heard of."""
        found = self.tested.get(name)
        if found is None:
            found = self.tested[name] = Tested(position)
        return found

    def ordered(self) -> list[tuple[str, Tested]]:
        """Identities and templates, first seen first."""
        return sorted(self.tested.items(), key=lambda item: item[1].order)

    def best(self) -> str | None:
        """The best template: the last round's; before any round the one of the highest mean on validation tasks."""
        if self.rounds:
            return str(self.rounds[max(self.rounds)]["best"])
        means = [(name, tested.trials.mean_now("validation")) for name, tested in self.ordered()]
        known = [(name, mean) for name, mean in means if mean is not None]
        return max(known, key=lambda item: item[1])[0] if known else None

    def fail(self, reason: Any) -> None:
        """One rollout or completion more has failed."""
        line = _line(reason)
        if line not in self.failures and len(self.failures) >= REASONS:
            line = OTHERS
        self.failures[line] = self.failures.get(line, 0) + 1

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "tested": {name: tested.plain() for name, tested in self.tested.items()},
            "rounds": [[number, dict(body)] for number, body in self.rounds.items()],
            "refused": [[*place, dict(body)] for place, body in self.refused.items()],
            "open": dict(self.open),
            "completions": dict(self.completions),
            "completed": list(self.completed),
            "failed_completions": self.failed_completions,
            "failures": dict(self.failures),
            "missing": {name: list(why) for name, why in self.missing.items()},
            "usage": {name: dict(amounts) for name, amounts in self.usage.items()},
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> PolicyTemplates:
        """From `plain`."""
        own = cls()
        own.tested = {name: Tested.of(tested) for name, tested in plain["tested"].items()}
        own.rounds = {number: dict(body) for number, body in plain["rounds"]}
        own.refused = {(number, candidate): dict(body) for number, candidate, body in plain["refused"]}
        own.open, own.completions = dict(plain["open"]), dict(plain["completions"])
        own.completed = dict.fromkeys(plain["completed"])
        own.failed_completions = plain["failed_completions"]
        own.failures = dict(plain["failures"])
        own.missing = {name: list(why) for name, why in plain["missing"].items()}
        own.usage = {name: dict(amounts) for name, amounts in plain["usage"].items()}
        return own


class Templates:
    """The fold."""

    version = 4
    kinds = frozenset(
        ["template", "refused_template", "round", "mint", "outcome", "delivered", "evict", "given_up", "update"]
    )

    def __init__(self) -> None:
        self.policies: dict[str, PolicyTemplates] = {}
        """Of policies that search prompts."""
        self.versions: dict[str, list[int]] = {}
        """The newest version of every policy, for a template that is told next."""
        self._take = {kind: getattr(self, f"_{kind}") for kind in self.kinds}

    def apply(self, fact: Fact) -> None:
        """Take one fact."""
        self._take[fact.kind](fact)

    def policy(self, name: str) -> PolicyTemplates:
        """The search of a policy, made when it is first heard of."""
        found = self.policies.get(name)
        if found is None:
            found = self.policies[name] = PolicyTemplates()
        return found

    # --- of the learner

    def _update(self, fact: Fact) -> None:
        self.versions[fact.body["policy"]] = list(fact.body["version"])

    def _template(self, fact: Fact) -> None:
        body = fitting(fact)
        if body is None:
            return
        tested = self.policy(body["policy"]).template(body["template"], fact.position)
        place = (body["round"], body["candidate"])
        if tested.text is not None and (tested.round, tested.candidate) <= place:
            return
        if tested.text is None:
            tested.version = list(body.get("version") or self.versions.get(body["policy"], [1, 0]))
        tested.text, tested.parent, tested.critique = body["text"], body["parent"], body["critique"]
        tested.round, tested.candidate = place
        tested.placeholders = list(body["placeholders"])

    def _refused_template(self, fact: Fact) -> None:
        body = fitting(fact)
        if body is None:
            return
        refused = self.policy(body["policy"]).refused
        place = (body["round"], body["candidate"])
        detailed = bool(refused[place]) if place in refused else len(refused) < REFUSED
        refused[place] = {key: body[key] for key in ("text", "parent", "reason")} if detailed else {}

    def _round(self, fact: Fact) -> None:
        body = fitting(fact)
        if body is None:
            return
        rounds = self.policy(body.pop("policy")).rounds
        number = body["round"]
        if number in rounds and rounds[number] != body:  # trials that were missing now count: the search has changed
            for later in [later for later in rounds if later > number]:
                del rounds[later]
        rounds[number] = body

    # --- of tasks

    def _mint(self, fact: Fact) -> None:
        policy = fact.body.get("policy")
        for item in fact.body["tasks"]:
            of = _work(item["body"])
            if policy is None or of is None:
                continue
            own = self.policy(policy)
            name = task_name(item["task"])[0]
            if name in own.open or name in own.completed or self._has_reward(own, item["body"]):
                continue
            own.open[name] = of
            if item["body"]["do"] == "answer":
                own.template(of, fact.position).open += 1

    def _has_reward(self, own: PolicyTemplates, body: dict[str, Any]) -> bool:
        task = _task(body)
        tested = own.tested.get(task[0]) if task is not None else None
        return (
            task is not None and tested is not None and task[2] * ATTEMPTS + task[3] in tested.trials.rewards[task[1]]
        )

    def _close(self, own: PolicyTemplates, name: str) -> None:
        of = own.open.pop(name, None)
        if of is not None and of in own.tested:
            own.tested[of].open -= 1

    def _evict(self, fact: Fact) -> None:
        name = task_name(fact.body.get("task", ""))[0]
        for own in self.policies.values():
            self._close(own, name)

    _delivered = _evict

    def _given_up(self, fact: Fact) -> None:
        name = task_name(fact.body.get("task", ""))[0]
        for own in self.policies.values():
            if name in own.open:
                own.missing[name] = [own.open[name], _line(fact.body.get("reason"))]
            self._close(own, name)

    def _outcome(self, fact: Fact) -> None:
        body = fact.body
        result, policy = body.get("result"), body.get("policy")
        if result is None or policy is None or _work(result) is None:
            return
        own = self.policy(policy)
        name = task_name(body["task"])[0]
        self._close(own, name)
        _add_usage(own.usage, result.get("usage"))
        if result.get("missing"):
            if name not in own.completed and not self._has_reward(own, result):
                own.missing[name] = [str(_work(result)), _line(result.get("reason"))]
            return
        own.missing.pop(name, None)
        if result["do"] == "complete":
            if name not in own.completed:
                own.completed[name] = None
                own.completions[result["role"]] = own.completions.get(result["role"], 0) + 1
                if result.get("failed"):
                    own.failed_completions += 1
                    own.fail(result.get("reason"))
            return
        task, reward = _task(result), result.get("reward")
        if task is not None and isinstance(reward, int | float) and 0.0 <= reward <= 1.0:
            template, split, item, attempt = task
            trials = own.template(template, fact.position).trials
            failed = bool(result.get("failed"))
            if trials.add(split, item, attempt, float(reward), failed=failed) and failed:
                own.fail(result.get("reason"))

    # --- kept

    def snapshot(self) -> dict[str, Any]:
        """As plain JSON values."""
        kept = {name: own.plain() for name, own in self.policies.items()}
        return {"policies": kept, "versions": {name: list(version) for name, version in self.versions.items()}}

    def restore(self, plain: dict[str, Any]) -> None:
        """Become what `snapshot` described."""
        self.policies = {name: PolicyTemplates.of(own) for name, own in plain["policies"].items()}
        self.versions = {name: list(version) for name, version in plain["versions"].items()}


def _line(reason: Any) -> str:
    """Return a reason as one line of limited length."""
    return (" ".join(reason.split()) if isinstance(reason, str) else "")[:REASON] or "it did not say why"


def _work(body: dict[str, Any]) -> str | None:
    """The template that a task (or a result) is about, or the role of its completion; None for other tasks."""
    do = body.get("do")
    of = body.get("template") if do == "answer" else body.get("role") if do == "complete" else None
    return of if isinstance(of, str) and of else None


def _task(body: dict[str, Any]) -> tuple[str, str, int, int] | None:
    """(template, split, item, attempt) of an answer, or None where it is none."""
    template, split, item, attempt = body.get("template"), body.get("split"), body.get("item"), body.get("attempt")
    if not isinstance(template, str) or split not in SPLITS:
        return None
    if type(item) is not int or type(attempt) is not int or not 0 <= item < 2**31 or not 0 <= attempt < ATTEMPTS:
        return None
    return template, str(split), item, attempt


def _add_usage(usage: Usage, reports: Any) -> None:
    for report in reports if isinstance(reports, list) else ():
        if not isinstance(report, dict):
            continue
        name = str(report.get("endpoint") or "unnamed")
        amounts = usage.setdefault(name, dict.fromkeys(AMOUNTS, 0))
        for key in AMOUNTS:
            value = report.get(key)
            if isinstance(value, int | float) and 0 <= value <= MOST:
                amounts[key] += value
