"""`edgewise clusters`: how many circuits hide in a task."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from edgewise.cli.app import app
from edgewise.cli.options import JsonOption, asks
from edgewise.cli.printing import headline, stdout_console
from edgewise.runs.request import Request


@app.command(epilog="Example: edgewise clusters ioi --examples 32")
@asks("ablation", "mean_over", "ablation_seed", "metric")
def clusters(
    asked: Request,
    edges: Annotated[int, typer.Option(help="Edges of each group's circuit.")] = 30,
    most: Annotated[int, typer.Option(help="Groups at most.")] = 6,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Group a task's prompts by which edges matter on each: how many circuits hide in it."""
    from rich.console import Console

    from edgewise.evaluation.clusters import LEVEL
    from edgewise.evaluation.clusters import clusters as group
    from edgewise.patching import Experiment
    from edgewise.reports import section_progress
    from edgewise.reports.tables import terminal_table
    from edgewise.reports.words import visible

    asked.check()
    loaded, task = asked.load()
    ablation = asked.search.ablating(loaded, task)
    experiment = Experiment(loaded, task, ablation=ablation, metric=asked.search.metric, ports=False)
    with section_progress(Console(stderr=True, quiet=quiet)) as progress:
        found = group(
            experiment,
            edges=edges,
            most=most,
            seed=asked.search.seed,
            progress=lambda done, of: progress("scoring prompts", done, of),
        )
    sizes = [int((found.labels == label).sum()) for label in range(found.count)]
    if as_json:
        groups = [
            {
                "prompts": (found.labels == label).nonzero()[0].tolist(),
                "edges": circuit.names(),
                "overlaps": found.overlaps[label].tolist(),
            }
            for label, circuit in enumerate(found.circuits)
        ]
        about = {"task": task.name, "model": loaded.name, "metric": experiment.metric.name}
        numbers = {"groups": groups, "silhouettes": found.silhouettes, "p_value": found.p_value}
        typer.echo(json.dumps({**about, **numbers}))
        return
    console = stdout_console()
    console.print(f"{headline(task, loaded)}\n", highlight=False, markup=False, soft_wrap=True)
    best = max(found.silhouettes, key=lambda number: found.silhouettes[number])
    console.print(
        f"{'one circuit' if found.count == 1 else f'{found.count} groups of prompts with circuits of their own'}: the "
        f"best grouping, into {best}, has a silhouette of {found.silhouettes[best]:.2f}; of scores shuffled over "
        f"prompts p = {found.p_value:.3f} are grouped as well ({LEVEL:g} or less is asked for)\n",
        highlight=False,
        soft_wrap=True,
    )
    rows = []
    for label, size in enumerate(sizes):
        first = int((found.labels == label).nonzero()[0][0])
        shared = ", ".join(f"{one:.2f}" for one in found.overlaps[label])
        rows.append([str(label + 1), str(size), shared, visible(task.text[first].clean)])
    heading = ["group", "prompts", "edges shared with each", "first prompt"]
    console.print(terminal_table(f"groups, by the {edges} strongest edges of each", (heading, rows)))
