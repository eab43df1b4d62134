"""Circuits of neurons: how well attribution estimates a neuron's exact effect, and what circuits of so many recover.

    python benchmarks/neurons.py
    python benchmarks/neurons.py --tasks greater-than --sizes 20 50
    python benchmarks/neurons.py --shape "GPT-2 small" --examples 4

The table of docs/methods.md; with `--shape`, what exact effects cost on a model of that shape, its weights random,
beside a circuit run for each. Everything is measured with KL divergence; circuits are of the largest scores in size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from agreement import correlation, ranks
from shapes import Case, make_model, make_task

import edgewise as ew
from edgewise.discovery import METHODS, choose_neurons
from edgewise.discovery.methods.exact import exact_neuron_effects
from edgewise.graph import NeuronCircuit, of_neurons
from edgewise.patching import Experiment

TASKS = ("greater-than", "gender-pronoun")
SIZES = (10, 30, 100)
SCORED_BY: dict[str, tuple[str, dict[str, Any]]] = {
    "edge-attribution": ("edge-attribution", {}),
    "edge-attribution-ig, inputs": ("edge-attribution-ig", {}),
    "edge-attribution-ig, activations": ("edge-attribution-ig", {"path": "activations"}),
    "clean-corrupted": ("clean-corrupted", {}),
    "relp": ("relp", {}),
    "exact": ("exact", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=TASKS, help="Built-in tasks, or files.")
    parser.add_argument("--model", help="Default: each task's own.")
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--shape", help="A shape of benchmarks/shapes.py.")
    asked = parser.parse_args()
    if asked.shape is not None:
        cost(asked.shape, asked.examples)
        return
    sizes = " | ".join(f"{size} neurons" for size in asked.sizes)
    print(f"| task | scores | Pearson | Spearman | {sizes} | CPU seconds |\n|{'---|' * (5 + len(asked.sizes))}")
    for name in asked.tasks:
        model = ew.load_model(asked.model or ew.TASKS[name].default_model("default"))
        case = Experiment(model, ew.load_task(name, model, examples=asked.examples), metric="kl_div", neurons=True)
        exact, _ = scores(case, "exact", {})
        for called, (method, options) in SCORED_BY.items():
            found, seconds = scores(case, method, options)
            alike = f"{correlation(found, exact)} | {correlation(ranks(found), ranks(exact))}"
            recovered = " | ".join(f"{share(case, found, size):.0%}" for size in asked.sizes)
            print(f"| {name} | {called} | {alike} | {recovered} | {seconds:.1f} |", flush=True)


def scores(case: Experiment, method: str, options: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Every neuron's score in a row, and the processor time that it takes."""
    found, seconds = timed(lambda: METHODS[method].scores(case, level="neuron", **options).circuit)
    assert isinstance(found, NeuronCircuit)
    assert found.neuron_scores is not None
    return found.neuron_scores.ravel(), seconds


def share(case: Experiment, found: np.ndarray, size: int) -> float:
    """What share of the way from no neuron to the model the circuit of the largest scores goes."""
    shape = (case.graph.n_layers, case.graph.neurons)
    every = of_neurons(case.graph, np.ones(shape, dtype=bool), found.reshape(shape))
    circuit = choose_neurons(every, count=size, absolute=True).circuit
    return (case.value(circuit) - case.ablated()) / (case.full() - case.ablated())


def cost(shape: str, rows: int, measured: int = 240) -> None:
    """The processor time of exact effects of some neurons of all layers, and of a circuit run for some of these."""
    case = Case(shape, rows=rows, length=16)
    model = make_model(case)
    experiment = Experiment(model, make_task(model, case), metric="kl_div", neurons=True)
    graph = experiment.graph
    chosen = np.zeros(graph.n_neurons, dtype=bool)
    chosen[np.linspace(0, graph.n_neurons - 1, measured).astype(int)] = True
    some = of_neurons(graph, chosen.reshape(graph.n_layers, graph.neurons))
    found, seconds = timed(lambda: exact_neuron_effects(experiment, within=some).circuit)
    assert isinstance(found, NeuronCircuit)
    assert found.neuron_scores is not None
    names = some.names()[::12]
    full = experiment.full()
    every = NeuronCircuit.full(graph)
    plain, slow = timed(lambda: [experiment.value(every.remove(name)) - full for name in names])
    apart = np.abs(np.array(plain) - found.neuron_scores[some.neurons][::12]).max()
    _, attributed = timed(lambda: METHODS["edge-attribution-ig"].scores(experiment, level="neuron"))
    each, slower = 1000 * seconds / measured, 1000 * slow / len(names)
    print(f"{graph.n_neurons:,} neurons; {measured} of them exact in {seconds:.1f} s, {each:.0f} ms each,")
    print(f"by a circuit run {slower:.0f} ms each, which differ by {apart:.0e} at most;")
    print(f"all by edge-attribution-ig in {attributed:.1f} s")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work gives, and the processor time that it takes."""
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


if __name__ == "__main__":
    main()
