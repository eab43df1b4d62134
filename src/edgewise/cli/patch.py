"""`edgewise patch`: heat maps of single parts; paths; what a head is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import some_path
from edgewise.cli.options import JsonOption, asks
from edgewise.cli.patch_heads import show_head
from edgewise.cli.patch_paths import show_paths
from edgewise.cli.printing import headline, stdout_console
from edgewise.errors import EdgewiseError
from edgewise.runs.request import Request


@app.command(epilog="Example: edgewise patch ioi --metric logit_diff")
@asks("ablation", "mean_over", "ablation_seed", "metric")
def patch(
    asked: Request,
    path: Annotated[
        list[str] | None,
        typer.Option(
            help="Ablate only what flows along a path: 'a0.h1->a3.h1<q>', and on from there as the model does, or "
            "'a0.h1->a3.h1<q>->logits', and nothing else. May be given several times.",
            show_default=False,
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="With --path: restore the path in the run on the corrupted prompts.")
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(help="Which senders a head's scores and its output are made of, as in a3.h1.", show_default=False),
    ] = None,
    query: Annotated[
        int | None,
        typer.Option(help="With --head: the position whose scores it is. Default: those scored.", show_default=False),
    ] = None,
    key: Annotated[
        int | None,
        typer.Option(help="With --head: the key's position. Default: that most attended to.", show_default=False),
    ] = None,
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
    """Ablate every head, MLP and position by itself and show how much worse the metric gets: where to look first.

    With --path only what flows along a path; with --head what one head's scores and output are made of.
    """
    from rich.console import Console
    from rich.text import Text

    from edgewise.discovery import gradient_maps, heat_maps, seconds_to_patch
    from edgewise.evaluation.answers import first_tokens
    from edgewise.files import write_text
    from edgewise.patching import Experiment
    from edgewise.reports import heat_tables, section_progress
    from edgewise.reports.drawing import require_format
    from edgewise.reports.terminal import duration
    from edgewise.reports.words import worse
    from edgewise.runs.scores import save_heat_maps

    asked.check()
    _check_together(path, head, restore, query, key, exact, out, plot)
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
    if path:
        show_paths(experiment, path, restore=restore, out=out, as_json=as_json, quiet=quiet)
        return
    if head is not None:
        show_head(experiment, head, query=query, key=key, out=out, plot=plot, as_json=as_json)
        return
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
    tokens = first_tokens(loaded, prompts)
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


def _check_together(
    path: list[str] | None,
    head: str | None,
    restore: bool,
    query: int | None,
    key: int | None,
    exact: bool | None,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Raise an EdgewiseError for options that do not go together, or names that are none."""
    from edgewise.graph.names import parse_node, parse_path

    if path and head is not None:
        raise EdgewiseError("--path and --head are two questions; ask one")
    if restore and not path:
        raise EdgewiseError("--restore says how --path patches, and no path is given")
    for name, position in (("query", query), ("key", key)):
        if position is not None and head is None:
            raise EdgewiseError(f"--{name} is a position for --head, and no head is given")
    if exact is not None and (path or head is not None):
        raise EdgewiseError(f"--exact and --gradient are for heat maps, not for --{'path' if path else 'head'}")
    if path and plot is not None:
        raise EdgewiseError("--plot draws maps, and paths are a table; leave it out")
    if path and out is not None and out.suffix != ".json":
        raise EdgewiseError(f"a table of paths is written as JSON, so --out should end in .json, not {str(out)!r}")
    for one in path or ():
        parse_path(one)
    if head is not None:
        parse_node(head)
