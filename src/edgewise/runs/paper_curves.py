"""Edges against the metric: how far each method's circuits come, and what their plots have for comparison."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.evaluation.share import share_of_way
from edgewise.graph import Circuit
from edgewise.models import permuted
from edgewise.patching import Experiment
from edgewise.runs.series import Series
from edgewise.runs.sweep import on_others
from edgewise.tasks import Task


@dataclass(frozen=True)
class References:
    """What a plot of edges against the metric has for comparison, on test prompts.

    Attributes:
        full, ablated: the metric of the whole model and with every edge ablated.
        known: edges and metric of the known circuit, where there is one.
        reset: the metric of the whole reset network, its heads and neurons shuffled; None where nothing can be.
    """

    full: float
    ablated: float
    known: tuple[int, float] | None
    reset: float | None


@dataclass(frozen=True)
class Curve:
    """How far one method's circuits come with how many edges.

    Attributes:
        table: what it belongs to.
        key: the row that it was made in.
        model: what it was measured on.
        edges_for: share of the way from the ablated run to the model, and the fewest edges that go it (None if none
        do), on the prompts of the search.
        n_graph_edges: how many there are.
        seconds: what all its circuits took to find.
        by: what settings are: `threshold`, `lambda`, `edges` or `units masked`.
        points: setting, number of edges and metric of every circuit, on test prompts.
    """

    table: str
    key: str
    task: str
    model: str
    ablation: str
    metric: str
    method: str
    edges_for: tuple[tuple[float, int | None], ...]
    n_graph_edges: int
    n_circuits: int
    seconds: float
    by: str
    points: tuple[tuple[float, int, float], ...]
    references: References


def references_of(experiment: Experiment, test: Task, seed: int) -> References:
    """What circuits of an experiment are shown beside, on other prompts.

    Args:
        seed: of the reset network; an experiment in a reset network is its own.
    """
    others = on_others(experiment, test)
    full, truth = others.full(), test.known_circuit
    known = None if truth is None else truth.on(others.graph)
    return References(
        full=full,
        ablated=others.ablated(),
        known=None if known is None else (known.n_edges, others.value(known)),
        reset=full if experiment.decoder.original is not None else _reset(others, seed),
    )


def _reset(others: Experiment, seed: int) -> float | None:
    """The metric of a whole reset network; None where the model has nothing to shuffle, or cannot be shuffled."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", EdgewiseWarning)
        try:
            shuffled = permuted(others.decoder, seed)
        except (EdgewiseError, EdgewiseWarning):
            return None
    reset = Experiment(shuffled, others.task, ablation=others.carried, metric=others.metric, graph=others.graph)
    return reset.value(Circuit.full(reset.graph))


def curves_of(
    found: Sequence[Series], experiment: Experiment, references: References, *, table: str, key: str
) -> list[Curve]:
    """The curves of a row's series."""
    return [_curve(series, experiment, references, table, key) for series in found]


def _curve(series: Series, experiment: Experiment, references: References, table: str, key: str) -> Curve:
    metric = experiment.metric.name
    full, ablated = series.baseline[metric]
    edges_for = []
    for share in (0.5, 0.9, 0.99):
        enough = [
            point.circuit.n_edges
            for point in series.points
            if (share_of_way(point.metrics[metric], ablated, full) or 0.0) >= share
        ]
        edges_for.append((share, min(enough, default=None)))
    return Curve(
        table=table,
        key=key,
        task=experiment.task.name,
        model=experiment.decoder.name,
        ablation=experiment.ablation,
        metric=metric,
        method=series.method,
        edges_for=tuple(edges_for),
        n_graph_edges=series.points[0].circuit.graph.n_edges,
        n_circuits=len({point.circuit for point in series.points}),
        seconds=round(sum(point.seconds for point in series.points), 2),
        by=series.by,
        points=tuple((one.setting, one.circuit.n_edges, one.test_metrics[metric]) for one in series.points),
        references=references,
    )
