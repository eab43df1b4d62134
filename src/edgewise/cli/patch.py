"""`edgewise patch`: heat maps of single parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import load, some_path
from edgewise.cli.options import (
    AblationOption,
    DeviceOption,
    DtypeOption,
    ExamplesOption,
    FoldOption,
    JsonOption,
    MetricOption,
    ModelOption,
    PermutedOption,
    SeedOption,
    SkipBadOption,
    TaskArgument,
    VariantOption,
)
from edgewise.cli.printing import headline, stdout_console
from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    pass


@app.command(epilog="Example: edgewise patch ioi --metric logit_diff")
def patch(
    task: TaskArgument,
    model: ModelOption = None,
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    skip_bad: SkipBadOption = False,
    seed: SeedOption = 0,
    variant: VariantOption = "default",
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    fold_value_biases: FoldOption = False,
    permuted: PermutedOption = None,
    out: Annotated[Path | None, typer.Option(help="Also write the tensors to this file, in safetensors form.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw the heat maps to this file: .svg, .pdf or .png.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Ablate every head, MLP and position by itself and show how much the metric rises: where to look first."""
    from rich.console import Console

    from edgewise.discovery import heat_maps
    from edgewise.patching import Experiment
    from edgewise.reports import heat_tables, step_progress
    from edgewise.reports.drawing import require_format
    from edgewise.runs import check_request
    from edgewise.runs.scores import save_heat_maps
    from edgewise.tasks import check_request as check_task

    check_task(task, examples, "validation", variant, seed, skip_bad)
    check_request(suggested=0.0, ablation=ablation, metric=metric)
    out = None if out is None else some_path(out, "--out").expanduser()
    plot = None if plot is None else some_path(plot, "--plot").expanduser()
    if plot is not None:
        require_format(plot)
    for wanted in (out, plot):
        if wanted is not None and wanted.exists():
            raise EdgewiseError(f"the file {str(wanted)!r} is there already; nothing is overwritten, so choose another")
    loaded, prompts = load(
        task,
        model,
        examples,
        seed,
        "validation",
        variant,
        device,
        dtype,
        fold_value_biases,
        permuted,
        ablation=ablation or "resample",
        skip_bad=skip_bad,
    )
    experiment = Experiment(loaded, prompts, ablation=ablation, metric=metric)
    with step_progress(Console(stderr=True, quiet=quiet), "patching") as progress:
        maps = heat_maps(experiment, progress=progress)
    if out is not None:
        save_heat_maps(out, maps)
    if plot is not None:
        from edgewise.reports.plots import heat_plot

        title = f"{prompts.name} in {loaded.name}, {experiment.ablation}-ablated"
        heat_plot(maps, metric=experiment.metric.name, title=title, path=plot)
    if as_json:
        found = {key: value.tolist() for key, value in vars(maps).items()}
        about = {"task": prompts.name, "model": loaded.name, "metric": experiment.metric.name}
        typer.echo(json.dumps({**about, "ablation": experiment.ablation, **found}))
        return
    console = stdout_console()
    console.print(f"{headline(prompts, loaded)}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"rise of {experiment.metric.name} when a part is {experiment.ablation}-ablated\n",
        highlight=False,
        soft_wrap=True,
    )
    for table in heat_tables(maps, prompts):
        console.print(table)
