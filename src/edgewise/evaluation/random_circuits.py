"""Random circuits to hold a circuit against: made of whole paths from the embedding to the logits.

Of a circuit of whole nodes: the embedding and random other nodes, as many as it has. Of one of neurons: as many random
neurons.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Graph, NeuronCircuit, node_names, of_neurons, of_node_names, of_nodes
from edgewise.graph.by_node import without_node
from edgewise.graph.graph import Bools


def random_path(graph: Graph, generator: np.random.Generator, within: Circuit | None = None) -> Circuit:
    """One path from an embedding to the logits: a random walk that takes every outgoing edge with the same chance.

    Where the graph has port edges, those on the way are in.

    Args:
        within: the edges to walk on, all of which lie on a path (`Circuit.connected`); by default the graph's.
    """
    edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
    for row, column, port in _walk(Circuit.full(graph) if within is None else within, generator):
        edges[row, column] = True
        ports[column] |= port
    return Circuit(graph, edges, ports)


def _walk(within: Circuit, generator: np.random.Generator) -> Iterator[tuple[int, int, bool]]:
    """A path's edges from an embedding on: row, column, and whether its port edge is on the way."""
    graph, allowed = within.graph, within.edges
    starts = np.flatnonzero(allowed[: graph.n_embeddings].any(axis=1))
    row, seen = int(generator.choice(starts)), slice(None)
    columns = np.arange(len(graph.inputs))
    while True:
        column = int(generator.choice(columns[seen][allowed[row, seen]]))
        seen = graph.seen_through(column)
        readers = [one for one in graph.nodes_moved_by(graph.inputs[column]) if allowed[one, seen].any()]
        yield row, column, bool(readers) and bool(within.ports[column])
        if not readers:
            return
        row = int(generator.choice(readers))


def random_circuit(graph: Graph, n_edges: int, seed: int, within: Circuit | None = None) -> Circuit:
    """Random paths until the circuit has at least `n_edges` edges, port edges counted; all of them lie on a path.

    Args:
        within: take no other edges than these.

    Raises:
        EdgewiseError: the graph, or what of `within` lies on a path, has fewer edges; or `n_edges` is below 0.
    """
    whole = Circuit.full(graph) if within is None else within.connected()
    if not 0 <= n_edges <= whole.n_edges:
        raise EdgewiseError(f"a random circuit can have 0 to {whole.n_edges:,} edges here, not {n_edges:,}")
    generator = np.random.default_rng(seed)
    # Walks hardly ever come by the last edges; when so many are wanted, some are left out at random instead.
    if n_edges > whole.n_edges // 2:
        return _nearly_whole(whole, n_edges, generator)
    edges, ports, count = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges), 0
    while count < n_edges:
        for row, column, port in _walk(whole, generator):
            count += (not edges[row, column]) + (port and not ports[column])
            edges[row, column] = True
            ports[column] |= port
    return Circuit(graph, edges, ports)


def random_like(circuit: Circuit, seed: int, within: Circuit | None = None) -> Circuit:
    """A random circuit of the size of another: of at least as many edges, or of as many whole nodes or neurons.

    Args:
        within: take no other edges, nodes or neurons than these; the embedding is always taken.

    Raises:
        EdgewiseError: there are fewer.
    """
    graph, size = circuit.graph, circuit.size
    if isinstance(circuit, NeuronCircuit):
        return _random_neurons(circuit, seed, within)
    if not circuit.whole_nodes:
        return random_circuit(graph, size, seed, within)
    allowed = np.ones(len(graph.sources), dtype=bool) if within is None else within.rows
    others = np.flatnonzero(allowed[graph.n_embeddings :]) + graph.n_embeddings
    wanted = size - graph.n_embeddings
    if not 0 <= wanted <= len(others):
        raise EdgewiseError(
            f"a random circuit can have {graph.n_embeddings:,} to {graph.n_embeddings + len(others):,} nodes here, not "
            f"{size:,}"
        )
    rows = np.arange(len(graph.sources)) < graph.n_embeddings
    rows[np.random.default_rng(seed).choice(others, size=wanted, replace=False)] = True
    return of_nodes(graph, rows)


def _random_neurons(circuit: NeuronCircuit, seed: int, within: Circuit | None) -> NeuronCircuit:
    allowed = np.flatnonzero((NeuronCircuit.full(circuit.graph) if within is None else within).present)
    if circuit.size > len(allowed):
        raise EdgewiseError(
            f"a random circuit can have 0 to {len(allowed):,} {circuit.unit} here, not {circuit.size:,}"
        )
    neurons = np.zeros(circuit.neurons.size, dtype=bool)
    neurons[np.random.default_rng(seed).choice(allowed, size=circuit.size, replace=False)] = True
    return of_neurons(circuit.graph, neurons.reshape(circuit.neurons.shape))


def parts_of(circuit: Circuit) -> list[str]:
    """The names of what a circuit is made of: its edges, its nodes or its neurons."""
    return node_names(circuit) if circuit.whole_nodes else circuit.names()


def chosen_of(circuit: Circuit) -> Bools:
    """What is in a circuit, as one row to count or compare: `Circuit.present`, of whole nodes `[sources]`."""
    return circuit.rows if circuit.whole_nodes else circuit.present


def without_part(circuit: Circuit, name: str) -> Circuit:
    """A circuit without one of its edges, nodes or neurons."""
    return without_node(circuit, name) if circuit.whole_nodes else circuit.remove(name)


def _nearly_whole(whole: Circuit, n_edges: int, generator: np.random.Generator) -> Circuit:
    places = np.argwhere(whole.edges)
    generator.shuffle(places)
    low, high = 0, len(places)
    while low < high:  # the fewest random edges whose connected circuit is large enough
        middle = (low + high) // 2
        if _of(whole, places[:middle]).n_edges >= n_edges:
            high = middle
        else:
            low = middle + 1
    return _of(whole, places[:low])


def _of(whole: Circuit, places: np.ndarray) -> Circuit:
    edges = np.zeros_like(whole.graph.edges)
    edges[tuple(places.T)] = True
    return Circuit(whole.graph, edges, whole.ports & edges.any(axis=0)).connected()


def inflated(circuit: Circuit, generator: np.random.Generator, tries: int = 1000) -> tuple[Circuit, str] | None:
    """The circuit with one more random path, and the name of one of the edges that this added; None if none can be.

    Port edges count as edges of the path. A circuit of whole nodes gets one more node, one of neurons one more neuron.
    """
    if isinstance(circuit, NeuronCircuit):
        others = np.argwhere((~circuit).neurons)
        if not len(others):
            return None
        name = circuit.graph.unit_name(*others[int(generator.integers(len(others)))].tolist())
        return circuit.add(name), name
    if circuit.whole_nodes:
        absent = np.flatnonzero(~circuit.rows)
        if not len(absent):
            return None
        name = circuit.graph.sources[int(generator.choice(absent))].name
        return circuit | of_node_names(circuit.graph, [name]), name
    for _ in range(tries):
        larger = circuit | random_path(circuit.graph, generator)
        added = (larger - circuit).names()
        if added:
            return larger, added[int(generator.integers(len(added)))]
    return None
