"""`edgewise runs`: the runs that a folder keeps. It waits for no torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption

if TYPE_CHECKING:
    from edgewise.runs.kept import Kept


@app.command(epilog="Example: edgewise runs runs/batch")
def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where they are.", autocompletion=completion.runs)
    ] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """List the runs in a folder, the newest last: on what, how large a circuit, what it recovers, how far it came."""
    from rich.cells import cell_len, set_cell_size

    from edgewise.reports.words import visible
    from edgewise.runs.kept import kept_runs

    where = some_path(folder, "the folder").expanduser()
    found = kept_runs(where)
    if as_json:
        typer.echo(json.dumps({"folder": str(where), "runs": [dataclasses.asdict(one) for one in found]}))
        return
    if not found:
        typer.echo(f"no runs in {where}")
        return
    rows = [COLUMNS, *(_cells(one, where) for one in found if one.broken is None)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows if len(rows) > 1 else ():
        padded = (
            " " * (width - cell_len(cell)) + cell if name in TO_THE_RIGHT else set_cell_size(cell, width)
            for name, cell, width in zip(COLUMNS, row, widths, strict=True)
        )
        typer.echo("  ".join(padded).rstrip())
    for one in found:
        if one.broken is not None:
            typer.echo(visible(f"broken: {_name(one, where)}: {one.broken}"))


COLUMNS = ("run", "task", "model", "method", "circuit", "metric", "recovered", "search", "date")
TO_THE_RIGHT = ("circuit", "recovered")


def _cells(one: Kept, folder: Path) -> tuple[str, ...]:
    """A run's line, whole however long it is, so that it can be searched by line."""
    from edgewise.reports.words import metric_number, percent, visible

    cells = (
        *(_name(one, folder), one.task, one.model, one.method),
        "" if one.size is None else f"{one.size:,} {one.unit}",
        "" if one.value is None else f"{one.metric} {metric_number(str(one.metric), one.value)}",
        "" if one.recovered is None else percent(one.recovered),
        "finished" if one.finished else f"{one.decided:,} of {one.of:,} {one.unit} decided",
        (one.date or "")[:16].replace("T", " "),
    )
    return tuple(visible(str(cell)).replace("\n", "\\n") for cell in cells)


def _name(one: Kept, folder: Path) -> str:
    path = Path(one.run)
    return str(path.relative_to(folder)) if path != folder else path.name
