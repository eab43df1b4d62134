"""Circuits: sets of edges of one graph, with or without a score for each edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgewise.attached import attach
from edgewise.errors import EdgewiseError
from edgewise.graph.graph import Bools, Graph
from edgewise.graph.names import Edge, Input, InputKind, Node, PortEdge

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of edges of `graph`, and optionally a score for every edge.

    Two circuits are equal when they have the same graph shape and the same edges; scores do not count.

    Attributes:
        graph: the graph whose edges these are.
        edges: `[sources, inputs]`, which edges are present.
        ports: `[inputs]`, which port edges are present; all False in a graph without port edges.
        scores: `[sources, inputs]` float64, how much each edge matters by some method, or None.
        port_scores: `[inputs]` float64, the same for port edges, or None.
        whole_nodes: nodes were chosen, not edges: of each sender all edges are present or none (`graph.by_node`).
    """

    graph: Graph
    edges: Bools
    ports: Bools
    scores: Floats | None = None
    port_scores: Floats | None = None
    whole_nodes: bool = False
    draw: ClassVar[Callable[..., str]]
    _repr_svg_: ClassVar[Callable[..., str | None]]
    """`circuit.draw("circuit.svg")` draws it, as notebooks do: `edgewise.reports.draw`, set where that is defined."""
    complement: ClassVar[Callable[..., Circuit]]
    """What is left when it is ablated: `edgewise.graph.complement`, set where that is defined."""
    applied: ClassVar[Callable[..., AbstractContextManager[Any]]]
    """`with circuit.applied(model): model.generate(...)`: `edgewise.patching.applied`, set where that is defined."""
    _repr_html_: ClassVar[Callable[..., str | None]]

    def __post_init__(self) -> None:
        shape = (len(self.graph.sources), len(self.graph.inputs))
        self._hold("edges", shape, np.bool_)
        self._hold("ports", shape[1:], np.bool_)
        self._hold("scores", shape, np.float64)
        self._hold("port_scores", shape[1:], np.float64)
        for present, exists in ((self.edges, self.graph.edges), (self.ports, self.graph.port_edges)):
            if (present & ~exists).any():
                raise EdgewiseError("a circuit cannot hold edges that its graph does not have")
        if self.whole_nodes and (self.graph.ports or (self.edges != (self.graph.edges & self.rows[:, None])).any()):
            raise EdgewiseError(
                "a circuit of whole nodes has all edges of a sender or none, over a graph without port edges"
            )

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def full(cls, graph: Graph) -> Circuit:
        """Every edge present: the model itself."""
        return cls(graph, graph.edges, graph.port_edges)

    @classmethod
    def empty(cls, graph: Graph) -> Circuit:
        """No edge present: the ablated run."""
        return cls(graph, np.zeros_like(graph.edges), np.zeros_like(graph.port_edges))

    @classmethod
    def from_names(cls, graph: Graph, names: Iterable[str]) -> Circuit:
        """The circuit of the edges called `names`, as in `["a0.h1->a5.h5<q>", "a5.h5<q>->a5.h5"]`.

        Raises:
            EdgewiseError: a name is not an edge of `graph`.
        """
        edges, ports = np.zeros_like(graph.edges), np.zeros_like(graph.port_edges)
        for name in names:
            row, column = graph.locate(name)
            if row is None:
                ports[column] = True
            else:
                edges[row, column] = True
        return cls(graph, edges, ports)

    def with_scores(self, scores: Floats, port_scores: Floats | None = None) -> Circuit:
        """The same edges with a score for each."""
        return replace(self, scores=scores, port_scores=port_scores)

    # -- asking ------------------------------------------------------------------------------------------------------

    @property
    def n_edges(self) -> int:
        """Edges present, port edges included (the count that the ACDC paper reports)."""
        return int(self.edges.sum() + self.ports.sum())

    @cached_property
    def n_edges_connected(self) -> int:
        """Edges present that lie on a path from the embedding to the logits."""
        return self.connected().n_edges

    @property
    def rows(self) -> Bools:
        """`[sources]`, which senders have an edge that is present."""
        return np.asarray(self.edges.any(axis=1))

    @property
    def size(self) -> int:
        """How much was chosen: nodes of a circuit of whole nodes, edges of any other."""
        return int(self.rows.sum()) if self.whole_nodes else self.n_edges

    @property
    def most(self) -> int:
        """The size of the whole graph, counted likewise."""
        return len(self.graph.sources) if self.whole_nodes else self.graph.n_edges

    @property
    def unit(self) -> str:
        """What `size` counts: `nodes` or `edges`."""
        return "nodes" if self.whole_nodes else "edges"

    @property
    def present(self) -> Bools:
        """Edges and ports as one row `[sources * inputs + inputs]`, to count or compare."""
        return np.concatenate([self.edges.ravel(), self.ports])

    def _hold(self, field: str, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Keep an array that was given, if one was, as a copy of this shape that nobody can write to.

        Raises:
            EdgewiseError: it has another shape.
        """
        value = getattr(self, field)
        if value is None:
            return
        array = np.array(value, dtype=dtype)
        if array.shape != shape:
            raise EdgewiseError(self._misfit(field, shape, array.shape))
        array.setflags(write=False)
        object.__setattr__(self, field, array)

    def _misfit(self, field: str, wanted: tuple[int, ...], given: tuple[int, ...]) -> str:
        return f"{field} should have shape {wanted} for {self.graph.describe()}, not {given}"

    def names(self) -> list[str]:
        """Names of the edges present, source by source, port edges last."""
        return self.graph.names(self.edges, self.ports)

    def __contains__(self, name: str) -> bool:
        row, column = self.graph.locate(name)
        return bool(self.ports[column] if row is None else self.edges[row, column])

    def __len__(self) -> int:
        return self.n_edges

    def __bool__(self) -> bool:
        return self.n_edges > 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return (
            self.graph.shape == other.graph.shape
            and np.array_equal(self.edges, other.edges)
            and np.array_equal(self.ports, other.ports)
        )

    def __hash__(self) -> int:
        return hash((self.graph.shape, self.edges.tobytes(), self.ports.tobytes()))

    def __repr__(self) -> str:
        return f"Circuit({self.size:,} of {self.most:,} {self.unit}; {self.graph.describe()})"

    def nodes(self) -> list[str]:
        """Names of the nodes that touch a present edge, early to late, `logits` last; of whole nodes, those chosen."""
        if self.whole_nodes:
            chosen = [node.name for node, there in zip(self.graph.sources, self.rows, strict=True) if there]
            return [*chosen, "logits"] if chosen else []
        reading = self.edges.any(axis=0) | self.ports
        touched = [
            node.name
            for row, node in enumerate(self.graph.sources)
            if self.edges[row].any() or any(reading[column] for column in self._own_inputs(node))
        ]
        return touched + (["logits"] if reading[self.graph.columns("logits")].any() else [])

    def _own_inputs(self, node: Node) -> list[int]:
        """Columns that say `node` is present. A shared key or value alone says so of no particular query head."""
        return [column for column in self.graph.inputs_of(node) if not self.graph.inputs[column].shared]

    def edges_into(self, place: Input) -> list[Edge]:
        """Edges present into `place`, early senders first."""
        column = self.graph.input_index[place.name]
        return [Edge(self.graph.sources[row], place) for row in np.flatnonzero(self.edges[:, column])]

    # -- changing ----------------------------------------------------------------------------------------------------

    def _with(self, edges: Bools, ports: Bools, *, whole_nodes: bool = False) -> Circuit:
        return replace(self, edges=edges, ports=ports, whole_nodes=whole_nodes)

    def _both(self, other: Circuit, edges: Bools, ports: Bools) -> Circuit:
        return self._with(edges, ports, whole_nodes=self.whole_nodes and other.whole_nodes)

    def __or__(self, other: Circuit) -> Circuit:
        self.require_graph(other.graph)
        return self._both(other, self.edges | other.edges, self.ports | other.ports)

    def __and__(self, other: Circuit) -> Circuit:
        self.require_graph(other.graph)
        return self._both(other, self.edges & other.edges, self.ports & other.ports)

    def __sub__(self, other: Circuit) -> Circuit:
        self.require_graph(other.graph)
        return self._both(other, self.edges & ~other.edges, self.ports & ~other.ports)

    def __xor__(self, other: Circuit) -> Circuit:
        self.require_graph(other.graph)
        return self._both(other, self.edges ^ other.edges, self.ports ^ other.ports)

    def __invert__(self) -> Circuit:
        edges, ports = self.graph.edges & ~self.edges, self.graph.port_edges & ~self.ports
        return self._with(edges, ports, whole_nodes=self.whole_nodes)

    def __le__(self, other: Circuit) -> bool:
        self.require_graph(other.graph)
        return not ((self.edges & ~other.edges).any() or (self.ports & ~other.ports).any())

    def add(self, *names: str) -> Circuit:
        """This circuit and the edges called `names`."""
        return self | Circuit.from_names(self.graph, names)

    def remove(self, *names: str) -> Circuit:
        """This circuit without the edges called `names`."""
        return self - Circuit.from_names(self.graph, names)

    def connected(self) -> Circuit:
        """Without the edges that lie on no path from the embedding to the logits.

        Where the graph has port edges, a path enters a head through a port edge that is present; it leaves a shared
        key or value through any of the query heads that read it, and any input of a layer whose heads are coupled
        through all of them.
        """
        graph, spans = self.graph, self.graph.n_spans
        present = graph.by_span(self.edges)
        open_ports = graph.by_span(self.ports | ~graph.port_edges)
        layers = range(graph.n_layers)
        reached = np.zeros((len(graph.sources), spans), dtype=bool)
        reached[: graph.n_embeddings] = True
        needed = np.zeros((len(open_ports), spans), dtype=bool)
        needed[-1] = True

        def inputs(kind: InputKind, layer: int) -> slice:
            columns = graph.columns(kind, layer)
            return slice(columns.start // spans, columns.stop // spans)

        def everywhere(at: Bools, kind: InputKind) -> Bools:
            """What holds of some heads at some positions, of all that a change there moves."""
            at = np.broadcast_to(at.any(axis=0, keepdims=True), at.shape) if graph.coupled else at
            return at if kind == "q" else np.broadcast_to(at.any(axis=1, keepdims=True), at.shape)

        for layer in layers:
            for kind in graph.head_kinds:
                at = inputs(kind, layer)
                found = (present[:, at] & reached[:, None]).any(axis=0) & open_ports[at]
                reached[graph.heads_of(layer)] |= everywhere(found, kind).repeat(graph.n_heads // len(found), axis=0)
            if graph.mlps:
                at, row = inputs("mlp", layer), graph.source_index[f"m{layer}"]
                reached[row] = (present[:, at.start] & reached).any(axis=0)
        for layer in reversed(layers):
            if graph.mlps:
                at, row = inputs("mlp", layer), graph.source_index[f"m{layer}"]
                needed[at.start] = (present[row] & needed).any(axis=0)
            read: Bools = np.asarray((present[graph.heads_of(layer)] & needed).any(axis=1))
            for kind in graph.head_kinds:
                at = inputs(kind, layer)
                by_input = everywhere(read, kind).reshape(at.stop - at.start, -1, spans).any(axis=1)
                needed[at] = by_input & open_ports[at]

        edges = (present & reached[:, None] & needed).reshape(self.edges.shape)
        return self._with(edges, self.ports & edges.any(axis=0))

    def require_graph(self, graph: Graph) -> None:
        """Raise an EdgewiseError unless this circuit is over a graph of the same shape."""
        if self.graph.shape != graph.shape:
            raise EdgewiseError(
                f"the circuit is over another graph: {self.graph.describe()}, where {graph.describe()} is wanted"
            )

    def on(self, graph: Graph) -> Circuit:
        """The same edges over a model's own graph, which says what this one may not: its width, and coupled heads.

        Raises:
            EdgewiseError: a graph of another shape.
        """
        self.require_graph(graph)
        return self if self.graph == graph else replace(self, graph=graph)

    def port_names(self) -> list[str]:
        """Names of the port edges present."""
        return [PortEdge(self.graph.inputs[column]).name for column in np.flatnonzero(self.ports)]


attach(Circuit, "edgewise.reports.drawing", "draw", "_repr_svg_")
attach(Circuit, "edgewise.reports.notebook", "_repr_html_")
attach(Circuit, "edgewise.graph.by_node", "complement")
attach(Circuit, "edgewise.patching.applied", "applied")
