"""`edgewise plan`: what a discovery would cost."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli.app import app
from edgewise.cli.loading import load
from edgewise.cli.options import (
    AblationOption,
    AbsoluteOption,
    DeviceOption,
    DtypeOption,
    ExamplesOption,
    FoldOption,
    HeadOrderOption,
    JsonOption,
    LayerOrderOption,
    MemoryOption,
    MetricOption,
    ModelOption,
    PermutedOption,
    PortsOption,
    SeedOption,
    SkipBadOption,
    TaskArgument,
    VariantOption,
)
from edgewise.cli.printing import headline, stdout_console

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.models import Decoder
    from edgewise.tasks import Task


@app.command(epilog="Example: edgewise plan prompts.jsonl --model gpt2 --threshold 0.02")
def plan(
    task: TaskArgument,
    model: ModelOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="The threshold to plan for. Default: the task's; without one, several sizes of circuit."),
    ] = None,
    ablation: AblationOption = None,
    metric: MetricOption = None,
    examples: ExamplesOption = None,
    skip_bad: SkipBadOption = False,
    seed: SeedOption = 0,
    variant: VariantOption = "default",
    ports: PortsOption = True,
    layer_order: LayerOrderOption = "normal",
    head_order: HeadOrderOption = "normal",
    absolute: AbsoluteOption = False,
    max_memory: MemoryOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    fold_value_biases: FoldOption = False,
    permuted: PermutedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a discovery would cost (edges, memory, time) from a short calibration, without running it."""
    from edgewise.patching import parse_size
    from edgewise.runs import check_request, plan_discovery
    from edgewise.tasks import check_request as check_task

    spec = check_task(task, examples, "validation", variant, seed, skip_bad)
    check_request(
        threshold=threshold,
        suggested=0.0,  # a plan needs no threshold
        ablation=ablation,
        metric=metric,
        layer_order=layer_order,
        head_order=head_order,
        seed=seed,
    )
    limit = None if max_memory is None else parse_size(max_memory)
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
    planned = plan_discovery(
        loaded,
        prompts,
        threshold=threshold if threshold is not None or spec is None else spec.threshold,
        ablation=ablation,
        metric=metric,
        ports=ports,
        layer_order=layer_order,  # type: ignore[arg-type] - checked where it is used
        head_order=head_order,  # type: ignore[arg-type]
        seed=seed,
        absolute=absolute,
        max_memory=limit,
    )
    if as_json:
        typer.echo(json.dumps(_plan_summary(planned, prompts, loaded)))
        return
    _show_plan(stdout_console(), planned, prompts, loaded)


def _plan_summary(planned: Any, task: Task, model: Decoder) -> dict[str, Any]:
    memory = planned.memory
    return {
        "task": task.name,
        "model": model.name,
        "n_edges": planned.graph.n_edges,
        "n_inputs": len(planned.graph.inputs),
        "memory": {
            "recorded": memory.recorded,
            "smallest": memory.smallest,
            "largest": memory.largest,
            "limit": memory.limit,
            "candidates": memory.candidates(1, 0, 0),
        },
        "seconds_per_candidate": dataclasses.asdict(planned.costs),
        "edges_into_logits": None if planned.first is None else {"all": planned.first[0], "kept": planned.first[1]},
        "estimates": [dataclasses.asdict(one) for one in planned.estimates],
    }


def _show_plan(console: Console, planned: Any, task: Task, model: Decoder) -> None:
    from edgewise.patching import size
    from edgewise.reports import plan_table

    graph, memory = planned.graph, planned.memory

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(headline(task, model))
    say(
        f"{graph.n_edges:,} edges into {len(graph.inputs):,} inputs; edges into nodes that nothing reads are not tested"
    )
    say(
        f"memory beyond the model: {size(memory.recorded)} recorded, {size(memory.smallest)} to start with, at most "
        f"{size(memory.largest)} if every edge stays; "
        f"{memory.candidates(1, 0, 0)} candidates at once"
    )
    if planned.first is None:
        say("time, by how many of the nodes stay in the circuit:\n")
    else:
        every, kept = planned.first
        say(f"tried for a moment, {kept} of {every} edges into the logits stay; the whole search, from there:\n")
    console.print(plan_table(planned))
