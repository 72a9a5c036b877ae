"""Puts the verbs together and turns every failure into one line and an exit status: 2 for usage, 1 for the rest."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from pydsm import __version__
from pydsm.cli import admin, bench, demo, exhaustive, inspect, replay, serve, simulate, status, trace
from pydsm.cli.entry import give_up, is_of_a_stream
from pydsm.cli.text import one_line
from pydsm.core.types.errors import PyDSMError, UsageError

app = typer.Typer(
    name="pydsm",
    help="Replicated state machines without a leader.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve", context_settings={"auto_envvar_prefix": "PYDSM"})(serve.serve)
app.command("status")(status.status)
app.command("trace")(trace.trace)
app.command("pause")(admin.pause)
app.command("resume")(admin.resume)
app.command("snapshot")(admin.snapshot)
app.command("inspect")(inspect.inspect)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.command("simulate")(simulate.simulate)
app.command("replay")(replay.replay)
app.command("exhaustive")(exhaustive.exhaustive)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pydsm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Replicated state machines without a leader."""


USAGE, FAILURE, INTERRUPTED = 2, 1, 130


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit status."""
    try:
        outcome = app(list(arguments), prog_name="pydsm", standalone_mode=False)
    except TyperException as error:
        return _say(error.format_message(), USAGE)
    except UsageError as fault:
        return _say(str(fault), USAGE)
    except PyDSMError as fault:
        return _say(str(fault), FAILURE)
    except (Abort, KeyboardInterrupt, asyncio.CancelledError):
        return _say("interrupted", INTERRUPTED)
    except OSError as error:
        if not is_of_a_stream(error):
            raise
        give_up(sys.stdout)
        return _say(f"cannot write to standard output: {error.strerror}", FAILURE)
    if outcome == INTERRUPTED:
        return _say("interrupted", INTERRUPTED)  # typer makes this status of a KeyboardInterrupt by itself
    return outcome if isinstance(outcome, int) else 0


def _say(what: str, status: int) -> int:
    line = one_line(what)
    if line:
        with contextlib.suppress(OSError):
            print(f"pydsm: {line}", file=sys.stderr, flush=True)
    return status
