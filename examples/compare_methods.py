"""How much of a behaviour the circuits of several methods keep, size by size, as a table and a plot.

python examples/compare_methods.py
python examples/compare_methods.py --model gpt2 --task greater-than --sizes 100 400 1600
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgewise as ew
from edgewise.reports import size_plot
from edgewise.runs.sweep import SweepPlan

METHODS = ("exact", "eap", "eap-ig", "random")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", help="a built-in model, a hub id, a folder; by default the task's own")
    options.add_argument("--task", default="greater-than")
    options.add_argument("--sizes", type=int, nargs="+", default=[5, 10, 20, 40, 80])
    options.add_argument("--methods", nargs="+", default=list(METHODS), help="`exact` takes long on a large model")
    options.add_argument("--plot", type=Path, default=Path("methods.svg"))
    asked = options.parse_args()

    model = ew.load_model(asked.model or ew.TASKS[asked.task].model)
    task = ew.load_task(asked.task, model)
    experiment = ew.Experiment(model, task)
    sizes = tuple(float(size) for size in asked.sizes)
    every = ew.sweep(experiment, [SweepPlan(method, sizes) for method in asked.methods])

    name = experiment.metric.name
    full, ablated = every[0].baseline[name]
    print(f"{task}; {name}: the model {full:.3f}, everything ablated {ablated:.3f}")
    for series in every:
        for point in series.points:
            recovered = (point.metrics[name] - ablated) / (full - ablated)
            print(f"  {series.method:20} {point.circuit.n_edges:5} edges {recovered:8.1%} recovered")

    curves = {one.method: [(point.circuit.n_edges, point.metrics[name]) for point in one.points] for one in every}
    size_plot(curves, metric=name, ablated=ablated, path=asked.plot)
    print(f"plotted in {asked.plot}")


if __name__ == "__main__":
    main()
