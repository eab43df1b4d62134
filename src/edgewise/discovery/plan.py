"""What an ACDC run would cost, before it is made."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from edgewise.discovery.attribution import STEPS, along, attribute
from edgewise.discovery.forecast import Forecast
from edgewise.discovery.found import Interrupted, Progress
from edgewise.discovery.node_search import require_whole_nodes
from edgewise.discovery.order import Order
from edgewise.discovery.search import acdc, check_options
from edgewise.discovery.time_left import TimeLeft
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph
from edgewise.patching import Costs, Experiment, IncrementalEngine, MemoryPlan, OutOfMemoryError, calibrate, plan_memory
from edgewise.patching.node_engine import NodeEngine
from edgewise.patching.wiring import EMBEDDING

TRIED_SECONDS = 4.0
"""How long a search is tried where there is a threshold to plan for."""

UNSURE = 2.0
"""How many times as long, or as short, a search may take than is foretold."""

SHARES = (0.05, 0.2, 1.0)
"""Shares of nodes that stay in the circuit, for which costs are told where no threshold is given."""


@dataclass(frozen=True)
class Estimate:
    """What a search would cost.

    Attributes:
        share: of the nodes that stay; None where it comes from a search that was tried.
        tests: edges that would be tested; the others fall without a test.
        seconds: of the search, from the calibration.
    """

    share: float | None
    tests: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run would cost.

    Attributes:
        graph: what there is to find.
        memory: how it fits into memory, in bytes beyond the model's weights.
        costs: of one candidate, in seconds, measured.
        estimates: for several shares of nodes that stay; with a threshold the least (in tests certainly), the
            likely, and `UNSURE` times that, or what the search took if it came to its end.
        first: edges into the logits that were tried, and how many of them stay; None where no threshold was given.
        learning: seconds that ablation `optimal` takes to learn its constants before the search; None for others.
    """

    graph: Graph
    memory: MemoryPlan
    costs: Costs
    estimates: tuple[Estimate, ...]
    first: tuple[int, int] | None
    learning: float | None = None


@dataclass(frozen=True)
class NodePlan:
    """What a search by nodes would cost.

    Attributes:
        graph, memory: as of `Plan`.
        tests: nodes that would be tested.
        seconds: of one pass of the search, from the calibration.
        at_once: nodes of one component that are tested together.
        learning: as of `Plan`.
    """

    graph: Graph
    memory: MemoryPlan
    tests: int
    seconds: float
    at_once: int
    learning: float | None = None


def plan_acdc(
    experiment: Experiment,
    threshold: float | None = None,
    *,
    order: Order | None = None,
    absolute: bool = False,
    budget: float | None = None,
    start: Circuit | None = None,
    max_memory: int | None = None,
) -> Plan:
    """Measure what a candidate costs on this machine and work out what a search would take.

    With a threshold, the search itself is tried for `TRIED_SECONDS`. If that is not its end, attribution scores
    foretell which edges it will keep, and so what it has to test (forecast.py); for a metric without a gradient it is
    worked out as in the live view. The estimates are three then, from the least to what may be. Without a threshold
    they are for `SHARES`. How long a search takes depends on the circuit it finds, so this gives orders of magnitude.

    Raises:
        EdgewiseError: a threshold that is no number, or a search that does not fit into memory.
    """
    check_options(threshold=threshold)
    engine, graph = IncrementalEngine(experiment, max_memory), experiment.graph
    costs, memory = calibrate(engine), engine.plan
    if threshold is None:
        return Plan(graph, memory, costs, tuple(estimate(graph, costs, share) for share in SHARES), None)
    del engine
    started, left, heard = time.perf_counter(), TimeLeft(), []

    def listen(progress: Progress) -> None:
        seconds = time.perf_counter() - started
        low, high = left.range(seconds, progress.tests, progress.to_come)
        heard[:] = [(seconds, progress, low, high)]
        if seconds > TRIED_SECONDS and progress.tests:
            raise KeyboardInterrupt

    try:
        found = acdc(
            experiment,
            threshold,
            order=order,
            absolute=absolute,
            budget=budget,
            start=start,
            max_memory=max_memory,
            progress=listen,
        )
    except Interrupted as stop:
        if not isinstance(stop.__cause__, KeyboardInterrupt) or heard[-1][0] <= TRIED_SECONDS:
            raise  # the user's own Ctrl-C, or no memory
        found = stop.discovery
    seconds, progress, low, high = heard[-1]
    into_logits = [one.kept for one in found.trace if "->logits" in one.edge]
    first = (len(into_logits), sum(into_logits))
    if progress.decided == progress.edges:
        return Plan(graph, memory, costs, (Estimate(None, progress.tests, found.seconds),), first)
    certain, likely, _ = progress.to_come
    begun = Circuit.full(graph) if start is None else start
    told = _foretell(experiment, threshold, begun, costs, max_memory, (progress.tests, seconds))
    if told is None:
        tests, took = progress.tests + likely, seconds + (low + high) / 2
    else:
        tests, took = told.tests, told.seconds
    most, least = begun.n_edges, progress.tests + certain
    ends = (
        Estimate(None, round(least), max(took / UNSURE, seconds)),
        Estimate(None, round(min(max(tests, least), most)), took),
        Estimate(None, round(min(max(UNSURE * tests, least), most)), UNSURE * took),
    )
    return Plan(graph, memory, costs, ends, first)


def _foretell(
    experiment: Experiment,
    threshold: float,
    begun: Circuit,
    costs: Costs,
    max_memory: int | None,
    known: tuple[int, float],
) -> Forecast | None:
    """The search as attribution scores foretell it; None for a metric without a gradient, or too little memory for it.

    Whatever the rule is, an edge stays whose removal changes the metric by the threshold either way: a search that has
    drifted keeps many that would have lowered the metric at first.
    """
    try:
        within = experiment.within(max_memory, "gradients")
        effects = attribute(within, along(within, "inputs", STEPS), None).circuit
    except (EdgewiseError, OutOfMemoryError):
        return None
    assert effects.scores is not None
    assert effects.port_scores is not None
    stays = Circuit(
        effects.graph,
        effects.edges & (np.abs(effects.scores) >= threshold),
        effects.ports & (np.abs(effects.port_scores) >= threshold),
    )
    positions = experiment.task.prompts.mask.shape[-1]
    return Forecast(experiment.graph, begun, stays, costs, positions, known)


def plan_nodes(experiment: Experiment, *, start: Circuit | None = None, max_memory: int | None = None) -> NodePlan:
    """Measure what a test costs on this machine, and work out what a search by nodes would take.

    All nodes are tested, whatever the threshold. A test runs from its node on, so one from the first component and one
    from the last are timed, in the whole model, and all take the mean of these.

    Raises:
        EdgewiseError: the search does not fit into memory.
    """
    graph = experiment.graph
    require_whole_nodes(graph)
    rows = np.ones(len(graph.sources), dtype=bool) if start is None else start.rows
    engine = NodeEngine(experiment, rows, max_memory)
    memory = plan_memory(experiment.decoder, experiment.task, graph, max_memory, "nodes")
    ends = (EMBEDDING, len(experiment.decoder.components) - 1)
    for column in ends:  # the first calls warm up
        engine.measure(column, [()])
    started = time.perf_counter()
    for column in ends:
        engine.measure(column, [()])
    seconds = (time.perf_counter() - started) / len(ends)
    tests = int(rows.sum())
    return NodePlan(graph, memory, tests, tests * seconds, engine.most)


def estimate(graph: Graph, costs: Costs, share: float) -> Estimate:
    """What a search costs if `share` of the nodes stay, evenly over the layers, needed at all positions."""
    tests = seconds = 0.0
    for place in graph.inputs:
        senders = graph.n_senders(place)
        if place.kind == "logits":
            tests, seconds = tests + senders, seconds + senders * (costs.sender + costs.vocabulary)
            continue
        later = graph.n_layers - 1 - place.layer
        onward = share * later * (graph.n_heads * costs.head + graph.mlps * costs.mlp)
        own = costs.mlp if place.kind == "mlp" else costs.head
        candidates = share * (senders + bool(graph.port_edges[graph.input_index[place.name]]))
        tests += candidates
        seconds += candidates * (costs.sender + own + onward + costs.vocabulary)
    return Estimate(share, round(tests), seconds)
