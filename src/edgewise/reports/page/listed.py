"""Which of a graph's edges a page is sent, and how those of each run come and go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.graph import Circuit, Graph
from edgewise.graph.circuit import Floats
from edgewise.graph.graph import Bools
from edgewise.reports.page.order import Entering, Replay, entering, entering_nodes, replay, replay_nodes
from edgewise.reports.page.source import Source

MOST_EDGES = 1500
"""Edges beyond a run's circuit and the known one are sent, the strongest first, up to this many together."""
MOST_IN_CIRCUIT = 5000
"""Of a larger circuit, or one that was still being searched, the strongest edges are sent."""


@dataclass(frozen=True)
class Listed:
    """An edge of the page: a row and a column of the graph's matrix; row -1 for a port edge."""

    row: int
    column: int


@dataclass(frozen=True)
class Coming:
    """How one run's edges come and go: with a score's threshold, or along ACDC's trace.

    Attributes:
        strength, port_strength: how much each edge matters: when it enters, or its effect when it was tested.
        entering, replay: the one or the other; neither, where a run has neither scores nor a trace.
        decided: the places in the trace of each tested edge, by name: one for every pass that tested it.
    """

    strength: Floats
    port_strength: Floats
    entering: Entering | None
    replay: Replay | None
    decided: dict[str, list[int]]

    @classmethod
    def of(cls, source: Source) -> Coming:
        circuit, graph = source.circuit, source.circuit.graph
        decided: dict[str, list[int]] = {}
        for at, step in enumerate(source.steps):
            decided.setdefault(step.edge, []).append(at)
        if source.scored:
            assert circuit.scores is not None
            strength = np.abs(circuit.scores) if source.settings.get("absolute") else circuit.scores
            order = entering_nodes(graph, strength) if source.real.whole_nodes else entering(graph, strength)
            return cls(order.edges, order.ports, order, None, decided)
        strength, ports = np.full(graph.edges.shape, -np.inf), np.full(graph.port_edges.shape, -np.inf)
        for step in source.steps:
            row, column = graph.locate(step.edge)
            if row is None:
                ports[column] = step.after - step.before
            else:
                strength[row, column] = step.after - step.before
        again = None
        if source.steps:
            again_of = replay_nodes if source.real.whole_nodes else replay
            again = again_of(circuit, source.steps, source.result["metric_full"], source.shortlist)
        return cls(strength, ports, None, again, decided)


def listed_edges(sources: Sequence[Source], orders: Sequence[Coming]) -> list[Listed]:
    """The edges to send: the circuits', the known ones, and the strongest of all others, in the graph's order."""
    graph = sources[0].circuit.graph
    chosen, chosen_ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    for source, order in zip(sources, orders, strict=True):
        edges, ports = source.circuit.edges, source.circuit.ports
        if source.circuit.n_edges > MOST_IN_CIRCUIT:
            edges, ports = _strongest(edges, ports, order, MOST_IN_CIRCUIT)
        chosen |= edges
        chosen_ports |= ports
        if source.known is not None:
            chosen |= source.known.edges
            chosen_ports |= source.known.ports
    room = MOST_EDGES - int(chosen.sum() + chosen_ports.sum())
    if graph.n_edges <= MOST_EDGES and not all(source.real.whole_nodes for source in sources):
        chosen, chosen_ports = graph.edges.copy(), graph.port_edges.copy()
    elif room > 0:
        for order in orders:
            more, more_ports = _strongest(
                graph.edges & ~chosen, graph.port_edges & ~chosen_ports, order, room // len(orders)
            )
            chosen |= more & np.isfinite(order.strength)
            chosen_ports |= more_ports & np.isfinite(order.port_strength)
    listed = [Listed(int(row), int(column)) for row, column in np.argwhere(chosen)]
    return listed + [Listed(-1, int(column)) for column in np.flatnonzero(chosen_ports)]


def _strongest(edges: Bools, ports: Bools, order: Coming, count: int) -> tuple[Bools, Bools]:
    """The `count` strongest of some edges and port edges."""
    together = np.concatenate(
        [np.where(edges, order.strength, -np.inf).ravel(), np.where(ports, order.port_strength, -np.inf)]
    )
    exists = np.concatenate([edges.ravel(), ports])
    ranking = np.lexsort((-together, ~exists))[:count]
    kept = np.zeros_like(exists)
    kept[ranking] = True
    kept &= exists
    return kept[: edges.size].reshape(edges.shape), kept[edges.size :]


def as_circuit(graph: Graph, listed: Sequence[Listed]) -> Circuit:
    edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    for one in listed:
        if one.row < 0:
            ports[one.column] = True
        else:
            edges[one.row, one.column] = True
    return Circuit(graph, edges, ports)


def has_edge(circuit: Circuit, one: Listed) -> bool:
    return bool(circuit.ports[one.column] if one.row < 0 else circuit.edges[one.row, one.column])


def edge_name(graph: Graph, one: Listed) -> str:
    place = graph.inputs[one.column]
    return f"{place.name}->{place.owner}" if one.row < 0 else f"{graph.sources[one.row].name}->{place.name}"


def number(value: Any, digits: int = 6) -> float | None:
    """A number with as many digits as a page needs; None for what is no finite number, which JSON does not know."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")
