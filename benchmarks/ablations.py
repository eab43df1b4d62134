"""What each ablation comes to: ACDC at a task's own threshold, with every ablation that takes the task's prompts.

    python benchmarks/ablations.py
    python benchmarks/ablations.py --tasks ioi --threshold 0.05

The table of docs/methods.md. The metric is the task's own, measured by a circuit run on the prompts that were searched
and on test prompts, where absent edges carry the same kind of thing: constants that were learned stay as they are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import edgewise as ew
from edgewise.discovery import acdc
from edgewise.errors import EdgewiseError
from edgewise.patching import ABLATIONS, Experiment

TASKS = ("ioi", "greater-than")
COLUMNS = ("task", "ablation", "every edge ablated", "edges", "metric", "on test prompts", "recovered there", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=TASKS, help="Built-in tasks.")
    parser.add_argument("--threshold", type=float, help="Default: each task's own.")
    asked = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in asked.tasks:
        for row in rows(name, asked.threshold):
            print(f"| {' | '.join(row)} |", flush=True)


def rows(name: str, threshold: float | None) -> Iterator[tuple[str, ...]]:
    """A row for every ablation."""
    model = ew.load_model(ew.TASKS[name].default_model("default"))
    task, test = (ew.load_task(name, model, split=split) for split in ("validation", "test"))
    at = task.threshold if threshold is None else threshold
    assert at is not None
    for ablation in ABLATIONS:
        began = time.process_time()
        try:
            searched = Experiment(model, task, ablation=ablation)
        except EdgewiseError:
            continue
        found = acdc(searched, at)
        seconds = time.process_time() - began
        other = Experiment(model, test, ablation=searched.carried)
        there, ablated = other.value(found.circuit), other.ablated()
        yield (
            *(name, ablation, f"{searched.ablated():.2f}", str(found.circuit.n_edges)),
            *(f"{searched.value(found.circuit):.4f}", f"{there:.4f}"),
            *(f"{1 - there / ablated:.1%}", f"{seconds:.0f}"),
        )


if __name__ == "__main__":
    main()
