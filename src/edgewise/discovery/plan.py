"""What an ACDC run would cost, before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from edgewise.discovery.acdc import Order, check_options, removable
from edgewise.discovery.guess import decide
from edgewise.graph import Graph
from edgewise.patching import Costs, Experiment, IncrementalEngine, MemoryPlan, calibrate

SHARES = (0.05, 0.2, 1.0)
"""Shares of nodes that stay in the circuit, for which costs are told where no threshold is given."""


@dataclass(frozen=True)
class Estimate:
    """What a search would cost if so many of the nodes stayed in the circuit.

    Attributes:
        share: of the nodes.
        tests: edges that would be tested; the others fall without a test.
        seconds: of the search, from the calibration.
    """

    share: float
    tests: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run would cost.

    Attributes:
        graph: what there is to find.
        memory: how it fits into memory, in bytes beyond the model's weights.
        costs: of one candidate, in seconds, measured.
        estimates: for one or several shares of nodes that stay.
        first: edges into the logits, and how many of them stay at the threshold; None where no threshold was given.
    """

    graph: Graph
    memory: MemoryPlan
    costs: Costs
    estimates: tuple[Estimate, ...]
    first: tuple[int, int] | None


def plan_acdc(
    experiment: Experiment,
    threshold: float | None = None,
    *,
    order: Order | None = None,
    absolute: bool = False,
    max_memory: int | None = None,
) -> Plan:
    """Measure what a candidate costs on this machine and work out what a search would take.

    With a threshold, the edges into the logits are tested, as a search would, and the share of them that stays is taken
    for the share of nodes that stay everywhere; the estimates are for half, all and twice of that. Without one they are
    for `SHARES`. How long a search takes depends on the circuit it finds, so this gives orders of magnitude.

    Raises:
        EdgewiseError: a threshold that is no number, or a search that does not fit into memory.
    """
    check_options(threshold=threshold)
    engine, graph = IncrementalEngine(experiment, max_memory), experiment.graph
    costs = calibrate(engine)
    first, shares = None, SHARES
    if threshold is not None:
        rule = partial(removable, threshold=threshold, absolute=absolute)
        rows = (order or Order()).parents(graph)
        logits = len(graph.inputs) - 1
        (whole,) = engine.measure(logits, [()])
        kept = sum(not gone for *_, gone in decide(engine, logits, rows, whole, rule))
        first = (len(rows), kept)
        share = max(kept, 1) / len(rows)
        shares = tuple(sorted({min(1.0, share * factor) for factor in (0.5, 1, 2)}))
    return Plan(graph, engine.plan, costs, tuple(estimate(graph, costs, share) for share in shares), first)


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
