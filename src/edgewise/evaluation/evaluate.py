"""How good a circuit is: its metrics beside those of the whole model and of no circuit at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass

from torch import Tensor

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.models import Decoder
from edgewise.patching import Experiment
from edgewise.tasks import METRICS, Comparison, Metric, Reference, Task, find_metric, mean_over_places


@dataclass(frozen=True)
class Measured:
    """One metric of a circuit, of the whole model and with every edge absent. Lower is better.

    Attributes:
        target: the metric of the model that the circuit is held against: the whole model, or, for a permuted network,
            the one that it was made from.
    """

    circuit: float
    full: float
    ablated: float
    target: float

    @property
    def recovered(self) -> float | None:
        """Share of the way from the ablated run to the target that the circuit goes; None where that is no way at all.

        (m(C) - m(no edge)) / (m(model) - m(no edge)): the normalised faithfulness of the MIB benchmark.
        """
        way = self.target - self.ablated
        return None if abs(way) < 1e-12 else (self.circuit - self.ablated) / way + 0.0  # no minus zero


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metric: name of the metric asked for.
        measured: that metric and every other one that makes sense on the task, by name.
        n_edges, n_edges_connected, n_graph_edges: edges of the circuit, of those on a path, and of the whole graph.
        known: the circuit beside the one that people know, or None where nobody knows it.
    """

    metric: str
    measured: dict[str, Measured]
    ablation: str
    n_edges: int
    n_edges_connected: int
    n_graph_edges: int
    known: Comparison | None = None

    @property
    def value(self) -> float:
        """The circuit's metric."""
        return self.measured[self.metric].circuit


def evaluate(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    *,
    ablation: str | None = None,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
) -> Evaluation:
    """Measure a circuit from scratch, by circuit runs.

    Args:
        circuit: over the model's graph, with or without port edges, key/value heads shared or not.
        ablation, metric: by default the task's. All other metrics of the task come along.

    Raises:
        EdgewiseError: the circuit is over another graph; an unknown ablation or metric; or a metric that comes out as
            no number.
    """
    experiment = Experiment(model, task, ablation=ablation, metric=metric, graph=circuit.graph)
    chosen = experiment.metric
    metrics = [chosen, *(METRICS[name] for name in task.metrics if name != chosen.name and _applies(name, task))]
    logits = [experiment.logits(one) for one in (circuit, Circuit.full(circuit.graph), Circuit.empty(circuit.graph))]
    logits.append(logits[1] if model.original is None else experiment.reference.logits)
    measured = {
        one.name: Measured(*(mean_over_places(one(run, experiment.reference)) for run in logits)) for one in metrics
    }
    for what, value in zip(
        ("of the circuit", "of the whole model", "with every edge ablated", "of the model it was made from"),
        astuple(measured[chosen.name]),
        strict=True,
    ):
        if not math.isfinite(value):
            raise EdgewiseError(f"metric {chosen.name!r} {what} came out as {value}")
    return Evaluation(
        metric=chosen.name,
        measured=measured,
        ablation=experiment.ablation,
        n_edges=circuit.n_edges,
        n_edges_connected=circuit.n_edges_connected,
        n_graph_edges=circuit.graph.n_edges,
        known=None if task.known_circuit is None else task.known_circuit.compare(circuit),
    )


def _applies(name: str, task: Task) -> bool:
    try:
        find_metric(name, task)
    except EdgewiseError:
        return False
    return True
