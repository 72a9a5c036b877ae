"""Registers the verbs; reports every failure as one line and an exit status: 2 for usage errors, 1 for others."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from pydsm.cli import admin, bench, demo, exhaustive, inspect, replay, serve, simulate, status, trace
from pydsm.cli.entry import is_stream_error, redirect_to_null
from pydsm.cli.text import one_line
from pydsm.core.types.errors import PyDSMError, UsageError
from pydsm.version import __version__

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
    """Run one command and return its exit status."""
    try:
        outcome = app(list(arguments), prog_name="pydsm", standalone_mode=False)
    except TyperException as error:
        return _print_error(error.format_message(), USAGE)
    except UsageError as fault:
        return _print_error(str(fault), USAGE)
    except PyDSMError as fault:
        return _print_error(str(fault), FAILURE)
    except (Abort, KeyboardInterrupt, asyncio.CancelledError):
        return _print_error("interrupted", INTERRUPTED)
    except OSError as error:
        if not is_stream_error(error):
            raise
        redirect_to_null(sys.stdout)
        return _print_error(f"cannot write to standard output: {error.strerror}", FAILURE)
    if outcome == INTERRUPTED:
        return _print_error("interrupted", INTERRUPTED)  # typer returns this status for a KeyboardInterrupt
    return outcome if isinstance(outcome, int) else 0


def _print_error(text: str, status: int) -> int:
    line = one_line(text)
    if line:
        with contextlib.suppress(OSError):
            print(f"pydsm: {line}", file=sys.stderr, flush=True)
    return status
