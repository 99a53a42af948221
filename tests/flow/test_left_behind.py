"""Processes that an environment starts are gone when the command ends: `run` and `evaluate` (`check` asks as `run`)."""

from __future__ import annotations

from pathlib import Path

import psutil

from tests.flow.running import headrace

SIMULATORS = """
import subprocess
import sys
from pathlib import Path
from gymnasium.envs.classic_control import CartPoleEnv

DAEMON = "import subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True, stdout=-3).pid)"


class Simulated(CartPoleEnv):
    def __init__(self):
        super().__init__()
        near = subprocess.Popen(["sleep", "300"]).pid
        far = subprocess.run([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True, check=True).stdout
        with (Path(__file__).parent / "pids").open("a") as file:
            file.write(f"{near}\\n{far}")
"""


def test_simulators_go_with_the_command_that_made_them(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SIMULATORS)
    (tmp_path / "own.toml").write_text(
        '[environment]\nid = "own:Simulated"\n[actors]\nprocesses = 1\nenvironments = 2\n'
    )
    done = headrace("run", "own.toml", "--headless", "--seconds", "3", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = headrace("evaluate", "run", "--episodes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2 * 6, "probes and copies, in a run and in an evaluation"
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
