"""Exact patching of every edge: the ground truth that approximations are judged against.

The score of an edge is how much the metric rises when that edge alone is ablated and every other one is present. The
incremental evaluator computes it: everything upstream of the edge is reused, and edges into one input are one batch.
Attribution estimates the same number by gradients.
"""

from __future__ import annotations

import numpy as np

from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.discovery.order import visits
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.patching import Experiment, IncrementalEngine


def exact_effects(
    experiment: Experiment, *, max_memory: int | None = None, progress: StepProgress | None = None
) -> Scored:
    """Every edge's and port edge's effect on the metric, as scores on the full circuit.

    Args:
        max_memory: bytes that may be used beyond the model's weights.
        progress: called with how many edges are done, and of how many.

    Raises:
        EdgewiseError: it does not fit into memory, or the metric without some edge is not a finite number.
    """
    graph = experiment.graph
    engine = IncrementalEngine(experiment, max_memory)
    (whole,) = engine.measure(len(graph.inputs) - 1, [()])
    scores, ports, done = np.zeros(graph.edges.shape), np.zeros(len(graph.inputs)), 0
    for visit in visits(graph):
        if visit.kind == "node":
            continue
        column = visit.column
        rows = [None] if visit.kind == "port" else list(range(graph.n_senders(graph.inputs[column])))
        step = engine.at_once(column)
        blocks = [rows[first : first + step] for first in range(0, len(rows), step)]
        metrics = np.array([one for block in blocks for one in engine.measure(column, [(row,) for row in block])])
        if not np.isfinite(metrics).all():
            raise EdgewiseError(
                f"metric {experiment.metric.name!r} came out as {metrics[~np.isfinite(metrics)][0]} without an edge "
                f"into {visit.name}, so nothing can be compared"
            )
        if visit.kind == "port":
            ports[column] = metrics[0] - whole
        else:
            scores[: len(rows), column] = metrics - whole
        done += len(rows)
        if progress is not None:
            progress(done, graph.n_edges)
    return Scored(Circuit.full(graph).with_scores(scores, ports))


METHOD = Method(
    name="exact",
    summary="ablate every edge alone and measure",
    cost="one part of a forward pass per edge",
    paper="activation patching",
    when="the ground truth that scores are judged against; small models",
    counts="edges",
    score=exact_effects,
    memory="every edge",
)
