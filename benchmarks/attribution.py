"""What attribution costs, beside one forward and one backward pass of the same model, in one run.

    python benchmarks/attribution.py [--rows 32] [--length 16] [--shape "GPT-2 small"]

EAP is timed whole: the corrupted run, the clean run, the backward pass, and a score for every edge. The yardstick is
the source model's own forward pass (logits at the last token alone) and backward pass, to its weights and, where these
are frozen, to its embeddings. Every time is a median of several, taken in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgewise.process import tune_process

tune_process()

import torch  # noqa: E402

from edgewise.discovery import clean_corrupted, edge_attribution, edge_attribution_ig  # noqa: E402
from edgewise.models import Decoder  # noqa: E402
from edgewise.patching import Experiment  # noqa: E402
from edgewise.tasks import Reference, Task  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from shapes import Case, make_model, make_task  # noqa: E402


def forward_and_backward(model: Decoder, task: Task, *, weights: bool) -> None:
    """The source model's own passes: to its weights, or to its embeddings alone."""
    source: Any = model.source
    source.requires_grad_(weights)
    prompts = task.prompts
    embeddings = source.get_input_embeddings()(prompts.clean).detach().requires_grad_(not weights)
    logits = source(inputs_embeds=embeddings, logits_to_keep=1).logits[:, 0]
    logits.log_softmax(dim=-1)[:, 0].mean().neg().backward()
    source.zero_grad(set_to_none=True)
    source.requires_grad_(True)


def unlikely(logits: torch.Tensor, reference: Reference) -> torch.Tensor:
    """Negative log-likelihood of token 0: a metric with a gradient on prompts that have no answers."""
    return -logits.log_softmax(dim=-1)[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="GPT-2 small")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    case = Case(given.shape, given.rows, given.length)
    model = make_model(case, given.device)
    task = make_task(model, case)

    def experiment() -> Experiment:
        return Experiment(model, task, metric=unlikely)

    work: dict[str, Callable[[], object]] = {
        "forward and backward, to the weights": lambda: forward_and_backward(model, task, weights=True),
        "forward and backward, weights frozen": lambda: forward_and_backward(model, task, weights=False),
        "edge-attribution": lambda: edge_attribution(experiment()),
        "clean-corrupted": lambda: clean_corrupted(experiment()),
        "edge-attribution-ig, inputs, 5 steps": lambda: edge_attribution_ig(experiment()),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(given.repeats + 1):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            if given.device != "cpu":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}  # the first one warms up
    weights, frozen, eap = list(medians.values())[:3]
    edges = experiment().graph.n_edges
    size = f"{given.rows} x {given.length}, {edges:,} edges"
    print(f"{given.shape}, {size}, {given.device}, {torch.get_num_threads()} threads\n")
    print("| what | seconds | forward-and-backward passes | with weights frozen | times EAP |")
    print("|---|---|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {seconds / weights:.2f} | {seconds / frozen:.2f} | {seconds / eap:.2f} |")


if __name__ == "__main__":
    main()
