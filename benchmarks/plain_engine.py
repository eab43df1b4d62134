"""What one tested edge costs with the plain engine, against one forward pass of the same model, side by side.

Prints medians over interleaved repeats and their ratio, for a GPT-2-small shape and a small one, with random weights
(cost does not depend on the weights). Usage: python benchmarks/plain_engine.py [--repeats 5] [--small-only]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from edgewise.graph import Circuit
from edgewise.models.decoder import positions_of
from edgewise.patching import Experiment

sys.path.insert(0, str(Path(__file__).parent))
from shapes import Case, make_model, make_task


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.no_grad()
def compare(name: str, rows: int, length: int, repeats: int) -> None:
    case = Case(name, rows, length)
    model = make_model(case)
    task = make_task(model, case)
    experiment = Experiment(model, task)
    circuit = Circuit.full(experiment.graph).remove("m0->logits")
    prompts, positions = task.prompts, positions_of(task.prompts.clean)

    def edge() -> float:
        return experiment.value(circuit)

    def forward() -> torch.Tensor:
        return model.run_source(prompts.clean, prompts.mask, positions)

    edge()  # once each before the clock runs
    forward()
    edges, forwards = zip(*((timed(edge), timed(forward)) for _ in range(repeats)), strict=True)
    per_edge, per_forward = statistics.median(edges), statistics.median(forwards)
    print(
        f"{name:32} {rows:3} x {length:2} | {experiment.graph.n_edges:6,} edges | one tested edge {per_edge:8.4f} s | "
        f"one forward pass {per_forward:8.4f} s | ratio {per_edge / per_forward:5.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small-only", action="store_true")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in ("4 layers x 4 heads, width 128", "GPT-2 small"):
        if name == "GPT-2 small" and options.small_only:
            continue
        for rows in (8, 32):
            compare(name, rows, 16, options.repeats)


if __name__ == "__main__":
    main()
