"""`edgewise reproduce`: the paper's evaluation by one command."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.app import app
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
from edgewise.errors import unknown
from edgewise.files import write_text


@app.command(epilog="Example: edgewise reproduce paper --offline")
def reproduce(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="paper: the ACDC paper's Tables 2 and 3.")],
    tasks: Annotated[
        str | None, typer.Option(help="Some tasks, by commas, as in tracr-reverse,ioi. Default: all.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Some methods, by commas. Default: acdc,head-importance,subnetwork-probing.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave out what needs a model from the hub (as HF_HUB_OFFLINE=1 does).")
    ] = False,
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
    """Run the paper's sweeps of ACDC, HISP and SP and print its tables: published, ours, and why they differ."""
    from rich.console import Console

    from edgewise.reports.progress import sweep_progress
    from edgewise.reports.sweep_plots import curve_plots
    from edgewise.reports.tables import curve_rows, missing_by_reason, paper_rows, reproduction_markdown, terminal_table
    from edgewise.reports.terminal import duration
    from edgewise.runs import require_own
    from edgewise.runs.cluster import Cluster
    from edgewise.runs.paper import reproduce as run
    from edgewise.runs.published import METHODS_IN_PAPER

    if what != "paper":
        raise unknown("thing to reproduce", what, ("paper",))
    cluster = Cluster.asked(workers, ray, cpus, gpus)
    out = some_path(out, "--out").expanduser()
    require_own(out, "a reproduction", ("paper/*", "shipped/*"))
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    messages = Console(stderr=True, quiet=quiet)

    def began(number: int, of: int, name: str, left: float) -> None:
        words = f"row {number} of {of}: {name}, about {duration(max(1.0, left))} left"
        messages.print(words, highlight=False, markup=False, soft_wrap=True)

    with kept_if_stopped(out), sweep_progress(messages) as progress:
        found = run(
            out,
            tasks=None if tasks is None else names_in(tasks, "--tasks"),
            methods=METHODS_IN_PAPER if methods is None else names_in(methods, "--methods"),
            offline=offline,
            device=device,
            progress=progress,
            began=began,
            cluster=cluster,
        )
    out.mkdir(parents=True, exist_ok=True)
    # Summaries of a part do not take the place of those of everything.
    summary = out if tasks is None and methods is None else out / "part"
    summary.mkdir(exist_ok=True)
    write_text(summary / "tables.md", reproduction_markdown(found))
    write_text(summary / "areas.csv", found.cells_csv())
    write_text(summary / "curves.csv", found.curves_csv())
    curve_plots(found.curves, summary)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(found), "folder": str(summary)}))
        return
    console = stdout_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    ran = [cell for cell in found.cells if cell.ours is not None]
    if ran:
        rows, notes = paper_rows(ran)
        console.print(terminal_table("areas under ROC curves", rows, right=5))
        for number, note in enumerate(notes, 1):
            say(f"[{number}] {note}")
    if found.curves:
        console.print()
        console.print(terminal_table("where the true circuit is not known", curve_rows(found.curves), right=4))
    for why, names in missing_by_reason(found).items():
        say(f"\nnot run: {', '.join(names)}: {why}")
    say(f"\nwritten to {summary}: tables.md, areas.csv, curves.csv, plots")
