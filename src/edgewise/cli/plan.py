"""`edgewise plan`: what a discovery would cost."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import typer

from edgewise.cli import shape_plan
from edgewise.cli.app import app
from edgewise.cli.options import JsonOption, asks
from edgewise.cli.printing import headline, stdout_console
from edgewise.runs.request import Request

if TYPE_CHECKING:
    from rich.console import Console

    from edgewise.models import Decoder
    from edgewise.tasks import Task


@app.command(epilog="Example: edgewise plan prompts.jsonl --model gpt2 --threshold 0.02")
@asks(
    *("level", "ablation", "mean_over", "ablation_seed", "metric", "ports", "heads", "positions"),
    *("layer_order", "head_order", "absolute", "within", "budget", "max_memory"),
    threshold="The threshold to plan for. Default: the task's; without one, several sizes of circuit.",
)
def plan(
    asked: Request,
    shape: shape_plan.ShapeOption = None,
    tokens: shape_plan.TokensOption = None,
    kept: shape_plan.KeptOption = None,
    devices: shape_plan.DevicesOption = None,
    device_memory: shape_plan.DeviceMemoryOption = None,
    flops: shape_plan.FlopsOption = None,
    bandwidth: shape_plan.BandwidthOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a discovery would cost (edges, memory, time) from a short calibration, without running it.

    With --shape, of a model that is not here: worked out from its config.json alone.
    """
    for_shapes = {"tokens": tokens, "kept": kept, "devices": devices, "device_memory": device_memory}
    for_shapes |= {"flops": flops, "bandwidth": bandwidth}
    if shape_plan.plan_shape_of(asked, shape, for_shapes, as_json=as_json):
        return
    from edgewise.runs import plan_discovery
    from edgewise.runs.planning import require_plan

    require_plan(asked.search)
    spec = asked.check()
    loaded, prompts = asked.load()
    search = asked.search
    if search.threshold is None and spec is not None:
        search = dataclasses.replace(search, threshold=spec.threshold)
    planned = plan_discovery(loaded, prompts, request=search)
    if search.level == "node":
        _show_nodes(stdout_console(), planned, prompts, loaded, as_json=as_json)
        return
    if as_json:
        typer.echo(json.dumps(_plan_summary(planned, prompts, loaded)))
        return
    _show_plan(stdout_console(), planned, prompts, loaded)


_LEARNING = "learning what absent edges carry takes about {} before the search begins"


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
            "offloaded": memory.offloaded,
            "limit": memory.limit,
            "candidates": memory.candidates(1, 0, 0),
        },
        "seconds_to_learn": planned.learning,
        "seconds_per_candidate": dataclasses.asdict(planned.costs),
        "edges_into_logits": None if planned.first is None else {"all": planned.first[0], "kept": planned.first[1]},
        "estimates": [dataclasses.asdict(one) for one in planned.estimates],
    }


def _show_plan(console: Console, planned: Any, task: Task, model: Decoder) -> None:
    from edgewise.patching import size
    from edgewise.reports import plan_table
    from edgewise.reports.terminal import duration

    graph, memory = planned.graph, planned.memory

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(headline(task, model))
    say(
        f"{graph.n_edges:,} edges into {len(graph.inputs):,} inputs; edges into nodes that nothing reads are not tested"
    )
    elsewhere = f"{size(memory.offloaded)} more in the CPU's memory; " if memory.offloaded else ""
    say(
        f"memory beyond the model: {size(memory.recorded)} recorded, {size(memory.smallest)} to start with, at most "
        f"{size(memory.largest)} if every edge stays; "
        f"{elsewhere}{memory.candidates(1, 0, 0)} candidates at once"
    )
    if planned.learning is not None:
        say(_LEARNING.format(duration(planned.learning)))
    if planned.first is None:
        say("time, by how many of the nodes stay in the circuit:\n")
    else:
        every, kept = planned.first
        say(f"tried for a moment, {kept} of {every} edges into the logits stay; the whole search:\n")
    console.print(plan_table(planned))


def _show_nodes(console: Console, planned: Any, task: Task, model: Decoder, *, as_json: bool) -> None:
    """What a search by nodes would cost."""
    from edgewise.patching import size
    from edgewise.reports.terminal import duration

    nodes, memory = len(planned.graph.sources), planned.memory.smallest_for("nodes")
    if as_json:
        found = {"task": task.name, "model": model.name, "n_nodes": nodes, "tests": planned.tests}
        found |= {"seconds": planned.seconds, "seconds_to_learn": planned.learning, "memory": {"smallest": memory}}
        typer.echo(json.dumps(found))
        return
    lines = [
        headline(task, model),
        f"{planned.tests:,} of {nodes:,} nodes are tested, {planned.at_once:,} of a layer at once, at any threshold",
        f"memory beyond the model: {size(memory)} at the least",
        f"time of a pass: about {duration(max(1.0, planned.seconds))}",
    ]
    if planned.learning is not None:
        lines.append(_LEARNING.format(duration(planned.learning)))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
