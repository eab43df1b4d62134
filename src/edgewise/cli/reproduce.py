"""`edgewise reproduce`: the paper's evaluation by one command."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.completion import MODELS, names
from edgewise.cli.loading import some_path
from edgewise.cli.options import (
    CpusOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    ManyWorkersOption,
    RayOption,
    names_in,
)
from edgewise.cli.printing import kept_if_stopped, stdout_console
from edgewise.errors import EdgewiseError, unknown
from edgewise.files import write_text


@app.command(epilog="Example: edgewise reproduce paper --offline")
def reproduce(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="paper: the ACDC paper's tables and figures.")],
    tasks: Annotated[
        str | None, typer.Option(help="Some tasks, by commas, as in tracr-reverse,ioi. Default: all.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Some methods for sweeps, by commas. Default: acdc,head-importance,subnetwork-probing; with --model, "
            "acdc,head-importance,edge-attribution,edge-attribution-ig,clean-corrupted."
        ),
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(
            help="Some tables and figures, by commas: tables-2-3, fig-1, fig-4, fig-5, fig-6, fig-15, fig-16, table-4, "
            "points, appendix-i, appendix-m, reset, references, own-models. Default: all."
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Leave out what needs a model that is not here (as HF_HUB_OFFLINE=1 does)."),
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="Folders of the paper's models, as in gpt2=DIR,attn-only-4l=DIR. Default: from the hub."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Instead of the paper: sweep the tasks on this model, with few circuits.",
            autocompletion=names(MODELS),
        ),
    ] = None,
    examples: Annotated[int | None, typer.Option(help="Prompt pairs for that model. Default: 8.")] = None,
    device: DeviceOption = None,
    out: Annotated[Path, typer.Option(help="Folder that keeps every circuit; what is there is not done again.")] = Path(
        "runs/paper"
    ),
    workers: ManyWorkersOption = None,
    ray: RayOption = None,
    cpus: CpusOption = 1.0,
    gpus: GpusOption = 0.0,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run the paper's sweeps and circuits and print its tables: published, ours, and why they differ."""
    from rich.console import Console

    from edgewise.reports.progress import sweep_progress
    from edgewise.reports.sweep_plots import curve_plots
    from edgewise.reports.tables import reproduction_markdown, reproduction_tables, terminal_table
    from edgewise.reports.terminal import duration
    from edgewise.runs import require_own
    from edgewise.runs.cluster import Cluster
    from edgewise.runs.paper import reproduce as run

    if what != "paper":
        raise unknown("thing to reproduce", what, ("paper",))
    if model is None and examples is not None:
        raise EdgewiseError("--examples is for a model of your own (--model); the paper's rows say how many they take")
    if model is not None and (figures is not None or weights is not None):
        raise EdgewiseError("--figures and --weights are about the paper's rows, and --model asks for another model's")
    given = None if weights is None else folders_in(weights)
    cluster = Cluster.asked(workers, ray, cpus, gpus)
    out = some_path(out, "--out").expanduser()
    require_own(out, "a reproduction", ("paper/*", "shipped/*", "circuits/*", "model/*"))
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    messages = Console(stderr=True, quiet=quiet)

    def began(number: int, of: int, name: str, left: float) -> None:
        words = f"row {number} of {of}: {name}, about {duration(max(1.0, left))} left"
        messages.print(words, highlight=False, markup=False, soft_wrap=True)

    with kept_if_stopped(out), sweep_progress(messages) as progress:
        found = run(
            out,
            tasks=None if tasks is None else names_in(tasks, "--tasks"),
            methods=None if methods is None else names_in(methods, "--methods"),
            figures=None if figures is None else names_in(figures, "--figures"),
            offline=offline,
            weights=given,
            model=model,
            examples=examples,
            device=device,
            progress=progress,
            began=began,
            cluster=cluster,
        )
    out.mkdir(parents=True, exist_ok=True)
    # Summaries of a part do not take the place of those of everything.
    part = (tasks, methods, figures) != (None, None, None)
    summary = out / ("part" if part else ".") if model is None else out / Path(model).name
    summary.mkdir(exist_ok=True)
    write_text(summary / "tables.md", reproduction_markdown(found))
    write_text(summary / "areas.csv", found.cells_csv())
    write_text(summary / "curves.csv", found.curves_csv())
    write_text(summary / "circuits.csv", found.findings_csv())
    curve_plots(found.curves, summary)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(found), "folder": str(summary)}))
        return
    console = stdout_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for one in reproduction_tables(found):
        console.print(terminal_table(one.title, one.rows, right=one.right))
        for note in one.notes:
            say(note)
        console.print()
    for name, why in found.missing:
        say(f"not run: {name}: {why}")
    say(f"\nwritten to {summary}: tables.md, areas.csv, curves.csv, circuits.csv, plots")


def folders_in(text: str) -> dict[str, str]:
    """The folder of each model in `gpt2=DIR,attn-only-4l=DIR`.

    Raises:
        EdgewiseError: something else, a model that the paper has not, or a folder that is not there.
    """
    from edgewise.runs.paper_rows import ROWS

    known = list(dict.fromkeys(row.model for row in ROWS if not row.offline))
    found = {}
    for one in names_in(text, "--weights"):
        name, equals, folder = one.partition("=")
        if not equals or not folder:
            raise EdgewiseError(f"--weights takes models and folders, as in gpt2=DIR, not {one!r}")
        if name not in known:
            raise unknown("model of the paper", name, known)
        if not Path(folder).expanduser().is_dir():
            raise EdgewiseError(f"the weights of {name}: there is no folder {folder!r}")
        found[name] = str(Path(folder).expanduser())
    return found
