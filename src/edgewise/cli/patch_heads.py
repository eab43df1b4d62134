"""`edgewise patch --head`: what a head's attention scores and its output are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgewise.cli.printing import headline, stdout_console
from edgewise.files import write_text

if TYPE_CHECKING:
    from edgewise.patching import Experiment


def show_head(
    experiment: Experiment,
    head: str,
    *,
    query: int | None,
    key: int | None,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Take the head apart, print its strongest parts, and write all of them to `out` and a picture to `plot`."""
    from rich.text import Text

    from edgewise.discovery import head_parts
    from edgewise.evaluation.answers import first_tokens
    from edgewise.reports import head_tables
    from edgewise.runs.scores import save_head_parts

    task, model = experiment.task, experiment.decoder
    parts = head_parts(experiment, head, query=query, key=key)
    found = {"task": task.name, "model": model.name, **parts.to_dict()}
    if out is not None and out.suffix == ".json":
        write_text(out, json.dumps(found) + "\n")
    elif out is not None:
        save_head_parts(out, parts)
    tokens = first_tokens(model, task)
    if plot is not None:
        from edgewise.reports import head_plot

        head_plot(parts, tokens=tokens or None, title=f"{head} of {model.name} on {task.name}", path=plot)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = stdout_console()
    console.print(headline(task, model), highlight=False, markup=False, soft_wrap=True)
    for table in head_tables(parts, task, tokens):
        console.print(table, soft_wrap=isinstance(table, Text))
    for note in parts.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    if out is None:
        typer.echo("\nall numbers: --json, or --out FILE; a picture: --plot FILE")
