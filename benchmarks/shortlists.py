"""Searches inside a shortlist, and with a bound on the metric as a whole, beside the paper's search.

    python benchmarks/shortlists.py
    python benchmarks/shortlists.py --tasks ioi --model path/to/model

The tables of docs/methods.md. Everything is measured with KL divergence, by a circuit run of what was found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import edgewise as ew
from edgewise.discovery import METHODS, acdc, acdc_sweep, at_most
from edgewise.graph import Circuit
from edgewise.patching import Experiment
from edgewise.runs.shortlist import SCORED_BY, shortlist_of
from edgewise.runs.sweep import grid

TASKS = ("ioi", "greater-than", "docstring")
THRESHOLD = 0.01
SHARES = (0.1, 0.25, 0.5)
"""Of the graph's edges, in a shortlist."""
THRESHOLDS = grid(-3, -0.75, 10)
LEVELS = (0.01, 0.03, 0.1, 0.3)
"""KL divergences, as budgets and to compare sizes at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=TASKS, help="Built-in tasks, or files.")
    parser.add_argument("--model", help="Default: each task's own.")
    parser.add_argument("--examples", type=int, help="Default: each task's own.")
    asked = parser.parse_args()
    experiments = [experiment(name, asked.model, asked.examples) for name in asked.tasks]
    print("| task | search | edges tested | edges | KL | seconds |\n|---|---|---|---|---|---|")
    for one in experiments:
        for row in shortlists(one):
            print(f"| {' | '.join(row)} |", flush=True)
    print("\n| task | KL at most | ACDC | and passes | budget | and passes | within a half | EAP-IG |")
    print("|---|---|---|---|---|---|---|---|")
    for one in experiments:
        for row in sizes(one):
            print(f"| {' | '.join(row)} |", flush=True)


def experiment(name: str, model: str | None, examples: int | None) -> Experiment:
    loaded = ew.load_model(model or ew.TASKS[name].default_model("default"))
    return Experiment(loaded, ew.load_task(name, loaded, examples=examples), metric="kl_div")


def shortlists(one: Experiment) -> Iterator[tuple[str, ...]]:
    """The whole search, and those inside shortlists of several sizes."""
    for share in (None, *SHARES):
        began, within = time.perf_counter(), None
        if share is not None:
            within = shortlist_of(max(1, round(share * one.graph.n_edges)), one)
        found = acdc(one, THRESHOLD, start=within)
        seconds = time.perf_counter() - began
        name = "of everything" if within is None else f"within {within.n_edges} (KL {found.metric_start:.4f})"
        size = str(found.circuit.n_edges)
        yield one.task.name, name, f"{found.tests:,}", size, f"{one.value(found.circuit):.4f}", f"{seconds:.1f}"


def sizes(one: Experiment) -> Iterator[tuple[str, ...]]:
    """The smallest circuits of each kind whose KL is at most so much."""
    scored = METHODS[SCORED_BY].scores(one).circuit
    half = shortlist_of(round(0.5 * one.graph.n_edges), one)
    ranks = [round(one.graph.n_edges * share) for share in grid(-2, -0.3, 30)]
    searched = {
        "ACDC": searches(one),
        "passes": searches(one, passes=3),
        "half": searches(one, start=half),
        "EAP-IG": [measured(one, at_most(scored, max(1, size), absolute=True).circuit) for size in ranks],
    }
    for level in LEVELS:
        bounded = searches(one, budget=level), searches(one, budget=level, passes=3)
        every = (searched["ACDC"], searched["passes"], *bounded, searched["half"], searched["EAP-IG"])
        yield one.task.name, f"{level:g}", *(smallest(some, level) for some in every)


def searches(one: Experiment, **options: Any) -> list[tuple[int, float]]:
    """Size and KL of what ACDC finds at each threshold."""
    return [measured(one, found.discovery.circuit) for found in acdc_sweep(one, THRESHOLDS, **options)]


def measured(one: Experiment, circuit: Circuit) -> tuple[int, float]:
    return circuit.n_edges, one.value(circuit)


def smallest(found: Sequence[tuple[int, float]], level: float) -> str:
    sizes = [size for size, metric in found if metric <= level]
    return str(min(sizes)) if sizes else "-"


if __name__ == "__main__":
    main()
