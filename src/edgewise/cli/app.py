"""The `edgewise` command itself; every other command adds itself to `app`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewise import __version__

# torch and transformers take seconds to import, so every command imports what it needs when it runs.

app = typer.Typer(
    name="edgewise",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find the circuit in a transformer that produces a behaviour, and check that it does.",
    epilog="Start with: edgewise discover ioi\n\n"
    "Defaults of your own: edgewise.toml here, or the file that EDGEWISE_CONFIG names (docs/shell.md).",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgewise {__version__}")
        raise typer.Exit


@app.callback()
def edgewise(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
