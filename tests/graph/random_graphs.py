"""Small graphs of every shape and circuits on them, for tests that hold for all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from edgewise.graph import Circuit, Graph


@st.composite
def graphs(draw: st.DrawFn, most_layers: int = 3, most_heads: int = 4) -> Graph:
    """With or without MLPs, parallel blocks, shared key/value heads, a split embedding, port edges."""
    n_heads = draw(st.integers(1, most_heads))
    return Graph(
        n_layers=draw(st.integers(1, most_layers)),
        n_heads=n_heads,
        n_kv_heads=draw(st.sampled_from([share for share in range(1, n_heads + 1) if n_heads % share == 0])),
        mlps=draw(st.booleans()),
        parallel=draw(st.booleans()),
        split_embedding=draw(st.booleans()),
        ports=draw(st.booleans()),
        d_model=draw(st.sampled_from([0, 64])),
    )


@st.composite
def circuits_on(draw: st.DrawFn, graph: Graph) -> Circuit:
    """A random circuit on `graph`, from nearly empty to nearly full."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.95]))
    edges = graph.edges & (generator.random(graph.edges.shape) < share)
    ports = graph.port_edges & (generator.random(graph.port_edges.shape) < share)
    return Circuit(graph, edges, ports)


@st.composite
def circuits(draw: st.DrawFn, most_layers: int = 3, most_heads: int = 4) -> Circuit:
    return draw(circuits_on(draw(graphs(most_layers, most_heads))))


@st.composite
def triples(draw: st.DrawFn) -> tuple[Circuit, Circuit, Circuit]:
    """Three circuits on one graph."""
    graph = draw(graphs(2, 3))
    return draw(circuits_on(graph)), draw(circuits_on(graph)), draw(circuits_on(graph))


def scored(circuit: Circuit, seed: int) -> Circuit:
    """With random scores, of both signs, for every edge and port edge."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=circuit.edges.shape) * circuit.graph.edges
    port_scores = generator.normal(size=circuit.ports.shape) * circuit.graph.port_edges
    return circuit.with_scores(scores, port_scores if circuit.graph.ports else None)
