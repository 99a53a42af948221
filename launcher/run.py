"""`headrace run`: from a run file to its end.

Invariants: everything that can be wrong with the request is found before a role is spawned; the launcher computes
nothing and writes nothing but the resolved run file and captured logs; when it leaves, no process of the run is left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.descendants import adopt, end_children
from broker.errors import RequestError, RunError
from launcher import directory as directories
from launcher.child import STATUS_REQUEST
from launcher.curriculum import check_source
from launcher.directory import RunDirectory
from launcher.engines import NurseryEngine
from launcher.lifeline import Lifeline
from launcher.prompting import check_files
from launcher.reading import load
from launcher.reading import resume as load_resumed
from launcher.runfile import RunFile

if TYPE_CHECKING:
    from launcher.launch import Launch, View
    from launcher.plan import Plan


def run(  # noqa: PLR0917 - the command line, option by option
    run: str | None = None,
    overrides: list[str] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    headless: bool = False,
    seconds: float | None = None,
) -> int:
    """Run to the end and return the exit status. RequestError if the request is wrong: the new run directory is then
    removed, unless a role was already started.
    """
    settings = [*(overrides or ()), *([f"stop.seconds={seconds}"] if seconds is not None else [])]
    changed: dict[str, tuple[Any, Any]] = {}
    if resume:
        assert run_dir is not None
        resolved, changed = load_resumed(directories.inspect(run_dir).run_file, settings)
        if run is not None and load(run).name != resolved.name:
            raise RequestError(f"{run!r} is another run than the one in {run_dir}, {resolved.name!r}: leave it out")
        if seed is not None and seed != resolved.seed:
            raise RequestError(f"--seed {seed}: the run to resume has seed {resolved.seed}, which cannot change")
        where = directories.make(resolved.name, run_dir, resume=True)
    else:
        resolved = load(run, settings, seed)
        where = directories.make(resolved.name, run_dir)
    launch: Launch | None = None
    strangers = adopt()
    lifeline = Lifeline()
    nursery = NurseryEngine(lifeline, where.log("nursery"), folder=resolved.folder)
    try:
        nursery.warm()  # the longest of all preparations; the others go on beside it, imports among them
        from launcher import launch as launches

        plan = _plan(resolved, where)
        if resolved.endpoints is not None:
            from actors.prompts.preflight import reach

            reach(resolved.endpoints.model_dump())
        resolved.write(where.run_file)
        launch = launches.Launch(plan, where, lifeline, nursery, resumed=resume, changed=changed, strangers=strangers)
        status = launch.run(_view(headless))
        if status == STATUS_REQUEST:
            problem = launch.problem
            reason = (problem.last_words or problem.reason) if problem else "a role cannot do what the run file asks"
            raise RequestError(f"{reason}\nthe files of the run are kept in {where.path}")
    finally:
        nursery.close(1.0)
        lifeline.close()
        end_children(strangers)
        where.close()
        if not resume and (launch is None or not launch.began):
            where.discard()
    from launcher.report import is_failed

    summary = _show_summary(where)
    if is_failed(summary) and launch.problem is None:  # by the tracker's verdict; a role's problem was already shown
        raise RunError("\n".join(filter(None, (summary["reason"], launch.fell))))
    return status


def _plan(resolved: RunFile, where: RunDirectory) -> Plan:
    from launcher import environment_record
    from launcher.plan import make_plan
    from launcher.probing import Probe

    check_source(resolved)
    check_files(resolved)
    probe = Probe(resolved)
    try:
        spaces = probe.answer()
        plan = make_plan(resolved, spaces)
        environment_record.keep(where, spaces)
        return plan
    finally:
        probe.close()


def _view(headless: bool) -> Callable[[], View]:
    if headless or not sys.stdout.isatty():
        from launcher.lines import PlainLines

        return PlainLines
    from launcher.dashboard import Dashboard

    def dashboard() -> View:
        shown = Dashboard()
        shown.__enter__()
        return shown

    return dashboard


def _show_summary(where: RunDirectory) -> dict[str, Any]:
    from rich.console import Console

    from launcher.report import render_summary
    from tracker.summary import summarise

    summary = summarise(where.path) if where.ledger.exists() else {}
    if summary:
        Console().print(render_summary(summary))
    return summary
