"""Exact patching of every edge, or every node: the ground truth that approximations are judged against.

The score of an edge is how much the metric rises when that edge alone is ablated and every other one is present. The
incremental evaluator computes it: everything upstream of the edge is reused, and edges into one input are one batch.
The score of a node is how much it rises when all that the node writes is ablated, that of a neuron when its activation
alone is. Attribution estimates the same numbers by gradients.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgewise.discovery.method import Method, Scored, StepProgress
from edgewise.discovery.node_search import walk_of
from edgewise.discovery.order import Order, visits
from edgewise.discovery.walking import finite
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, NeuronCircuit, of_nodes
from edgewise.patching import Experiment, IncrementalEngine
from edgewise.patching.neuron_engine import NeuronEngine
from edgewise.patching.node_engine import NodeEngine
from edgewise.patching.wiring import Wiring


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


def exact_node_effects(
    experiment: Experiment, *, max_memory: int | None = None, progress: StepProgress | None = None
) -> Scored:
    """Every node's effect on the metric, as scores on the circuit of all nodes; arguments as of `exact_effects`.

    Raises:
        EdgewiseError: it does not fit into memory, or the metric without some node is not a finite number.
    """
    graph = experiment.graph
    everything = np.ones(len(graph.sources), dtype=bool)
    engine = NodeEngine(experiment, everything, max_memory)
    walk = walk_of(graph, Wiring.of(experiment.decoder, graph), Order())
    (whole,) = engine.measure(walk[0][0], [()])
    scores, done = np.zeros(len(graph.sources)), 0
    for column, rows in walk:
        for row, metric in zip(rows, engine.measure(column, [(row,) for row in rows]), strict=True):
            scores[row] = finite(metric, experiment, f"without {graph.sources[row].name}") - whole
        done += len(rows)
        if progress is not None:
            progress(done, len(graph.sources))
    return Scored(of_nodes(graph, everything, scores))


def exact_neuron_effects(
    experiment: Experiment,
    *,
    within: Circuit | None = None,
    max_memory: int | None = None,
    progress: StepProgress | None = None,
) -> Scored:
    """Every neuron's effect on the metric, in an experiment whose graph tells neurons apart.

    A neuron's activation alone is ablated, before the output projection, and all that is behind its MLP follows.

    Args:
        within: measure the neurons of this circuit only; the scores are on it, and 0 for others.

    Raises:
        EdgewiseError: it does not fit into memory, the metric without some neuron is not a finite number, or `within`
            is no circuit of neurons.
    """
    graph = experiment.graph
    if not graph.neurons:
        raise EdgewiseError("the experiment's graph tells no neurons apart; make it with neurons=True")
    every = NeuronCircuit.full(graph) if within is None else NeuronCircuit.full(graph) & within
    engine = NeuronEngine(experiment, max_memory=max_memory)
    layers = np.flatnonzero(graph.units.any(axis=1))[::-1].tolist()
    (whole,) = engine.measure(layers[0], [()])
    scores, done, step = np.zeros(every.neurons.shape), 0, engine.most
    for layer in layers:
        numbers = np.flatnonzero(every.neurons[layer]).tolist()
        for first in range(0, len(numbers), step):
            block = numbers[first : first + step]
            for number, metric in zip(block, engine.measure(layer, [(one,) for one in block]), strict=True):
                name = graph.unit_name(layer, number)
                scores[layer, number] = finite(metric, experiment, f"without {name}") - whole
            done += len(block)
            if progress is not None:
                progress(done, every.size)
    return Scored(replace(every, neuron_scores=scores), {} if within is None else {"shortlist": every.size})


METHOD = Method(
    name="exact",
    summary="ablate every edge alone and measure",
    cost="one part of a forward pass per edge",
    paper="activation patching",
    when="the ground truth that scores are judged against; small models",
    counts="edges",
    score=exact_effects,
    score_nodes=exact_node_effects,
    score_neurons=exact_neuron_effects,
    memory="every edge",
)
