"""The same circuit in another form of its graph: without port edges, or with a key and a value input per query head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgewise.graph.by_node import as_shown
from edgewise.graph.by_output import OutputCircuit
from edgewise.graph.circuit import Circuit
from edgewise.graph.graph import Graph


def without_ports(circuit: Circuit) -> Circuit:
    """A circuit in the graph without port edges.

    An edge into a query (key, value) whose port edge is absent does nothing, so it goes.
    """
    graph = circuit.graph
    if not graph.ports:
        return circuit
    plain = replace(graph, ports=False)
    edges = circuit.edges & (circuit.ports | ~graph.port_edges)[None, :]
    return Circuit(plain, edges, np.zeros_like(plain.port_edges), circuit.scores)


def ungrouped(circuit: Circuit) -> Circuit:
    """A circuit in the graph that gives every query head a key and a value input of its own.

    An edge into a shared key or value becomes one edge per query head that reads it, with the same score.
    """
    graph = circuit.graph
    if graph.n_kv_heads == graph.n_heads:
        return circuit
    wide = replace(graph, n_kv_heads=graph.n_heads)
    columns = source_columns(graph, wide)
    scores, ports = circuit.scores, circuit.port_scores
    return Circuit(
        wide,
        circuit.edges[:, columns],
        circuit.ports[columns],
        None if scores is None else scores[:, columns],
        None if ports is None else ports[columns],
        circuit.whole_nodes,
    )


def grouped(circuit: Circuit, graph: Graph) -> Circuit:
    """A circuit in `graph`, whose query heads share key and value inputs that the circuit's have each for itself.

    A shared key or value is read by all of its heads, so an edge into any of theirs is one into it. Scores are left
    out.
    """
    wide = replace(graph, n_kv_heads=graph.n_heads, ports=circuit.graph.ports)
    circuit.require_graph(wide)
    edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    for own, column in enumerate(source_columns(graph, wide)):
        edges[:, column] |= circuit.edges[:, own]
        ports[column] |= circuit.ports[own]
    return Circuit(replace(graph, ports=circuit.graph.ports), edges, ports, whole_nodes=circuit.whole_nodes)


def source_columns(graph: Graph, wide: Graph) -> list[int]:
    """For every input of an ungrouped graph, the column of the grouped graph's input that it reads like."""
    columns = []
    for column, place in enumerate(wide.inputs):
        if place.kind in ("k", "v"):
            group = graph.columns(place.kind, place.layer).start + place.head // graph.share * graph.n_spans
            columns.append(group + column % graph.n_spans)
        else:
            columns.append(graph.input_index[place.name])
    return columns


def at_every_span(circuit: Circuit, graph: Graph) -> Circuit:
    """A circuit that does not tell positions apart in `graph`, which does: an edge is present at every span."""
    edges, ports = (one.repeat(graph.n_spans, axis=-1) for one in (circuit.edges, circuit.ports))
    return Circuit(graph, edges, ports)


def lumped(circuit: Circuit) -> Circuit:
    """A circuit in the graph that does not tell positions apart: an edge is present if it is at some span."""
    graph = circuit.graph
    if not graph.spans:
        return circuit
    return Circuit(graph.lumped, graph.at_any_span(circuit.edges), graph.at_any_span(circuit.ports))


def in_one_graph(circuits: Sequence[Circuit]) -> tuple[list[Circuit], str]:
    """Circuits of one model in the graph that they have in common, and what was changed for it in words.

    Port edges go if some have none; shared keys and values are asked once per query head if some do that. Circuits of
    whole nodes beside others are the edges between their nodes.
    """
    every, changes = list(circuits), []
    if any(isinstance(one, OutputCircuit) for one in every):
        every = [one.of_edges() if isinstance(one, OutputCircuit) else one for one in every]
        changes.append("which output dimensions their nodes write is left aside")
    if len({one.whole_nodes for one in every}) > 1:
        every = [as_shown(one) for one in every]
        changes.append("of circuits of whole nodes the edges between their nodes are compared")
    if len({one.graph.ports for one in every}) > 1:
        every = [without_ports(one) for one in every]
        changes.append("port edges are left aside, as some of the circuits have none")
    if len({one.graph.n_kv_heads for one in every}) > 1 and len({one.graph.n_heads for one in every}) == 1:
        every = [ungrouped(one) for one in every]
        changes.append("a shared key or value counts once per query head, as in some of the circuits")
    return every, "; ".join(changes)


def onto(circuit: Circuit, graph: Graph) -> Circuit:
    """A circuit in `graph`, whose port edges and shared keys and values may be otherwise than its own. No scores.

    Where only `graph` has port edges, an input that reads something has its own; where only it has spans, an edge is
    present at all of them.

    Raises:
        EdgewiseError: it is another model's, or its embedding is split otherwise.
    """
    circuit = replace(circuit, scores=None, port_scores=None)
    if graph.spans and not circuit.graph.spans:
        return at_every_span(onto(circuit, graph.lumped), graph)
    if graph.n_heads == circuit.graph.n_heads:
        if circuit.graph.n_kv_heads == graph.n_heads > graph.n_kv_heads:
            circuit = grouped(circuit, graph)
        elif circuit.graph.n_kv_heads < graph.n_heads == graph.n_kv_heads:
            circuit = ungrouped(circuit)
    if circuit.graph.ports and not graph.ports:
        circuit = without_ports(circuit)
    elif graph.ports and not circuit.graph.ports:
        circuit.require_graph(replace(graph, ports=False))
        circuit = Circuit(graph, circuit.edges, graph.port_edges & circuit.edges.any(axis=0))
    return circuit.on(graph)
