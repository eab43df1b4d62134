"""A circuit span by span: what of it is at each, and where attention carries on what keys and values read.

What a query, an MLP or the logits read stays at its span. What a head's key or value reads at one span shows in what
the head writes at others, those that can look there. A graph knows in which order its spans stand, and no more of
where they are: so attention is taken to look at the same span and at earlier ones, and at `rest`, whose positions lie
between the others, from everywhere and the other way about. What would reach nothing so, is taken to reach every span
at which its head is used, as the spans of some prompts stand in another order, and some models look ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgewise.graph.circuit import Circuit, Floats
from edgewise.graph.graph import Graph
from edgewise.graph.names import REST, Input


@dataclass(frozen=True)
class Carried:
    """What attention carries on: from where a key or a value reads to where a head that is made of it is used.

    Attributes:
        reader: what has the key and value: the head, or a key/value head that query heads share, `a3.g1`.
        at: the number of the span where they read.
        node: the head that is used, whose query looks there.
        to: the number of the span where it is used: where something reads what it writes, or its query reads.
        kinds: which of key and value read there; `head` of a whole head.
    """

    reader: str
    at: int
    node: str
    to: int
    kinds: tuple[str, ...]


def at_span(circuit: Circuit, span: int) -> Circuit:
    """The part of a circuit that is at one span, as a circuit over the graph that does not tell positions apart."""
    graph = circuit.graph
    edges, ports = graph.by_span(circuit.edges)[..., span], graph.by_span(circuit.ports)[..., span]
    scores = _floats(graph, circuit.scores, span)
    return Circuit(graph.lumped, edges, ports, scores, _floats(graph, circuit.port_scores, span))


def only_at(circuit: Circuit, span: int) -> Circuit:
    """The part of a circuit that is at one span, over the circuit's own graph."""
    there = np.arange(len(circuit.graph.inputs)) % circuit.graph.n_spans == span
    return replace(circuit, edges=circuit.edges & there, ports=circuit.ports & there)


def _floats(graph: Graph, values: Floats | None, span: int) -> Floats | None:
    return None if values is None else graph.by_span(values)[..., span]


def looks_at(spans: Sequence[str], to: int, at: int) -> bool:
    """Whether positions of span number `to` can look at some of span number `at`, by the order of the spans."""
    return at <= to or REST in (spans[at], spans[to])


def carried(circuit: Circuit) -> list[Carried]:
    """What attention carries on in a circuit, early heads first.

    A head that reads and is used at one span is not listed for that; a shared key/value head is, with its reader.
    Without spans there is nothing to carry on.
    """
    graph = circuit.graph
    if not graph.spans:
        return []
    reading = circuit.edges.any(axis=0) | circuit.ports
    kinds: dict[tuple[str, int], list[str]] = {}
    places: dict[tuple[str, int], Input] = {}
    for column in np.flatnonzero(reading).tolist():
        place = graph.inputs[column]
        if place.kind in ("k", "v", "head"):
            key = (place.owner, column % graph.n_spans)
            kinds.setdefault(key, []).append(place.kind)
            places[key] = place
    found: list[Carried] = []
    rows = {row for place in places.values() for row in graph.nodes_reading(place)}
    used = {row: _used(circuit, row) for row in rows}
    for (reader, at), place in places.items():
        for row in graph.nodes_reading(place):
            to = [span for span in used[row] if looks_at(graph.spans, span, at)] or used[row]
            node = graph.sources[row].name
            found += [Carried(reader, at, node, span, tuple(kinds[reader, at])) for span in to]
    return [one for one in found if (one.reader, one.at) != (one.node, one.to)]


def _used(circuit: Circuit, row: int) -> list[int]:
    """The spans at which something reads what a head writes, or its query reads something."""
    graph = circuit.graph
    there = np.asarray(graph.by_span(circuit.edges[row]).any(axis=0))
    for column in graph.inputs_of(graph.sources[row]):
        if graph.inputs[column].kind == "q" and (circuit.ports[column] or circuit.edges[:, column].any()):
            there[column % graph.n_spans] = True
    return np.flatnonzero(there).tolist()
