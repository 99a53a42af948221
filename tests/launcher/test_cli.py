"""The command line: exit statuses through real processes, options through typer's runner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.errors import RequestError
from launcher.cli import app
from tests.launcher import documents


def headrace(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def test_help_names_every_command_and_its_options() -> None:
    runner = CliRunner()
    text = runner.invoke(app, ["--help"]).output
    for command in ("run", "check", "watch", "summary", "export", "evaluate"):
        assert command in text
        assert runner.invoke(app, [command, "--help"]).exit_code == 0
    text = runner.invoke(app, ["run", "--help"], env={"COLUMNS": "120"}).output
    for option in ("--set", "--run-dir", "--resume", "--seed", "--headless", "--seconds"):
        assert option in text, option


def test_what_the_terminal_has_no_sign_for_is_replaced() -> None:
    code = "from launcher import cli; cli.app = lambda: print('v1 \u2192 v2'); cli.main()"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"v1 ? v2\n"), done.stderr


def test_version() -> None:
    result = headrace("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("headrace 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command"),
        (["run", "--seed", "many"], "--seed"),
        (["run", "--resume"], "--run-dir"),
        (["run", "--seconds", "0"], "--seconds"),
        (["check"], "RUN"),
        (["export", "."], "--to"),
        (["evaluate", ".", "--episodes", "0"], "--episodes"),
        (["summary", "no-such-run"], "no-such-run: no such directory"),
        (["summary", "x" * 5000], "too long"),
        (["check", "x" * 5000], "too long"),
        (["mend", "x" * 5000], "too long"),
        (["evaluate", "no-such-run"], "no-such-run: no such directory"),
        (["export", "no-such-run", "--to", "csv"], "no-such-run: no such directory"),
        (["watch"], "holds no runs"),
        (["watch", "."], "holds no run"),
        (["watch", "tcp://127.0.0.1:7400"], "--token"),
    ],
)
def test_a_wrong_request_is_one_message_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = headrace(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_errors_of_ours_reach_main_and_nothing_is_swallowed() -> None:
    result = CliRunner().invoke(app, ["run", "--resume"])
    assert isinstance(result.exception, RequestError)


def test_the_command_line_stays_light() -> None:
    code = "import sys, launcher.cli; print(sorted({'torch', 'zmq', 'pydantic', 'numpy', 'rich'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


def test_summary_and_export_read_the_ledger(tmp_path: Path) -> None:
    run = tmp_path / "runs-out" / "spread-1"
    run.mkdir(parents=True)
    documents.fill(run)
    told = json.loads(headrace("summary", "--json", cwd=tmp_path).stdout)
    assert told["state"] == "ended"
    assert told["env_steps"] == 6250
    assert set(told["policies"]["agent_1"]["fragments"]) >= {"consumed", "stale", "lost"}
    assert "spread ended after 3:00" in headrace("summary", str(run)).stdout
    exported = headrace("export", str(run), "--to", "json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(Path(exported.stdout.strip()).read_text())["count"] == told["facts"]["stored"]
    refused = headrace("export", str(run), "--to", "xml")
    assert refused.returncode == 2
    assert "xml" in refused.stderr


def test_check_prints_the_resolved_run_and_starts_nothing(tmp_path: Path) -> None:
    result = headrace("check", "cartpole", "--set", "actors.processes=3", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "actor-2" in result.stdout
    assert "expected staleness" in result.stdout
    assert list(tmp_path.iterdir()) == []
    wrong = headrace("check", "cartpole", "--set", "actors.proceses=3", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "actors.proceses" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_message_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a\u202e\x9b31mb").mkdir()
    done = headrace("summary", "a\u202e\x9b31mb", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds no run" in done.stderr
    assert all(sign.isprintable() or sign == "\n" for sign in done.stderr)
