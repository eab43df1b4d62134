"""Make the pictures of docs/pictures: circuits of 10 to 1,041 edges, and the plots.

    python scripts/pictures.py [--stories FOLDER]

All come from real runs on the models that edgewise brings, and from the circuits that people worked out by hand,
but for the one of 443 edges: it needs a folder with the Llama-style model stories260k and `gender_pronoun.jsonl`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import edgewise as ew
from edgewise.discovery import Progress, heat_maps
from edgewise.evaluation.answers import first_tokens
from edgewise.evaluation.roc import roc_points
from edgewise.graph.groups import Groups
from edgewise.reports import head_plot, heat_plot, roc_plot, size_plot, threshold_plot
from edgewise.reports.growth import growth
from edgewise.tasks.known import GREATER_THAN, IOI, KnownCircuit, known_circuit

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=Path, help="the folder of stories260k and gender_pronoun.jsonl")
    options = parser.parse_args(arguments)
    PICTURES.mkdir(exist_ok=True)
    found("tracr-xproportion", "circuit-10.svg", threshold=0.01)
    found("ioi", "circuit-31.svg", threshold=0.01)
    found("ioi", "circuit-68.svg", edges=68)
    found("ioi", "groups-31.svg", HALVES, threshold=0.01)
    found("induction", "spans-9.svg", variant="once", threshold=0.01, positions="spans")
    found("ioi", "spans-36.svg", threshold=0.01, positions="spans")
    found("tracr-reverse", "spans-45.svg", positions="each")
    known("greater-than", GREATER_THAN, "circuit-262.svg")
    known("ioi", IOI, "circuit-1041.svg")
    mlps = {"MLPs": tuple(f"m{layer}" for layer in range(12))}
    known("ioi", IOI, "groups-ioi.svg", {**IOI.groups, **mlps})
    plots()
    live_view()
    if options.stories is not None:
        model = ew.load_model(str(options.stories))
        task = ew.load_task(str(options.stories / "gender_pronoun.jsonl"), model)
        run = ew.discover(model, task, method="edge-attribution-ig", edges=443)
        run.circuit.draw(
            PICTURES / "circuit-443.svg",
            title="he or she? in stories260k",
            subtitle=f"edge-attribution-ig; {run.circuit.n_edges} of {run.circuit.graph.n_edges:,} edges; "
            f"kl_div {run.metric:.4g}",
            effect="score by edge-attribution-ig",
        )


HALVES = {"early heads": ["a0.h0", "a0.h1", "a0.h2", "a0.h3"], "late heads": ["a3.h0", "a3.h1", "a3.h2", "a3.h3"]}
"""Groups of tiny-ioi's heads."""


def found(
    task: str,
    name: str,
    collapse: dict[str, list[str]] | None = None,
    *,
    variant: str = "default",
    **options: float | str,
) -> None:
    """A circuit found with ACDC on the task's own model; with groups to collapse, one box for each."""
    model = ew.load_model(task if task.startswith("tracr") else f"tiny-{task}")
    prompts = ew.load_task(task, model, variant=variant)
    run = ew.discover(model, prompts, **options)  # type: ignore[arg-type]
    settings = run.record["settings"]
    true = known_circuit(task, model)
    run.circuit.draw(
        PICTURES / name,
        title=f"{task} in {model.name}",
        subtitle=f"acdc at threshold {settings['threshold']:.4g}; {run.circuit.n_edges} of "
        f"{run.circuit.graph.n_edges:,} edges; {settings['metric']} {run.metric:.4g}",
        groups=collapse or (None if true is None else true.groups),
        collapse=collapse is not None,
        effect=f"rise of {settings['metric']} without it",
    )


def known(task: str, circuit: KnownCircuit, name: str, collapse: Groups | None = None) -> None:
    """A circuit that people worked out by hand; with groups to collapse, one box for each."""
    circuit.circuit.draw(
        PICTURES / name,
        title=f"the known circuit of {task} in GPT-2 small",
        subtitle=f"after {circuit.source}; {circuit.n_edges:,} of {circuit.graph.n_edges:,} edges",
        groups=collapse or circuit.groups,
        collapse=collapse is not None,
    )


def plots() -> None:
    """Every kind of plot, from real runs."""
    model = ew.load_model("tiny-ioi")
    task = ew.load_task("ioi", model)
    head_plot(
        ew.head_parts(ew.Experiment(model, task), "a3.h1"),
        tokens=first_tokens(model, task),
        title="a3.h1 of tiny-ioi on ioi",
        path=PICTURES / "head.svg",
    )
    heat_plot(
        heat_maps(ew.Experiment(model, task, metric="logit_diff")),
        metric="logit_diff",
        title="ioi in tiny-ioi, resample-ablated",
        path=PICTURES / "heat.svg",
    )
    runs = [ew.discover(model, task, threshold=one) for one in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)]
    sizes, metrics = [run.circuit.n_edges for run in runs], [run.metric for run in runs]
    ablated = runs[0].record["result"]["metric_ablated"]
    threshold_plot(
        [run.record["settings"]["threshold"] for run in runs],
        sizes,
        metrics,
        metric="kl_div",
        title="ioi in tiny-ioi, ACDC",
        path=PICTURES / "thresholds.svg",
    )
    others = [ew.discover(model, task, method="exact", edges=size) for size in sizes]
    curves = {
        "ACDC": list(zip(sizes, metrics, strict=True)),
        "every edge alone": [(run.circuit.n_edges, run.metric) for run in others],
    }
    size_plot(curves, metric="kl_div", ablated=ablated, log=True, title="ioi in tiny-ioi", path=PICTURES / "sizes.svg")
    model = ew.load_model("tracr-reverse")
    task = ew.load_task("tracr-reverse", model)
    assert task.known_circuit is not None
    rates = {}
    for method in ("acdc", "edge-attribution"):
        circuits = [ew.discover(model, task, method=method, edges=size).circuit for size in (5, 10, 15, 20, 40)]
        points = roc_points(circuits, task.known_circuit.circuit)
        rates[method] = [(point.false_positive_rate, point.true_positive_rate) for point in points]
    roc_plot(rates, title="tracr-reverse", path=PICTURES / "roc.svg")


def live_view() -> None:
    """What a terminal shows two thirds through a search."""
    model = ew.load_model("tiny-ioi")
    steps: list[Progress] = []
    ew.discover(model, ew.load_task("ioi", model), threshold=0.01, progress=steps.append)
    step = next(step for step in steps if step.decided > 0.66 * step.edges)
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    how_far = f"{step.decided:,} of {step.edges:,} edges decided, {step.kept:,} kept"
    console.print(f"acdc: {how_far}, metric {step.metric:.4f}, at {step.at}", highlight=False, markup=False)
    console.print(growth(step.layers, console))
    console.save_svg(str(PICTURES / "live.svg"), title="edgewise discover ioi", unique_id="live")


if __name__ == "__main__":
    main()
