"""What `edgewise plan --shape` says of a small model, beside what the model takes, measured in the same run.

    python benchmarks/shape_plan.py [--shape "GPT-2 small"] [--layers 6] [--rows 8] [--length 16] [--threshold 0.001]

How many operations a second this machine does is measured on a product as large as the model's vocabulary, and bytes a
second by a sum over a gigabyte. All times are processor time, so that a machine that is shared is not slower than it
is. A search is estimated twice: with random paths in place of the circuit, as the command does it, and with the circuit
that was found, which leaves what is wrong with the arithmetic itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edgewise.process import tune_process

tune_process()

import torch  # noqa: E402

from edgewise.discovery import acdc, edge_attribution_ig  # noqa: E402
from edgewise.graph import Circuit  # noqa: E402
from edgewise.models.forward import forward  # noqa: E402
from edgewise.models.matmul import fast_matmul  # noqa: E402
from edgewise.patching import Experiment  # noqa: E402
from edgewise.runs.shape_plan import Machine, plan_shape  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from shapes import Case, make_model, make_task  # noqa: E402


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Processor time, the median of several; one call before them warms up, unless there is one only."""
    taken = []
    for _ in range(repeats + (repeats > 1)):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return statistics.median(taken[-repeats:])


def this_machine(rows: int, d_model: int, vocabulary: int) -> Machine:
    """Operations and bytes a second of one processor second."""
    x, weight, much = torch.ones(rows, d_model), torch.ones(vocabulary, d_model), torch.ones(2**28)

    def product() -> object:
        with torch.no_grad(), fast_matmul():
            return torch.nn.functional.linear(x, weight)

    flops = 2 * rows * d_model * vocabulary / seconds(product, 5)
    return Machine(flops=flops, bandwidth=much.nbytes / seconds(much.sum, 5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="GPT-2 small")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.001)
    asked = parser.parse_args()
    case = Case(asked.shape, asked.rows, asked.length, asked.layers)
    model = make_model(case)
    task = make_task(model, case)
    machine = this_machine(64 * asked.rows, model.config.d_model, model.config.d_vocab)
    threads = torch.get_num_threads()
    print(
        f"{asked.shape}, {model.config.n_layers} layers, {asked.rows} x {asked.length}, {threads} thread(s):", end=" "
    )
    print(f"{machine.flops:.3g} operations and {machine.bandwidth:.3g} bytes a processor second\n")

    experiment = Experiment(model, task)
    full, prompts = Circuit.full(experiment.graph), task.prompts

    def one_forward() -> object:
        with torch.no_grad(), fast_matmul():
            final = forward(model, prompts.clean, prompts.mask).streams[-1]
            return model.logits(final[prompts.scored_rows, prompts.scored_positions])

    found = []
    measured = {
        "forward pass": seconds(one_forward),
        "circuit run": seconds(lambda: experiment.logits(full)),
        "attribution": seconds(lambda: edge_attribution_ig(experiment)),
        "search": seconds(lambda: found.append(acdc(Experiment(model, task), asked.threshold)), 1),
    }
    circuit, tests = found[0].circuit, found[0].tests
    sizes = dict(prompts=asked.rows, tokens=asked.length, machine=machine)
    random = plan_shape(model, kept=circuit.n_edges, **sizes)
    true = plan_shape(model, kept=circuit, **sizes)
    print("| | estimated | measured | estimated / measured |")
    print("|---|---|---|---|")
    for name, took in measured.items():
        told = random.costs[name].seconds
        print(f"| {name} | {told:.3f} s | {took:.3f} s | {told / took:.2f} |")
    told, took = true.costs["search"].seconds, measured["search"]
    print(f"| search, told which edges stay | {told:.3f} s | {took:.3f} s | {told / took:.2f} |")
    print(
        f"\n{circuit.n_edges} of {full.n_edges:,} edges kept; tests: {tests:,} made, {random.costs['search'].tests:,}",
        end="",
    )
    print(f" foretold with random paths, {true.costs['search'].tests:,} with the edges that stay")


if __name__ == "__main__":
    main()
