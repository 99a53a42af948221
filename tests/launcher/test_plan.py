"""The plan: agents to policies, roles, staleness; the probe and the run directory as they really are."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.columns import Columns
from actors.spaces import ActionSpec, ObservationSpec
from broker.errors import RequestError
from broker.station import Spec
from launcher import sockets
from launcher.directory import inspect, last_words, make, newest
from launcher.plan import DEFAULT_BATCH_STEPS, Plan, check_text, child_of, make_plan, map_agents, roles
from launcher.probing import Probe, Spaces
from launcher.reading import load


def leaf(*shape: int) -> dict[str, Any]:
    return {"leaves": [{"name": "", "kind": "box", "shape": list(shape), "dtype": "float32", "n": None}]}


FIVE = {"kind": "discrete", "nvec": [5], "shape": [], "low": [], "high": [], "masked": False}
SPREAD = Spaces("pettingzoo", {f"agent_{i}": {"observation": leaf(18), "action": FIVE} for i in range(3)})


def test_one_policy_for_each_agent_by_default() -> None:
    plan = make_plan(load(seed=1), SPREAD)
    assert plan.agents == {f"agent_{i}": f"agent_{i}" for i in range(3)}
    assert [role.name for role in plan.roles] == [
        "tracker", "learner-agent_0", "learner-agent_1", "learner-agent_2", "actor-0", "actor-1",
    ]  # fmt: skip
    policy = plan.policies["agent_1"]
    # 2 actors x 2 fragments x (25 steps x 16 environments x 1 agent) / 1600
    assert (policy.fragment_steps, policy.batch_steps, policy.staleness) == (400, 3200, 1.0)


def test_a_fragment_that_fits_into_no_message_is_told() -> None:
    wide = Spaces("pettingzoo", {"a": {"observation": leaf(3_000_000), "action": FIVE}})
    with pytest.raises(RequestError, match=r"policy 'a': a fragment would have 4\.\d GiB, and a message holds 1"):
        make_plan(load(seed=1), wide)


MASKED = {"kind": "multi_discrete", "nvec": [3, 4], "shape": [2], "low": [], "high": [], "masked": True}
BOX = {"kind": "box", "nvec": [], "shape": [6], "low": [None] * 6, "high": [None] * 6, "masked": False}


@pytest.mark.parametrize("action", [FIVE, MASKED, BOX], ids=lambda action: str(action["kind"]))
def test_a_fragment_is_no_larger_than_the_plan_says(action: dict[str, Any]) -> None:
    run = load(seed=1)
    spaces = Spaces("pettingzoo", {"a": {"observation": leaf(18), "action": action}})
    policy = make_plan(run, spaces).policies["a"]
    observation = ObservationSpec.from_plain(leaf(18))
    count, steps = run.actors.environments, run.learner.fragment_steps
    columns = Columns(("a",), observation, ActionSpec.from_plain(action), count, steps)
    assert columns.fragment()[0].layout.size <= policy.max_fragment <= 1.5 * columns.fragment()[0].layout.size
    own = load(None, ["actors.rollout=own:Rollout", "learner.max_fragment_mb=3"])
    assert make_plan(own, spaces).policies["a"].max_fragment == 3 * 2**20


def test_a_shared_policy_counts_all_its_agents() -> None:
    plan = make_plan(load(None, ["policies.agents.agent_*=shared"]), SPREAD)
    assert set(plan.policies) == {"shared"}
    assert plan.policies["shared"].fragment_steps == 1200
    assert plan.policies["shared"].staleness == 3.0


def test_the_first_glob_counts_and_the_rest_have_their_own() -> None:
    mapped = map_agents(["red_0", "red_1", "blue_0"], {"red_0": "captain", "red_*": "red"})
    assert mapped == {"red_0": "captain", "red_1": "red", "blue_0": "blue_0"}


@given(st.lists(st.from_regex(r"[a-c]_[0-2]", fullmatch=True), min_size=1, unique=True), st.permutations("abc*"))
def test_every_agent_has_the_policy_of_its_first_glob(agents: list[str], letters: list[str]) -> None:
    globs = {f"{letter}_*": f"p{index}" for index, letter in enumerate(letters)}
    globs = {glob: policy for glob, policy in globs.items() if glob[0] == "*" or any(a[0] == glob[0] for a in agents)}
    mapped = map_agents(agents, globs)
    assert list(mapped) == agents
    for agent, policy in mapped.items():
        assert policy == f"p{min(letters.index(agent[0]), letters.index('*'))}"


def test_what_cannot_be_mapped() -> None:
    with pytest.raises(RequestError, match="matches none of the agents a, b"):
        map_agents(["a", "b"], {"c*": "x"})
    with pytest.raises(RequestError, match="cannot name a policy"):
        map_agents(["the agent"], {})
    odd = Spaces(
        "pettingzoo", {"a": {"observation": leaf(3), "action": FIVE}, "b": {"observation": leaf(4), "action": FIVE}}
    )
    with pytest.raises(RequestError, match="a and b have different observation spaces"):
        make_plan(load(None, ["policies.agents.*=shared"]), odd)


def test_a_run_without_an_environment_has_the_policies_it_names() -> None:
    run = load(
        None, ["environment=", "actors.rollout=mine:Rollout", "policies.names=['prompt']", "learner.algorithm=mine:A"]
    )
    plan = make_plan(run, None)
    assert plan.policies["prompt"].staleness is None
    assert [role.name for role in plan.roles if role.kind == "learner"] == ["learner-prompt"]
    assert "not known" in check_text(plan)


def test_a_plan_is_plain() -> None:
    plan = make_plan(load(), SPREAD)
    assert Plan.from_plain(json.loads(json.dumps(plan.to_plain()))) == plan


def test_check_tells_roles_staleness_and_the_resolved_file() -> None:
    text = check_text(make_plan(load(None, ["learner.window=60", "learner.max_staleness=4"]), SPREAD))
    for told in ("learner-agent_2", "expected staleness 15.0 versions, above max_staleness 4", "[learner.settings]"):
        assert told in text
    assert "sees box [18], does discrete [5]" in text


def test_default_batches_are_the_learners_own() -> None:
    from learners.ppo import PpoSettings

    assert PpoSettings().batch_steps == DEFAULT_BATCH_STEPS["ppo"]


def test_the_probe_asks_the_real_environment() -> None:
    spaces = Probe(load("cartpole")).answer()
    assert spaces is not None
    assert (spaces.kind, list(spaces.agents)) == ("gymnasium", ["agent"])
    assert make_plan(load("cartpole"), spaces).policies["agent"].staleness == 1.0


def test_the_probe_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="CartPoll"):
        Probe(load("cartpole", ["environment.id=CartPoll-v1"])).answer()
    (tmp_path / "mine.toml").write_text("[environment]\nid = 'CartPole-v1'\n")
    (tmp_path / "broken.py").write_text("print('a greeting')\nraise SystemExit('no licence')\n")
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('a user module that shadows ours')\n")
    run = load(tmp_path / "mine.toml")
    with pytest.raises(RequestError, match=r"status 1\); it printed\n  no licence"):
        Probe(run, module="broken").answer()
    hasty = load(tmp_path / "mine.toml", ["environment.start_seconds=0.5"])
    with pytest.raises(RequestError, match=r"within 0\.5 s, which is environment\.start_seconds") as caught:
        Probe(hasty, module="slow").answer()
    assert 'slow.py", line 2' in str(caught.value), "where it was is told"


def test_a_run_directory_is_made_once(tmp_path: Path) -> None:
    first, second = make("spread", root=tmp_path), make("spread", root=tmp_path)
    assert first.path != second.path
    for directory in (first, second):
        assert stat.S_IMODE(directory.token_file.stat().st_mode) == 0o600
        assert len(directory.token()) == 32
        assert directory.ipc is not None
        assert stat.S_IMODE(directory.ipc.stat().st_mode) == 0o700
        assert len(str(directory.ipc)) <= sockets.MAX_PATH
        (directory.ipc / "tracker").touch()
    folder = first.ipc
    for directory in (first, second):
        directory.close()
        directory.close()
        assert directory.ipc is None
    assert folder is not None
    assert not folder.exists()


def test_a_ledger_is_entered_only_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such directory"):
        make("x", tmp_path / "run", resume=True)
    with pytest.raises(RequestError, match="which run"):
        make("x", resume=True)
    directory = make("x", tmp_path / "run")
    left = directory.ipc
    load().write(directory.run_file)
    directory.ledger.touch()
    directory.log("actor-0", 3).write_text("one\n" * 130 + "two\n")
    with pytest.raises(RequestError, match="add --resume"):
        make("x", tmp_path / "run")
    again = make("x", tmp_path / "run", resume=True)
    assert left is not None
    assert not left.exists()  # what the launch before left behind is swept
    assert again.attempts_before() == 3
    with again.log("actor-0", 3).open("rb") as log:
        assert last_words(log).splitlines() == ["one"] * 99 + ["two"]
    assert newest(tmp_path).path == again.path == inspect(tmp_path / "run").path
    again.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RequestError, match=r"thesis\.tex"):
        make("x", tmp_path / "other")


def test_a_run_that_is_going_on_is_not_entered(tmp_path: Path) -> None:
    directory = make("x", tmp_path / "run")
    load().write(directory.run_file)
    directory.ledger.touch()
    code = "import sys, time; from pathlib import Path; from tracker.lock import RunLock\n"
    code += "lock = RunLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(30)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(directory.path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RequestError, match="still going on"):
            make("x", tmp_path / "run", resume=True)
        assert directory.ipc is not None
        assert directory.ipc.exists()
    finally:
        holder.kill()
        holder.communicate(timeout=10)
        directory.close()


def test_a_child_gets_what_its_station_needs(tmp_path: Path) -> None:
    services = ["services.web.main=mine:serve", "services.web.settings.x=1"]
    plan = Plan.from_plain(json.loads(json.dumps(make_plan(load(None, services), SPREAD).to_plain())))
    web = plan.role("endpoint-web")
    assert (web.kind, web.main, web.engine) == ("endpoint", "mine:serve", "plain")
    assert "endpoint-web     own interpreter mine:serve" in check_text(plan)
    directory = make("spread", tmp_path / "run")
    try:
        assert child_of(plan, "endpoint-web", 1, directory).spec["settings"] == {"x": 1}
        for role in roles(plan.run, plan.policies):
            child = child_of(plan, role.name, 2, directory)
            spec = Spec.of(json.loads(json.dumps(child.to_plain()))["spec"])
            assert (spec.role, spec.kind, spec.policy, spec.attempt) == (role.name, role.kind, role.policy, 2)
            assert spec.token() == directory.token()
            assert spec.tracker == f"ipc://{directory.ipc}/tracker"
            assert directory.token() not in json.dumps(child.to_plain())
            assert child.log.endswith(f"logs/{role.name}.2.log")
            assert child.finish_seconds == (3.0 if role.kind == "tracker" else 0.0)
    finally:
        directory.close()
