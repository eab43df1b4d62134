"""Circuits of whole nodes: a node is there with all that it writes, or not at all.

Over the ordinary graph of edges: of a present node all edges to later inputs are present, of an absent one none, so
that what it writes is the ablated activation wherever it is read. The graph has no port edges: no head lacks its query,
key or value. Edges into an absent node are as present as their senders are, although nothing reads what comes of them,
unless the heads of a layer are coupled: then they still change what the layer's other heads write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph.by_output import OutputCircuit
from edgewise.graph.circuit import Circuit, Floats
from edgewise.graph.graph import Bools, Graph

Level = Literal["edge", "node", "neuron", "feature"]
"""What circuits are made of: edges, whole nodes, neurons of MLPs, or features of dictionaries (by_neuron.py)."""


def of_nodes(graph: Graph, rows: Bools, scores: Floats | None = None) -> Circuit:
    """The circuit of the senders that are True in `rows` `[sources]`, with a score `[sources]` for each sender.

    Raises:
        EdgewiseError: the graph has port edges.
    """
    every = None if scores is None else np.where(graph.edges, np.asarray(scores)[:, None], 0.0)
    edges = graph.edges & np.asarray(rows, dtype=bool)[:, None]
    return Circuit(graph, edges, np.zeros_like(graph.port_edges), every, whole_nodes=True)


def of_node_names(graph: Graph, names: Iterable[str]) -> Circuit:
    """The circuit of the nodes called `names`, as in `["input", "a5.h5", "m0"]`; `logits`, always there, may be named.

    Raises:
        EdgewiseError: a name is not a node of `graph`, or the graph has port edges.
    """
    rows = np.zeros(len(graph.sources), dtype=bool)
    for name in names:
        if name != "logits":
            rows[locate_node(graph, name)] = True
    return of_nodes(graph, rows)


def locate_node(graph: Graph, name: str) -> int:
    """The row of the sender called `name`.

    Raises:
        EdgewiseError: `name` is not a node's name, this graph has no such node, or it writes nothing.
    """
    row = graph.source_index.get(graph.node(name).name)
    if row is None:
        raise EdgewiseError(f"{quoted(name)} writes nothing that could be removed")
    return row


def node_names(circuit: Circuit) -> list[str]:
    """Names of the senders in a circuit of whole nodes, early to late."""
    return circuit.nodes()[:-1]


def node_scores(circuit: Circuit) -> Floats | None:
    """The score of each sender `[sources]` of a circuit of whole nodes, or None."""
    return None if circuit.scores is None else circuit.scores[:, -1]  # every sender's edge to the logits has it


def complement(circuit: Circuit) -> Circuit:
    """What is left when a circuit is ablated: all other edges; of one of whole nodes all other nodes and the embedding.

    The embedding stays, as without it nothing of the prompt comes in and nothing could be said about the other nodes.
    """
    if not circuit.whole_nodes:
        return ~circuit
    if isinstance(circuit, OutputCircuit):
        outputs = circuit.outputs.copy()
        outputs[: circuit.graph.n_embeddings] = False
        return ~replace(circuit, outputs=outputs)
    rows = ~circuit.rows
    rows[: circuit.graph.n_embeddings] = True
    return of_nodes(circuit.graph, rows, node_scores(circuit))


Circuit.complement = complement


def without_node(circuit: Circuit, name: str) -> Circuit:
    """A circuit of whole nodes without the node called `name`."""
    return circuit - of_node_names(circuit.graph, [name])


def as_shown(circuit: Circuit) -> Circuit:
    """What is to be seen of a circuit: of one of whole nodes the edges between its nodes, of any other all edges."""
    if not circuit.whole_nodes:
        return circuit
    graph, rows = circuit.graph, circuit.rows
    read = np.zeros(len(graph.inputs), dtype=bool)
    read[-1] = True
    for row in np.flatnonzero(rows):
        read[list(graph.inputs_of(graph.sources[row]))] = True
    return replace(circuit, edges=circuit.edges & read[None, :], whole_nodes=False)
