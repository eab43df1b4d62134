"""`edgewise patch --path`: what flows along single paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgewise.cli.printing import headline, json_number, stdout_console
from edgewise.files import write_text

if TYPE_CHECKING:
    from edgewise.patching import Experiment


def show_paths(
    experiment: Experiment, paths: Sequence[str], *, restore: bool, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """Patch the paths, print them, and write them to `out`, a .json file."""
    from rich.console import Console

    from edgewise.evaluation import patch_paths
    from edgewise.reports import path_headline, path_table, section_progress

    with section_progress(Console(stderr=True, quiet=quiet)) as progress:
        effects = patch_paths(
            experiment, *paths, restore=restore, progress=lambda done, of: progress("patching", done, of)
        )
    metric, task, model = experiment.metric.name, experiment.task, experiment.decoder
    found = {
        "task": task.name,
        "model": model.name,
        "metric": metric,
        "ablation": experiment.ablation,
        "restored": restore,
        "before": effects[0].before,
        "other_end": effects[0].other,
        "paths": [
            {"paths": list(one.paths), "after": one.after, "effect": one.effect, "share": json_number(one.share)}
            for one in effects
        ],
    }
    if out is not None:
        write_text(out, json.dumps(found) + "\n")
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = stdout_console()
    said = (headline(task, model), f"{path_headline(effects, metric, experiment.ablation)}\n")
    for line in said:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(path_table(effects, metric))
