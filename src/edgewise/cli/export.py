"""`edgewise export`: runs in the forms of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption
from edgewise.errors import unknown


@app.command(epilog="Example: edgewise export runs/ioi-edge-attribution-ig --format mib --out submission")
def export(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, one per task and model.", autocompletion=completion.runs),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "--form",
            help="mib: a submission to the MIB benchmark's circuit track. Or the form of another tool: eap-ig, "
            "autocircuit, edge-pruning, circuit-tracer.",
        ),
    ] = "mib",
    file: Annotated[str, typer.Option(help="json, or pt: as torch saves it (mib, eap-ig, autocircuit).")] = "json",
    name: Annotated[
        str | None,
        typer.Option(
            help="mib: the folder's name for one run, as in ioi_gpt2; circuit-tracer: the graph's. Default: from task "
            "and model."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write runs in the forms of other tools; for the MIB benchmark, the default, a folder per task and model."""
    from edgewise.errors import EdgewiseError
    from edgewise.runs import read_run, require_free
    from edgewise.runs.export_forms import FORMS
    from edgewise.runs.mib_export import export_mib, mib_cell

    if form not in FORMS:
        raise unknown("format", form, FORMS)
    if form != "mib":
        _export_one(runs, out, form, file, name, as_json)
        return
    if name is not None and len(runs) > 1:
        raise EdgewiseError("--name is for one run; with several, folders are named after their tasks and models")
    out = some_path(out, "--out").expanduser()
    require_free(out)
    loaded = [read_run(run) for run in runs]
    cells = [mib_cell(record, circuit, name) for record, circuit in loaded]
    written = export_mib(cells, out, file)
    if as_json:
        rows = [{"cell": one.name, "scored": one.scored, "official": one.official} for one in cells]
        typer.echo(json.dumps({"folder": str(written), "cells": rows}))
        return
    for run, (record, _) in zip(runs, loaded, strict=True):
        if not record.get("finished", True):
            typer.echo(f"note: {run} was interrupted; its circuit still holds every edge that it had not come to")
    for cell in cells:
        what = (
            "importances of"
            if cell.scored
            else f"{cell.circuit.size:,} {cell.circuit.unit} with importance 1, 0 for the rest, of"
        )
        typer.echo(f"{cell.name}: {what} {cell.circuit.most:,} {cell.circuit.unit}")
        if not cell.official:
            typer.echo(f"note: the benchmark has no cell {cell.name!r}; name the one that is meant with --name")
    typer.echo(f"written to {written}")


def _export_one(runs: list[Path], out: Path, form: str, file: str, name: str | None, as_json: bool) -> None:
    """Write one run's circuit in the form of another tool."""
    from edgewise.errors import EdgewiseError
    from edgewise.runs import RunFolder, load_again, read_run, require_free
    from edgewise.runs.export_forms import export_form

    if len(runs) > 1:
        raise EdgewiseError(f"the form {form!r} is of one run, and {len(runs)} are named")
    if name is not None and form != "circuit-tracer":
        raise EdgewiseError("--name is for the forms mib and circuit-tracer")
    out = some_path(out, "--out").expanduser()
    require_free(out)
    record, circuit = read_run(runs[0])
    settings, on = record["settings"], None
    if form == "circuit-tracer":
        on = load_again(runs[0], settings, split=settings["task"].get("split", "validation"))
    exported = export_form(form, record, circuit, file, on=on, name=name)
    with RunFolder.claim(out) as claimed:
        written = claimed.finish(exported.files)
    if as_json:
        typer.echo(json.dumps({"folder": str(written), "form": form, "files": list(exported.files)}))
        return
    if not record.get("finished", True):
        typer.echo(f"note: {runs[0]} was interrupted; its circuit still holds every edge that it had not come to")
    typer.echo(f"{exported.summary}, as {', '.join(exported.files)}")
    typer.echo(f"written to {written}")
