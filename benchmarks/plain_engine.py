"""What one tested edge costs with the plain engine, against one forward pass of the same model, side by side.

Prints medians over interleaved repeats and their ratio, for a GPT-2-small shape and a small one, with random weights
(cost does not depend on the weights). Usage: python benchmarks/plain_engine.py [--repeats 5] [--small-only]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from edgewise.graph import Circuit
from edgewise.models import Decoder, load_model
from edgewise.models.decoder import positions_of
from edgewise.patching import Experiment
from edgewise.tasks.task import PromptText, Task, last_token_prompts

SHAPES: dict[str, dict[str, Any]] = {
    "4 layers x 4 heads, width 128": {"n_layer": 4, "n_head": 4, "n_embd": 128, "vocab_size": 512},
    "GPT-2 small": {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257},
}


def random_model(shape: dict[str, Any]) -> Decoder:
    torch.manual_seed(0)
    config = transformers.GPT2Config(**shape, n_positions=64, bos_token_id=0, eos_token_id=0)
    return load_model(transformers.GPT2LMHeadModel(config))


def random_task(model: Decoder, rows: int, length: int) -> Task:
    generator = torch.Generator().manual_seed(1)
    clean, corrupt = torch.randint(0, model.config.d_vocab, (2, rows, length), generator=generator).tolist()
    return Task(
        name="random",
        prompts=last_token_prompts(clean, corrupt),
        text=tuple(PromptText("", "") for _ in range(rows)),
        metric="kl_div",
        metrics=("kl_div",),
    )


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.no_grad()
def compare(name: str, rows: int, length: int, repeats: int) -> None:
    model = random_model(SHAPES[name])
    task = random_task(model, rows, length)
    experiment = Experiment(model, task)
    circuit = Circuit.full(experiment.graph).remove("m0->logits")
    prompts, positions = task.prompts, positions_of(task.prompts.clean)

    def edge() -> float:
        return experiment.score(circuit)

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
    for name in SHAPES:
        if name == "GPT-2 small" and options.small_only:
            continue
        for rows in (8, 32):
            compare(name, rows, 16, options.repeats)


if __name__ == "__main__":
    main()
