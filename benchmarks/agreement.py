"""How far scores agree with exact patching on the shipped tasks: the tables of docs/methods.md.

    python benchmarks/agreement.py

For every task and method the Pearson and Spearman correlation with the exact effects of the same edges on the same
metric, edges from heads and from MLPs apart. Ties get the mean of their ranks.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

from edgewise.process import tune_process

tune_process()

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from edgewise.discovery import METHODS, exact_effects  # noqa: E402
from edgewise.graph import Circuit  # noqa: E402
from edgewise.models import load_model  # noqa: E402
from edgewise.patching import Experiment  # noqa: E402
from edgewise.tasks import TASKS, load_task  # noqa: E402

METRICS = {
    "ioi": "logit_diff",
    "greater-than": "prob_diff",
    "docstring": "logit_diff",
    "induction": "nll",
    "gender-pronoun": "logit_diff",
}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "edge-attribution": ("edge-attribution", {}),
    "edge-attribution-ig, inputs": ("edge-attribution-ig", {"path": "inputs", "steps": 5}),
    "edge-attribution-ig, activations": ("edge-attribution-ig", {"path": "activations", "steps": 5}),
    "clean-corrupted": ("clean-corrupted", {}),
    "relp": ("relp", {}),
    "attribution-patching": ("attribution-patching", {"qk_fix": True}),
    "information-flow": ("information-flow", {}),
    "head-importance": ("head-importance", {"variant": "default"}),
    "edge-pruning, 300 steps to a tenth of the edges": (
        "edge-pruning",
        {"steps": 300, "learning_rate": 0.1, "warm_start": True, "seed": 0, "target": None},
    ),
    "subnetwork-probing, 300 steps at 0.05, lambda 1": (
        "subnetwork-probing",
        {"steps": 300, "learning_rate": 0.05, "regularisation": 1.0},
    ),
}


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, ties at their mean."""
    _, groups, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return (last - (counts - 1) / 2)[groups]


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    if len(one) == 0 or one.std() == 0 or other.std() == 0:
        return "-"
    return f"{np.corrcoef(one, other)[0, 1]:.2f}"


def agreement(scored: Circuit, exact: Circuit) -> list[str]:
    """Pearson and Spearman, for edges from heads and from MLPs."""
    assert scored.scores is not None
    assert exact.scores is not None
    cells = []
    for kind in ("head", "mlp"):
        rows = np.array([node.kind == kind for node in scored.graph.sources])
        chosen = scored.graph.edges & rows[:, None]
        one, other = scored.scores[chosen], exact.scores[chosen]
        cells += [correlation(one, other), correlation(ranks(one), ranks(other)) if len(one) else "-"]
    return cells


def main() -> None:
    warnings.simplefilter("ignore")
    for name, metric in METRICS.items():
        model = load_model(TASKS[name].model)
        experiment = Experiment(model, load_task(name, model), metric=metric)
        started = time.perf_counter()
        exact = exact_effects(experiment).circuit
        seconds = time.perf_counter() - started
        print(f"\n{name} on {model.name}, {metric}, {experiment.graph.n_edges} edges; exact in {seconds:.1f} s\n")
        print("| method | heads: Pearson | Spearman | MLPs: Pearson | Spearman | seconds |")
        print("|---|---|---|---|---|---|")
        for label, (method, options) in RUNS.items():
            if "target" in options:
                options = {**options, "target": experiment.graph.n_edges // 10}
            started = time.perf_counter()
            scored = METHODS[method].scores(experiment, **options).circuit
            cells = agreement(scored, exact)
            print(f"| {label} | {' | '.join(cells)} | {time.perf_counter() - started:.1f} |", flush=True)


if __name__ == "__main__":
    main()
