"""`edgewise evaluate`: measure a circuit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import load, load_again, some_path
from edgewise.cli.options import (
    DeviceOption,
    JsonOption,
    RunAblationOption,
    RunDtypeOption,
    RunExamplesOption,
    RunMetricOption,
    RunModelOption,
)
from edgewise.cli.printing import headline, json_number, stdout_console
from edgewise.errors import EdgewiseError

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.models import Decoder
    from edgewise.tasks import Task


@app.command(epilog="Example: edgewise evaluate runs/ioi-acdc --split test")
def evaluate(
    circuit: Annotated[
        Path, typer.Argument(metavar="RUN_OR_CIRCUIT", help="A run folder, or a circuit file in EAP-IG's JSON form.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Task to measure on. Default: the run's own; needed for a circuit file.")
    ] = None,
    model: RunModelOption = None,
    ablation: RunAblationOption = None,
    metric: RunMetricOption = None,
    examples: RunExamplesOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the prompts. Default: the run's, or 0.")] = None,
    variant: Annotated[str | None, typer.Option(help="How the task's prompts are made. Default: the run's.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="validation: the prompts a search uses; test: others like them. Default: the run's."),
    ] = None,
    device: DeviceOption = None,
    dtype: RunDtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a circuit from scratch: its metrics beside the whole model's and the ablated run's."""
    from edgewise.evaluation import evaluate as measure
    from edgewise.graph import load_circuit
    from edgewise.runs import load_run
    from edgewise.tasks import METRICS

    finished = True
    if not circuit.is_dir():
        found, settings = load_circuit(some_path(circuit, "the circuit")), {}
        if task is None:
            raise EdgewiseError(f"{str(circuit)!r} is a circuit without a task: say which with --task")
        measured_split = split or "validation"
        loaded, prompts = load(task, model, examples, seed or 0, measured_split, variant or "default", device, dtype)
    else:
        record, found = load_run(circuit)
        settings, finished = record["settings"], record.get("finished", True)
        if metric is None and settings["metric"] not in METRICS:
            raise EdgewiseError(
                f"the run in {str(circuit)!r} used a metric of its own, {settings['metric']!r}; name one with --metric"
            )
        measured_split = split or settings["task"].get("split", "validation")
        loaded, prompts = load_again(
            circuit, settings, task, model, examples, seed, measured_split, variant, device, dtype
        )
    result = measure(
        loaded,
        prompts,
        found,
        ablation=ablation or settings.get("ablation"),
        metric=metric or settings.get("metric"),
    )
    if as_json:
        measured = {
            name: {key: json_number(value) for key, value in dataclasses.asdict(one).items()}
            | {"recovered": json_number(one.recovered)}
            for name, one in result.measured.items()
        }
        main = result.measured[result.metric]
        typer.echo(
            json.dumps(
                {
                    "task": prompts.name,
                    "model": loaded.name,
                    "n_edges": result.n_edges,
                    "n_edges_connected": result.n_edges_connected,
                    "n_graph_edges": result.n_graph_edges,
                    "metric_name": result.metric,
                    "metric": main.circuit,
                    "metric_full": main.full,
                    "metric_ablated": main.ablated,
                    "metrics": measured,
                    "known_circuit": None if result.known is None else dataclasses.asdict(result.known),
                    "ablation": result.ablation,
                    "split": measured_split,
                    "examples": len(prompts),
                    "finished": finished,
                }
            )
        )
        return
    if not finished:
        typer.echo("note: this run was interrupted; its circuit still holds every edge that it had not come to")
    _show_evaluation(stdout_console(), result, prompts, loaded, measured_split)


def _show_evaluation(console: Console, result: Any, task: Task, model: Decoder, split: str) -> None:
    from edgewise.reports import evaluation_table, known_table

    console.print(
        f"{result.n_edges:,} of {result.n_graph_edges:,} edges ({result.n_edges_connected:,} on a path from the "
        f"embedding to the logits), measured on {split} prompts",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"{headline(task, model)}\n", highlight=False, markup=False, soft_wrap=True)
    console.print(evaluation_table(result))
    if result.known is not None:
        console.print()
        console.print(known_table(result.known))
