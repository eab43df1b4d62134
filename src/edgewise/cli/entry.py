"""From the shell to a command and back: errors become one sentence and an exit code."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from edgewise.cli.commands import COMMANDS, callbacks, command, every_command, overview
from edgewise.cli.defaults import defaults
from edgewise.cli.printing import Kept
from edgewise.cli.signals import listening
from edgewise.errors import EdgewiseError, EdgewiseWarning, unknown
from edgewise.reports.words import visible


def main() -> None:
    """The `edgewise` command: what a user can put right becomes one sentence and exit code 2, never a traceback."""
    warnings.showwarning = _say_warning
    warnings.simplefilter("always", EdgewiseWarning)
    # What other libraries have to say is for programmers; what stops a command comes as an error all the same.
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    try:
        with listening():
            _run(sys.argv[1:])
    except EdgewiseError as error:
        _fail(f"edgewise: {error}", 2)
    except KeyboardInterrupt as asked:
        if isinstance(asked.__context__, SystemExit):  # asked again when the command had come to its end, and said so
            raise asked.__context__ from None
        _fail(INTERRUPTED, 130)
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        _fail(f"edgewise: cannot use{where}: {error.strerror or error}", 2)
    except SystemExit as end:
        if end.code == 130 and not isinstance(end, Kept):  # typer has already turned Ctrl-C into this
            typer.echo(INTERRUPTED, err=True)
        raise


def _run(words: list[str]) -> None:
    """Run the command that was typed first: it alone is looked at, so that it does not wait for the others."""
    if "_EDGEWISE_COMPLETE" in os.environ:
        every_command()(words, prog_name="edgewise")
    elif words and not words[0].startswith("-"):
        one = command(words[0])
        if one is None:
            raise unknown("command", words[0], COMMANDS)
        if not one.registered_groups:  # a command by itself stands for the whole, and is called by no name
            own = defaults(words[0], words[1:], callbacks)
            one(words[1:], prog_name=f"edgewise {words[0]}", default_map=own)
        else:
            one(words, prog_name="edgewise")
    else:
        overview()(words, prog_name="edgewise")


def _say_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """A warning as a sentence. Those of other libraries are for programmers, and are left out."""
    if issubclass(category, EdgewiseWarning):
        typer.echo(visible(f"edgewise: warning: {message}"), err=True)


INTERRUPTED = "edgewise: interrupted; nothing was written"


def _fail(message: str, code: int) -> None:
    typer.echo(visible(message), err=True)
    sys.exit(code)
