"""`edgewise patch`: heat maps of single parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption, asks
from edgewise.cli.printing import headline, stdout_console
from edgewise.errors import EdgewiseError
from edgewise.runs.request import Request


@app.command(epilog="Example: edgewise patch ioi --metric logit_diff")
@asks("ablation", "mean_over", "ablation_seed", "metric")
def patch(
    asked: Request,
    exact: Annotated[
        bool | None,
        typer.Option(
            "--exact/--gradient",
            help="Patch every part, or estimate all by gradients. Default: patch, unless that takes over a minute.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write all numbers to this file: .json, or else tensors (safetensors).")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw the heat maps to this file: .svg, .pdf or .png.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Ablate every head, MLP and position by itself and show how much worse the metric gets: where to look first."""
    from rich.console import Console
    from rich.text import Text

    from edgewise.discovery import gradient_maps, heat_maps, seconds_to_patch
    from edgewise.evaluation.answers import token_text
    from edgewise.files import write_text
    from edgewise.patching import Experiment
    from edgewise.reports import heat_tables, section_progress
    from edgewise.reports.drawing import require_format
    from edgewise.reports.terminal import duration
    from edgewise.reports.words import worse
    from edgewise.runs.scores import save_heat_maps

    asked.check()
    out = None if out is None else some_path(out, "--out").expanduser()
    plot = None if plot is None else some_path(plot, "--plot").expanduser()
    if plot is not None:
        require_format(plot)
    if out is not None and plot is not None and out.resolve() == plot.resolve():
        raise EdgewiseError(f"--out and --plot name one file, {str(out)!r}: give each its own")
    for wanted in (out, plot):
        if wanted is not None and wanted.exists():
            raise EdgewiseError(f"the file {str(wanted)!r} is there already; nothing is overwritten, so choose another")
    loaded, prompts = asked.load()
    ablation = asked.search.ablating(loaded, prompts)
    experiment = Experiment(loaded, prompts, ablation=ablation, metric=asked.search.metric)
    seconds = seconds_to_patch(experiment) if exact is None else 0.0
    by_gradients = seconds > PATIENCE if exact is None else not exact
    with section_progress(Console(stderr=True, quiet=quiet)) as progress:
        what = "attributing" if by_gradients else "patching"
        maps = (gradient_maps if by_gradients else heat_maps)(
            experiment, progress=lambda done, of: progress(what, done, of)
        )
    about = {"task": prompts.name, "model": loaded.name, "metric": experiment.metric.name}
    about |= {"ablation": experiment.ablation, "by": "gradients" if by_gradients else "patching"}
    found = {**about, **{key: value.tolist() for key, value in vars(maps).items()}}
    if out is not None and out.suffix == ".json":
        write_text(out, json.dumps(found) + "\n")
    elif out is not None:
        save_heat_maps(out, maps)
    tokens = [token_text(loaded, token) for token in prompts.prompts.clean[0][prompts.prompts.mask[0]].tolist()]
    tokens = tokens if loaded.tokenizer is not None else []
    if plot is not None:
        from edgewise.reports.plots import heat_plot

        title = f"{prompts.name} in {loaded.name}, {experiment.ablation}-ablated"
        heat_plot(maps, metric=experiment.metric.name, title=title, path=plot)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = stdout_console()
    console.print(f"{headline(prompts, loaded)}", highlight=False, markup=False, soft_wrap=True)
    how = ""
    if by_gradients:
        longer = f", since patching each would take about {duration(seconds)} (--exact does)" if seconds else ""
        how = f", estimated by gradients{longer}"
    console.print(
        f"{worse(experiment.metric.name)} when a part is {experiment.ablation}-ablated{how}\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for table in heat_tables(maps, prompts, tokens):
        console.print(table, soft_wrap=isinstance(table, Text))
    if out is None:
        typer.echo("\nall numbers: --json, or --out FILE; a picture: --plot FILE")


PATIENCE = 60.0
"""Seconds that patching may take before gradients are the default."""
