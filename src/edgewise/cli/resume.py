"""`edgewise resume`: go on with a search that was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli import completion
from edgewise.cli.app import app
from edgewise.cli.discover import keep, show
from edgewise.cli.early import waiting
from edgewise.cli.loading import some_path
from edgewise.cli.options import (
    CpusOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    RayOption,
    ShardOption,
    WorkersOption,
)
from edgewise.cli.printing import headline

if TYPE_CHECKING:
    from edgewise.runs import Run


@app.command(epilog="Example: edgewise resume runs/ioi-acdc")
def resume(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The run folder of a search that was stopped or killed.",
            autocompletion=completion.runs,
        ),
    ],
    device: DeviceOption = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory to use beyond the model's weights, as in 3GB. Default: as it was.")
    ] = None,
    workers: WorkersOption = None,
    ray: RayOption = None,
    cpus: CpusOption = 1.0,
    gpus: GpusOption = 0.0,
    shard: ShardOption = "candidates",
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Go on with a search of ACDC that was stopped or killed; it ends as if it had never been."""
    waiting(f"loading the model of {run}", quiet=quiet)
    from rich.console import Console

    from edgewise.patching import parse_size
    from edgewise.reports import search_progress
    from edgewise.runs import load_run, read_record
    from edgewise.runs.resuming import Resumable

    folder = some_path(run, "the run").expanduser()
    messages = Console(stderr=True, quiet=quiet)
    if read_record(folder).get("finished", True):
        messages.print(f"the search in {folder} has ended already", highlight=False, markup=False, soft_wrap=True)
        show(load_run(folder), folder, as_json=as_json)
        return
    limit = None if max_memory is None else parse_size(max_memory)
    shared_out: dict[str, Any] = {"workers": workers, "ray": ray, "cpus": cpus, "gpus": gpus, "shard": shard}
    with Resumable(folder, max_memory=limit, **shared_out) as stopped, stopped.folder:
        model, task = stopped.load(device)
        metric = str(stopped.request.metric or task.metric)

        def search() -> Run:
            with search_progress(messages, stopped.request.method, headline(task, model), metric) as progress:
                return stopped.search(model, task, progress)

        found, written = keep(stopped.folder, search, None, messages)
    show(found, written, as_json=as_json)
