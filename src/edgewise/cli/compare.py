"""`edgewise compare`: where circuits agree and where they differ."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.loading import load_any_circuit
from edgewise.cli.options import JsonOption
from edgewise.cli.printing import stdout_console
from edgewise.errors import EdgewiseError


@app.command(epilog="Example: edgewise compare runs/ioi-acdc runs/ioi-edge-attribution")
def compare(
    circuits: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B...",
            help="Run folders or circuit files, of one graph.",
            autocompletion=completion.circuits,
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Compare circuits: how much they overlap, and where they differ, component by component."""
    from edgewise.evaluation.compare import compare_circuits
    from edgewise.graph.convert import in_one_graph
    from edgewise.reports.tables import component_rows, overlap_rows, terminal_table

    if len(circuits) < 2:
        raise EdgewiseError("name at least two circuits to compare")
    loaded = [load_any_circuit(path) for path in circuits]
    names = _short_names(circuits)
    alike, note = in_one_graph(loaded)
    found = compare_circuits(dict(zip(names, alike, strict=True)))
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(found), "note": note}))
        return
    console = stdout_console()
    console.print(terminal_table(f"overlap of {found.unit}", overlap_rows(found), right=1))
    console.print()
    console.print(terminal_table("where they differ", component_rows(found), right=1))
    if note:
        console.print(f"\nnote: {note}", highlight=False, soft_wrap=True)


def _short_names(paths: list[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise EdgewiseError("the same circuit is named twice")
