"""Random circuits to hold a circuit against: made of whole paths from the embedding to the logits."""

from __future__ import annotations

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph


def random_path(graph: Graph, generator: np.random.Generator) -> Circuit:
    """One path from an embedding to the logits: a random walk that takes every outgoing edge with the same chance.

    Where the graph has port edges, those on the way are in.
    """
    edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    row = int(generator.integers(graph.n_embeddings))
    while True:
        column = int(generator.choice(np.flatnonzero(graph.edges[row])))
        edges[row, column] = True
        readers = graph.nodes_reading(graph.inputs[column])
        if not readers:
            return Circuit(graph, edges, ports)
        ports[column] = graph.port_edges[column]
        row = int(generator.choice(readers))


def random_circuit(graph: Graph, n_edges: int, seed: int) -> Circuit:
    """Random paths until the circuit has at least `n_edges` edges, port edges counted; all of them lie on a path.

    Raises:
        EdgewiseError: the graph has fewer edges, or `n_edges` is below 0.
    """
    if not 0 <= n_edges <= graph.n_edges:
        raise EdgewiseError(f"a random circuit can have 0 to {graph.n_edges:,} edges, not {n_edges:,}")
    generator = np.random.default_rng(seed)
    circuit = Circuit.empty(graph)
    # Walks hardly ever come by the last edges of a graph; when so many are wanted, leaving some out at random is the
    # same.
    if n_edges > graph.n_edges // 2:
        return _nearly_full(graph, n_edges, generator)
    while circuit.n_edges < n_edges:
        circuit = circuit | random_path(graph, generator)
    return circuit


def _nearly_full(graph: Graph, n_edges: int, generator: np.random.Generator) -> Circuit:
    places = np.argwhere(graph.edges)
    generator.shuffle(places)
    low, high = 0, len(places)
    while low < high:  # the fewest random edges whose connected circuit is large enough
        middle = (low + high) // 2
        if _of(graph, places[:middle]).n_edges >= n_edges:
            high = middle
        else:
            low = middle + 1
    return _of(graph, places[:low])


def _of(graph: Graph, places: np.ndarray) -> Circuit:
    edges = np.zeros_like(graph.edges)
    edges[tuple(places.T)] = True
    return Circuit(graph, edges, graph.port_edges & edges.any(axis=0)).connected()


def inflated(circuit: Circuit, generator: np.random.Generator, tries: int = 1000) -> tuple[Circuit, str] | None:
    """The circuit with one more random path, and the name of one of the edges that this added; None if none can be.

    Port edges count as edges of the path.
    """
    for _ in range(tries):
        larger = circuit | random_path(circuit.graph, generator)
        added = (larger - circuit).names()
        if added:
            return larger, added[int(generator.integers(len(added)))]
    return None
