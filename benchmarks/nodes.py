"""Circuits of whole nodes beside circuits of edges: sizes, KL divergence, processor time.

    python benchmarks/nodes.py
    python benchmarks/nodes.py --tasks ioi --model path/to/model --thresholds 0.03
    python benchmarks/nodes.py --shape "GPT-2 small"

The table of docs/methods.md; with `--shape`, what a search by nodes costs on a model of that shape, its weights random.
Everything is measured with KL divergence, by a circuit run of what was found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from shapes import Case, make_model, make_task

import edgewise as ew
from edgewise.discovery import Discovery, acdc, acdc_by_node
from edgewise.graph import as_shown
from edgewise.patching import Experiment

TASKS = ("ioi", "greater-than", "docstring")
THRESHOLDS = (0.01, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=TASKS, help="Built-in tasks, or files.")
    parser.add_argument("--model", help="Default: each task's own.")
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--thresholds", nargs="*", type=float, default=THRESHOLDS)
    parser.add_argument("--shape", help="A shape of benchmarks/shapes.py.")
    asked = parser.parse_args()
    print("| task | threshold | search | tests | nodes | edges | KL | CPU seconds |\n|---|---|---|---|---|---|---|---|")
    if asked.shape is not None:
        case = Case(asked.shape, rows=asked.examples, length=16)
        model = make_model(case)
        for row in searches(model, make_task(model, case), 0.01, nodes_only=True):
            print(f"| {asked.shape} | 0.01 | {' | '.join(row)} |", flush=True)
        return
    for name in asked.tasks:
        model = ew.load_model(asked.model or ew.TASKS[name].default_model("default"))
        task = ew.load_task(name, model, examples=asked.examples)
        for threshold in asked.thresholds:
            for row in searches(model, task, threshold):
                print(f"| {name} | {threshold:g} | {' | '.join(row)} |", flush=True)


def searches(
    model: ew.Decoder, task: ew.Task, threshold: float, *, nodes_only: bool = False
) -> Iterator[tuple[str, ...]]:
    """ACDC by edges, by nodes with either engine, and by edges among the nodes that the search by nodes kept."""
    whole = Experiment(model, task, metric="kl_div", ports=False)
    nodes = timed(acdc_by_node, whole, threshold)
    if not nodes_only:
        yield described("edges", whole, *timed(acdc, whole, threshold))
    yield described("nodes", whole, *nodes)
    yield described("nodes, one circuit run each", whole, *timed(acdc_by_node, whole, threshold, engine="plain"))
    if not nodes_only:
        found, seconds = timed(acdc, whole, threshold, start=as_shown(nodes[0].circuit))
        yield described("nodes, then edges among them", whole, found, nodes[1] + seconds)


def timed(search: Callable[..., Discovery], *given: Any, **options: Any) -> tuple[Discovery, float]:
    """What a search finds, and the processor time that it takes."""
    began = time.process_time()
    found = search(*given, **options)
    return found, time.process_time() - began


def described(name: str, experiment: Experiment, found: Discovery, seconds: float) -> tuple[str, ...]:
    circuit, shown = found.circuit, as_shown(found.circuit)
    size = len(circuit.nodes()) - bool(circuit)  # without the logits
    value = f"{experiment.value(circuit):.4f}"
    return name, f"{found.tests:,}", f"{size:,}", f"{shown.n_edges:,}", value, f"{seconds:.1f}"


if __name__ == "__main__":
    main()
