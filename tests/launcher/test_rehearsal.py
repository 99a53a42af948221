"""What is wrong with a run's own algorithm, network or rollout is found before there is a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from broker.errors import RequestError
from launcher.inquiry import Inquiry
from launcher.plan import make_plan
from launcher.probing import Spaces
from launcher.reading import load
from launcher.rehearsal import mistakes, rehearse
from tests.launcher.test_cli import headrace

EXAMPLES = Path(__file__).parents[2] / "examples"


def cartpole(*overrides: str) -> dict[str, Any]:
    return make_plan(load("cartpole", list(overrides)), SPACES).to_plain()


def spaces() -> Spaces:
    from gymnasium.spaces import Box, Discrete

    from actors.spaces import action_spec, observation_spec

    seen, done = Box(-1.0, 1.0, (4,)), Discrete(2)
    plain = {
        "observation": observation_spec(seen, "agent").to_plain(),
        "action": action_spec(done, "agent", seen).to_plain(),
    }
    return Spaces("gymnasium", {"agent": plain})


SPACES = spaces()


def test_what_is_right_is_passed_over() -> None:
    assert mistakes(cartpole()) == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.algorithm=nowhere_at_all:Own", "learner.algorithm 'nowhere_at_all:Own': there is no module"),
        ("learner.algorithm=math:Own", "learner.algorithm 'math:Own': module 'math' has no 'Own'"),
        ("learner.algorithm=math:sqrt", "learner.algorithm 'math:sqrt': making it raised TypeError"),
        ("learner.algorithm=builtins:id", "learner.algorithm 'builtins:id' lacks accept"),
        ("learner.settings.batch_stepps=100", "learner.settings.batch_stepps"),
        ("policies.network=nowhere_at_all:Net", "policies.network 'nowhere_at_all:Net': there is no module"),
        ("policies.settings.depth=3", "policies.settings do not suit network 'mlp'"),
        ("services.sim.main=nowhere_at_all:serve", "services.sim.main 'nowhere_at_all:serve': there is no module"),
        ("policies.network=cnn", "needs exactly one image"),
    ],
)
def test_a_mistake_is_told_once_by_its_key(override: str, said: str) -> None:
    (told,) = mistakes(cartpole(override))
    assert said in told


def test_every_mistake_is_told_at_once_and_what_a_module_prints_is_not_the_answer(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("print('a greeting')\n\n\nclass Work:\n    pass\n")
    (tmp_path / "own.toml").write_text(
        '[policies]\nnames = ["a", "b"]\n[actors]\nrollout = "loud:Work"\n[learner]\nalgorithm = "loud:Missing"\n'
    )
    plan = make_plan(load(tmp_path / "own.toml"), None)
    with pytest.raises(RequestError) as caught:
        rehearse(plan)
    algorithm, rollout = str(caught.value).splitlines()
    assert algorithm.startswith("learner.algorithm 'loud:Missing': module 'loud' has no 'Missing'")
    assert rollout.startswith("actors.rollout 'loud:Work': making it raised TypeError")


def test_what_the_users_code_has_started_holds_up_no_answer(tmp_path: Path) -> None:
    (tmp_path / "simulator.py").write_text(
        "import json, subprocess\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print(json.dumps({'pid': child.pid}), flush=True)\n"
    )
    began = time.monotonic()
    inquiry = Inquiry("a simulator", "simulator", {}, str(tmp_path), seconds=30.0, key="key")
    reply = inquiry.answer()
    assert time.monotonic() - began < 20.0
    with pytest.raises(ProcessLookupError):  # though it is in a session of its own
        os.kill(reply["pid"], 0)


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    (tmp_path / "own.toml").write_text('[policies]\nnames = ["a"]\n[actors]\nrollout = "slow:Work"\n')
    run = load(tmp_path / "own.toml", ["supervision.check_seconds=0.5"])
    with pytest.raises(RequestError, match=r"network or rollout: it could not be made within 0\.5 s"):
        rehearse(make_plan(run, None))


def test_check_finds_it_and_passes_the_example(tmp_path: Path) -> None:
    minted = str(EXAMPLES / "minted" / "minted.toml")
    right = headrace("check", minted, cwd=tmp_path)
    assert right.returncode == 0, right.stderr
    wrong = headrace("check", minted, "--set", "actors.rollout=minted:Thow", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("headrace: actors.rollout 'minted:Thow': module 'minted' has no 'Thow'")
    assert "did you mean 'Throw'?" in wrong.stderr
    assert wrong.stdout == ""
