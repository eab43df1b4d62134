"""Circuits whose nodes write only some of their output dimensions: what EAP-IG and the MIB benchmark call `neurons`.

There a neuron is no hidden unit of an MLP (by_neuron.py) but one of the d_model numbers that a node, a head or the
embedding as well, writes to the residual stream. An edge that is present carries its sender's own output in those
dimensions that the sender has in the circuit, and the ablated output in all others; an absent edge carries the ablated
output in all of them. (EAP-IG's code, unlike this, lets an edge that it left out between two nodes of the circuit carry
the sender's dimensions all the same; circuits that were chosen by neurons have no such edges.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from edgewise.errors import EdgewiseError, quoted
from edgewise.graph.circuit import Circuit, Floats
from edgewise.graph.graph import Bools, Graph


@dataclass(frozen=True, eq=False, repr=False)
class OutputCircuit(Circuit):
    """A circuit of edges, or of whole nodes, whose nodes write only some output dimensions.

    Attributes:
        outputs: `[sources, d_model]`, which dimensions of each node's output are in the circuit; given nothing, all.
        output_scores: `[sources, d_model]` float64, how much each matters by some method, NaN where it has no score; or
            None.
        inverted: it is everything but this: of present edges the other dimensions, and all of absent ones.
    """

    outputs: Bools = None  # type: ignore[assignment] - filled below
    output_scores: Floats | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = (len(self.graph.sources), self.graph.d_model)
        if not self.graph.d_model or self.graph.spans:
            raise EdgewiseError(
                "output dimensions can be told apart where the width of the residual stream is known, and positions "
                "are not told apart"
            )
        if self.outputs is None:
            object.__setattr__(self, "outputs", np.ones(shape, dtype=bool))
        self._hold("outputs", shape, np.bool_)
        self._hold("output_scores", shape, np.float64)

    def _misfit(self, field: str, wanted: tuple[int, ...], given: tuple[int, ...]) -> str:
        if not field.startswith("output"):
            return super()._misfit(field, wanted, given)
        return (
            f"the circuit has {given[-1]:,} output dimensions for each of {given[0]:,} nodes, and the graph has "
            f"{wanted[1]:,} for each of {wanted[0]:,}"
        )

    @property
    def n_outputs(self) -> int:
        """How many output dimensions of nodes that have an edge are in the circuit."""
        return int(self.outputs[self.rows].sum())

    @property
    def weighted_edges(self) -> float:
        """Edges present, each counted by the share of its sender's dimensions that it carries (as in EAP-IG)."""
        return float((self.edges.sum(axis=1) * self.outputs.mean(axis=1)).sum())

    def __invert__(self) -> Self:
        return replace(self, inverted=not self.inverted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OutputCircuit):
            return False if isinstance(other, Circuit) else NotImplemented
        same = (self.outputs == other.outputs).all() and self.inverted == other.inverted
        return bool(same) and self.of_edges() == other.of_edges()

    def __hash__(self) -> int:
        return hash((super().__hash__(), self.outputs.tobytes(), self.inverted))

    def of_edges(self) -> Circuit:
        """The circuit of the same edges, each with all that its sender writes."""
        return Circuit(self.graph, self.edges, self.ports, self.scores, self.port_scores, self.whole_nodes)


def with_outputs(circuit: Circuit, outputs: Bools, scores: Floats | None = None) -> OutputCircuit:
    """A circuit whose nodes write only the dimensions that are True in `outputs` `[sources, d_model]`.

    Raises:
        EdgewiseError: shapes are others, or the graph does not say how wide the residual stream is.
    """
    parts = (circuit.graph, circuit.edges, circuit.ports, circuit.scores, circuit.port_scores, circuit.whole_nodes)
    return OutputCircuit(*parts, outputs=outputs, output_scores=scores)


def add_outputs(nodes: dict[str, dict[str, Any]], circuit: OutputCircuit) -> None:
    """Say of every node of a file which output dimensions it has, as EAP-IG's code reads it.

    That takes a head's entry for all heads of its layer: `[heads, d_model]`. Scores that are not there cannot be said
    one by one, as JSON has no NaN: a node, or a layer's heads, has all of them or none.

    Raises:
        EdgewiseError: some scores of a node or a layer's heads are there and others are not.
    """
    graph = circuit.graph
    for row, node in enumerate(graph.sources):
        rows = graph.heads_of(node.layer) if node.kind == "head" else row
        nodes[node.name]["neurons"] = circuit.outputs[rows].tolist()
        scores = None if circuit.output_scores is None else circuit.output_scores[rows]
        if scores is None or np.isnan(scores).all():
            continue
        if np.isnan(scores).any():
            raise EdgewiseError(
                f"some output dimensions of {node.name} have no score, which JSON cannot say; write the circuit as .pt"
            )
        nodes[node.name]["neurons_scores"] = scores.tolist()


def read_outputs(circuit: Circuit, nodes: dict[str, Any], what: str) -> Circuit:
    """The circuit with the output dimensions that a file's nodes have, if it says so; a node without has none.

    Raises:
        EdgewiseError: a list is of another length, or holds something else than true and false, or numbers.
    """
    graph = circuit.graph
    given = [key for key in ("neurons", "neurons_scores") if any(key in node for node in nodes.values())]
    if not given:
        return circuit
    if not graph.d_model:
        raise EdgewiseError(f"{what}: its nodes have neurons, and 'cfg' does not say how many ('d_model')")
    shape = (len(graph.sources), graph.d_model)
    outputs = np.full(shape, "neurons" not in given)
    scores = np.full(shape, np.nan)
    for row, node in enumerate(graph.sources):
        entry = nodes.get(node.name, {})
        if "neurons" in entry:
            outputs[row] = _of_node(graph, row, entry["neurons"], bool, f"{what}: 'neurons' of node {node.name!r}")
        if "neurons_scores" in entry:
            where = f"{what}: 'neurons_scores' of node {node.name!r}"
            scores[row] = _of_node(graph, row, entry["neurons_scores"], float, where)
    return with_outputs(circuit, outputs, scores if "neurons_scores" in given else None)


def _of_node(graph: Graph, row: int, listed: Any, kind: type, where: str) -> list[Any]:
    """The values of one node; where a head's entry has those of all heads of its layer, its own."""
    node = graph.sources[row]
    if node.kind == "head" and isinstance(listed, list) and listed and isinstance(listed[0], list):
        listed = listed[node.head] if len(listed) == graph.n_heads else None
    kinds = (bool,) if kind is bool else (int, float)
    if not isinstance(listed, list) or len(listed) != graph.d_model or not all(type(one) in kinds for one in listed):
        values = "true or false" if kind is bool else "numbers"
        raise EdgewiseError(f"{where} should be a list of {graph.d_model:,} {values}, not {quoted(listed)}")
    return listed
