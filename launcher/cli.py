"""The command line: `headrace run | check | watch | summary | export | mend | evaluate`.

Exit status: 0 what was asked was done, 1 it failed (and says why), 2 the request was wrong.

Invariant: a mistake of the user is one message on stderr and no traceback; what a command needs is imported when the
command runs, so that `--help` answers at once and nothing but a learner, an actor or `evaluate` ever imports torch.
"""

from __future__ import annotations

import errno
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.errors import HeadraceError, RequestError
from broker.text_files import path_error
from launcher import words

WRONG_PATH = frozenset({errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP})

app = typer.Typer(
    name="headrace",
    help="Actors stream experience, learners broadcast parameters, one process writes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the run file, e.g. learner.algorithm=ppo."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headrace {version('headrace')}")
        raise typer.Exit


@app.callback()
def headrace(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Actors stream experience, learners broadcast parameters, one process writes."""


@app.command()
def run(
    *,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run file, or a shipped one's name.")] = None,
    overrides: Override = None,
    run_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the run is kept.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Seed of everything that is drawn.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Plain lines in place of the dashboard.")] = False,
    seconds: Annotated[float | None, typer.Option(metavar="N", help="Stop after this many seconds.")] = None,
) -> None:
    """Start a run, show it live and end with a summary. Without RUN: spread."""
    if resume and run_dir is None:
        raise RequestError("--resume needs the run to go on with: add --run-dir DIR")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise RequestError(f"--seconds {seconds:g}: give a number of seconds above 0")
    from launcher.run import run as start

    settings = list(overrides or ())
    status = start(
        run=run, overrides=settings, run_dir=run_dir, resume=resume, seed=seed, headless=headless, seconds=seconds
    )
    raise typer.Exit(status)


@app.command()
def check(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run file, or a shipped one's name.")],
    overrides: Override = None,
    as_json: AsJson = False,
) -> None:
    """Make once what the run file names, and show the resolved run and who would be placed where; start no run."""
    from launcher.curriculum import check_source
    from launcher.plan import check_text, make_plan
    from launcher.probing import Probe
    from launcher.prompting import check_files
    from launcher.reading import load
    from launcher.rehearsal import rehearse

    resolved = load(run, list(overrides or ()))
    check_source(resolved)
    check_files(resolved)
    probe = Probe(resolved)
    try:
        spaces = probe.answer()
    finally:
        probe.close()
    plan = make_plan(resolved, spaces)
    rehearse(plan)
    warnings = spaces.warnings if spaces is not None else []
    if as_json:
        _print_json(plan.to_plain() | {"warnings": warnings})
    else:
        _say("\n".join([*(f"warning: {warning}" for warning in warnings), check_text(plan)]))


@app.command()
def watch(
    run: Annotated[str | None, typer.Argument(metavar="[RUN-DIR|ADDRESS]", help="Default: the newest run.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once and leave.")] = False,
    as_json: AsJson = False,
    token: Annotated[Path | None, typer.Option(metavar="FILE", help="The run's token, for an ADDRESS.")] = None,
) -> None:
    """Look at a run while it lasts, read-only, or at what a finished one came to."""
    from launcher import watch as watching

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the terminal is left as it was
    raise typer.Exit(watching.watch(run, once=once, as_json=as_json, token=token, write=typer.echo))


@app.command()
def summary(
    run_dir: Annotated[Path | None, typer.Argument(metavar="[RUN-DIR]", help="Default: the newest run.")] = None,
    as_json: AsJson = False,
) -> None:
    """What was learned: returns, losses, staleness, drops, restarts."""
    from launcher.watch import run_directory

    directory = run_directory(run_dir)
    from tracker.summary import summarise

    found = summarise(directory)
    if as_json:
        _print_json(found)
    else:
        from launcher.report import render_summary

        _console().print(render_summary(found))


@app.command()
def export(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN-DIR")],
    to: Annotated[str | None, typer.Option("--to", metavar="FORM", help="json, csv or parquet.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The file (json) or folder. Default: in RUN-DIR/export/.")
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="Print the best prompt, and nothing else.")] = False,
    policy: Annotated[str | None, typer.Option(metavar="P", help="Of --best: whose, where several search.")] = None,
) -> None:
    """Write the ledger in a form that other tools read, and print where; or print the best prompt."""
    if best == (to is not None):
        raise RequestError("say what to export: --to json, --to csv, --to parquet, or --best")
    from launcher.watch import run_directory

    directory = run_directory(run_dir)
    from tracker.export import EXPORTS, best_template, check_place
    from tracker.export import export as write

    if to is None:
        text = best_template(directory, policy)
        if out is None:
            typer.echo(words.lines(text) if sys.stdout.isatty() else text)  # a pipe gets the exact text
        else:
            check_place(out)
            _write_text(out, text)
        return
    place = out or directory / EXPORTS / ("ledger.json" if to == "json" else to)
    _say(str(write(directory, to, place)))


@app.command()
def mend(run_dir: Annotated[Path, typer.Argument(metavar="RUN-DIR")]) -> None:
    """Make a new ledger of what can be read of a damaged one, which is kept aside."""
    from tracker.mend import mend as make

    made = make(run_dir)
    ends = f"; it ends there because {made.why}" if made.why else ": all that there were"
    damaged = f"\n{made.refused:,} of them have a damaged body, and are kept as `refused`" if made.refused else ""
    _say(f"{made.facts:,} facts are in the new ledger{ends}{damaged}\nthe damaged file is kept as {made.aside}")


@app.command()
def evaluate(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN-DIR")],
    episodes: Annotated[int, typer.Option(min=1, metavar="N", help="Episodes to play.")] = 100,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="Take the likeliest action.")] = False,
    policy: Annotated[str | None, typer.Option(metavar="P", help="Report only this policy.")] = None,
    render: Annotated[bool, typer.Option("--render", help="Show the environment.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play the trained policies and report their returns, with an interval."""
    from launcher.watch import run_directory

    directory = run_directory(run_dir)

    def play() -> None:
        from launcher.evaluate import evaluate as play

        result = play(run_dir=directory, episodes=episodes, deterministic=deterministic, policy=policy, render=render)
        if as_json:
            _print_json(result)
        else:
            from launcher.report import render_evaluation

            _console().print(render_evaluation(result))

    from broker.descendants import guarded

    status = guarded(lambda: _answered(play))  # the user's environment may leave processes behind
    if status < 0:
        from broker.exits import describe

        typer.echo(f"headrace: evaluate ended with {describe(status)}", err=True)
    raise typer.Exit(status if status >= 0 else 1)


def _write_text(out: Path, text: str) -> None:
    """The text as it is, to its last character."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise RequestError(f"cannot write {out}: {error.strerror or error}; choose another place") from error
    _say(str(out))


def _say(text: str, *, err: bool = False) -> None:
    typer.echo(words.lines(text), err=err)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print_json(value: object) -> None:
    typer.echo(words.as_json(value, indent=2))


def _answered(command: Callable[[], object]) -> int:
    """Run a command and return its exit status; a Headrace error becomes its message on stderr."""
    try:
        command()
    except RequestError as error:
        _say(f"headrace: {error}", err=True)
        return 2
    except HeadraceError as error:
        _say(f"headrace: {error}", err=True)
        return 1
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        _say(f"headrace: {error.filename[:200]}: {path_error(error)}", err=True)
        return 2 if error.errno in WRONG_PATH else 1
    except KeyboardInterrupt:
        typer.echo("Aborted!", err=True)
        return 1
    return 0


def main() -> None:
    """Run the command line: the entry point `headrace`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal's encoding has no sign for ends no run
    sys.exit(_answered(app))


if __name__ == "__main__":
    main()
