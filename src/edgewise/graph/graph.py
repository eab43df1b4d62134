"""What there is to find: the computational graph of a decoder.

Everything about a graph follows from its shape, so a `Graph` is a small frozen record; its edges are one boolean
matrix `[sources, inputs]`, rows and columns in the order of EAP-IG and the MIB benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import EdgewiseError, near_matches, quoted
from edgewise.graph.names import (
    Input,
    InputKind,
    Node,
    PortEdge,
    Unit,
    check_span,
    parse_edge,
    parse_input,
    parse_node,
    parse_unit,
)

Bools = NDArray[np.bool_]
Value = TypeVar("Value", bound=np.generic)

MOST_PLACES = 2**30
"""Entries of a matrix of edges: those of a decoder of 126 layers of 128 heads, each with its own key and value."""


@dataclass(frozen=True)
class Graph:
    """The graph of a decoder with `n_layers` layers of `n_heads` query heads.

    Attributes:
        n_layers, n_heads: the model's shape.
        n_kv_heads: key and value inputs per layer. Fewer than `n_heads` where query heads share a key/value head
            (grouped-query attention): such a head has one key input and one value input, because that is what the
            model computes. Equal to `n_heads` otherwise, or to compare with tools that give every query head its own.
        mlps: whether layers have an MLP.
        parallel: attention and MLP of a layer read the same residual stream: heads do not feed their own layer's MLP.
        split_embedding: the embedding is two nodes, `tok` and `pos`, instead of one, `input`.
        ports: whether port edges are part of the graph (the ACDC paper's graph has them, EAP-IG's has not).
        whole_heads: a head reads through one input, from which its query, key and value are all made; each query head
            through its own, also where the model shares keys and values.
        spans: names of groups of positions, from early to late in the prompts, if an edge may be present at some and
            absent at others: every input is then one per span. Empty where positions are not told apart.
        neurons: hidden units of each MLP, if circuits choose among them (by_neuron.py); 0 where MLPs are whole. Of a
            graph of features, the most units of a layer: its features, and one for what they do not explain.
        features: features of each layer's dictionary, 0 in a layer without one, if circuits choose among them; empty
            where there are no dictionaries.
        stream_features: the dictionaries are of the residual stream behind each layer, not of what its MLP writes.
        coupled: heads of a layer share a scale, so that what one of them reads changes what all of them write.
        d_model: width of the residual stream; only written to files, 0 where it is not known.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int = 0
    mlps: bool = True
    parallel: bool = False
    split_embedding: bool = False
    ports: bool = False
    coupled: bool = False
    d_model: int = 0
    whole_heads: bool = False
    spans: tuple[str, ...] = ()
    neurons: int = 0
    features: tuple[int, ...] = ()
    stream_features: bool = False

    def __post_init__(self) -> None:
        if self.n_kv_heads == 0:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        object.__setattr__(self, "spans", tuple(self.spans))  # files have lists
        object.__setattr__(self, "features", tuple(self.features))
        if self.n_layers < 1 or self.n_heads < 1 or self.n_kv_heads < 1:
            raise EdgewiseError(f"a graph needs at least one layer and one head, not {self.describe()}")
        if self.n_heads % self.n_kv_heads:
            raise EdgewiseError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key/value heads evenly")
        if self.d_model < 0:
            raise EdgewiseError(f"the width of a residual stream is 0 or more, not {self.d_model}")
        if self.neurons < 0 or self.n_layers * self.neurons > (MOST_PLACES if self.mlps else 0):
            raise EdgewiseError(f"{self.neurons:,} neurons in each MLP are no neurons of {self.n_layers} layers here")
        if self.features and (
            len(self.features) != self.n_layers or min(self.features) < 0 or max(self.features) + 1 != self.neurons
        ):
            raise EdgewiseError(
                f"the features of {self.n_layers} layers are a number for each, one less at most than the units of a "
                f"layer ({self.neurons:,}), not {quoted(list(self.features))}"
            )
        if self.stream_features and not self.features:
            raise EdgewiseError("a graph without features has none of the residual stream")
        if self.whole_heads and (self.ports or self.n_kv_heads != self.n_heads):
            raise EdgewiseError(
                "where heads are whole, each reads through one input of its own: there are no port edges, and no "
                "shared keys and values"
            )
        if len(set(self.spans)) < len(self.spans):
            raise EdgewiseError(f"two spans have one name: {', '.join(self.spans)}")
        for span in self.spans:
            check_span(span)
        rows = self.n_embeddings + self.n_layers * (self.n_heads + self.mlps)
        columns = (1 + self.n_layers * self._inputs_per_layer) * self.n_spans
        if rows * columns > MOST_PLACES:
            raise EdgewiseError(
                f"a graph of {self.describe()} has more senders and inputs than fit into memory: more than "
                f"{MOST_PLACES:,} pairs of them"
            )

    # -- nodes and inputs, in matrix order ---------------------------------------------------------------------------

    @cached_property
    def sources(self) -> tuple[Node, ...]:
        """The nodes that write, from early to late: row order of the edge matrix."""
        nodes = [Node("tok"), Node("pos")] if self.split_embedding else [Node("input")]
        for layer in range(self.n_layers):
            nodes += [Node("head", layer, head) for head in range(self.n_heads)]
            nodes += [Node("mlp", layer)] if self.mlps else []
        return tuple(nodes)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The places that read, from early to late: column order of the edge matrix (all q, all k, all v, MLP).

        Of each the spans, where there are any, stand side by side: column `number * n_spans + span`.
        """
        shared = self.n_kv_heads < self.n_heads
        places: list[Input] = []
        for layer in range(self.n_layers):
            for kind in self.head_kinds:
                groups = shared and kind in ("k", "v")
                places += [Input(kind, layer, head, groups) for head in range(self.n_inputs(kind))]
            places += [Input("mlp", layer)] if self.mlps else []
        places.append(Input("logits"))
        return tuple(replace(place, span=span) for place in places for span in self.spans or ("",))

    @cached_property
    def source_index(self) -> dict[str, int]:
        return {node.name: index for index, node in enumerate(self.sources)}

    @cached_property
    def input_index(self) -> dict[str, int]:
        return {place.name: index for index, place in enumerate(self.inputs)}

    @property
    def n_neurons(self) -> int:
        """All neurons that circuits choose among: hidden units of all MLPs; or all features, errors counted."""
        return int(self.units.sum())

    @cached_property
    def units(self) -> Bools:
        """`[layers, neurons]`, which places of a circuit of neurons, or of features, stand for one."""
        if not self.features:
            return np.ones((self.n_layers, self.neurons), dtype=bool)
        counts = np.array(self.features)
        return np.arange(self.neurons) < np.where(counts > 0, counts + 1, 0)[:, None]

    def unit_name(self, layer: int, number: int) -> str:
        """The name of a neuron, or of a feature, behind which a layer's error stands."""
        if not self.features:
            return Unit("neuron", layer, number).name
        if number == self.features[layer]:
            return Unit("error", layer, stream=self.stream_features).name
        return Unit("feature", layer, number, self.stream_features).name

    def units_name(self, layer: int) -> str:
        """What stands before the dot in the names of a layer's units: `m3`, or `r3` of the residual stream."""
        return self.unit_name(layer, 0).partition(".")[0]

    def locate_unit(self, name: str) -> tuple[int, int]:
        """Layer and number of the neuron or feature called `name`.

        Raises:
            EdgewiseError: `name` is no such name, or this graph has no such unit.
        """
        unit = parse_unit(name)
        layer, number = unit.layer, unit.number
        if layer < self.n_layers and unit.kind == "error" and self.features:
            number = self.features[layer]
        there = layer < self.n_layers and 0 <= number < self.neurons and bool(self.units[layer, number])
        if not there or self.unit_name(layer, number) != name:
            raise EdgewiseError(f"this graph ({self.describe()}) has no {unit.kind} {quoted(name)}")
        return layer, number

    @property
    def n_embeddings(self) -> int:
        return 2 if self.split_embedding else 1

    @property
    def n_spans(self) -> int:
        """Columns per input: 1 where positions are not told apart."""
        return len(self.spans) or 1

    @property
    def head_kinds(self) -> tuple[InputKind, ...]:
        """The kinds of input that a head reads through."""
        return ("head",) if self.whole_heads else ("q", "k", "v")

    def n_inputs(self, kind: InputKind) -> int:
        """How many inputs of a kind a layer has, spans not counted; of `logits`, how many there are at all."""
        if kind in self.head_kinds:
            return self.n_kv_heads if kind in ("k", "v") else self.n_heads
        return int(kind == "logits" or (kind == "mlp" and self.mlps))

    @property
    def _inputs_per_layer(self) -> int:
        return sum(self.n_inputs(kind) for kind in (*self.head_kinds, "mlp"))

    def n_senders(self, place: Input) -> int:
        """How many nodes come before `place`. They are the first ones of `sources`, so this is all of them."""
        per_layer = self.n_heads + self.mlps
        if place.kind == "logits":
            return len(self.sources)
        own_layer = self.n_heads if place.kind == "mlp" and not self.parallel else 0
        return self.n_embeddings + place.layer * per_layer + own_layer

    def inputs_of(self, node: Node) -> tuple[int, ...]:
        """The columns that `node` reads: a head's q, k and v, an MLP's one, `logits`, none for an embedding."""
        if node.kind == "head":
            numbers = {"k": node.head // self.share, "v": node.head // self.share}
            return tuple(
                column
                for kind in self.head_kinds
                for column in self._spans_of(self.columns(kind, node.layer).start, numbers.get(kind, node.head))
            )
        if node.kind == "mlp" or node.kind == "logits":
            return tuple(self._spans_of(self.columns(node.kind, node.layer).start, 0))
        return ()

    def _spans_of(self, first: int, number: int) -> range:
        start = first + number * self.n_spans
        return range(start, start + self.n_spans)

    def nodes_reading(self, place: Input) -> tuple[int, ...]:
        """The rows whose node reads `place`: one, or all query heads that share a key/value head; none for `logits`."""
        if place.kind == "logits":
            return ()
        first = self.n_embeddings + place.layer * (self.n_heads + self.mlps)
        if place.kind == "mlp":
            return (first + self.n_heads,)
        share = self.share if place.kind in ("k", "v") else 1
        return tuple(range(first + place.head * share, first + (place.head + 1) * share))

    def nodes_moved_by(self, place: Input) -> tuple[int, ...]:
        """The rows whose node writes something else when `place` reads something else: all of its layer if coupled."""
        if not self.coupled or place.kind not in self.head_kinds:
            return self.nodes_reading(place)
        heads = self.heads_of(place.layer)
        return tuple(range(heads.start, heads.stop))

    def inputs_moving(self, node: Node) -> tuple[int, ...]:
        """The columns that change what `node` writes: its own, or all of its layer's heads where they are coupled."""
        if node.kind != "head" or not self.coupled:
            return self.inputs_of(node)
        slices = [self.columns(kind, node.layer) for kind in self.head_kinds]
        return tuple(column for one in slices for column in range(one.start, one.stop))

    def seen_through(self, column: int) -> slice:
        """The columns at which it can show that `column` reads something else, as far as spans go.

        What queries, MLPs and the logits read shows at the same positions; keys and values are seen from others too.
        """
        if self.inputs[column].kind in ("k", "v", "head"):
            return slice(None)
        return slice(column % self.n_spans, None, self.n_spans)

    def shows(self, edges: Bools, column: int) -> bool:
        """Whether what an input reads can show in what some edges carry; always at the logits."""
        rows = list(self.nodes_moved_by(self.inputs[column]))
        return self.inputs[column].kind == "logits" or bool(edges[rows][:, self.seen_through(column)].any())

    # -- edges -------------------------------------------------------------------------------------------------------

    @cached_property
    def edges(self) -> Bools:
        """Which edges exist, `[sources, inputs]`."""
        counts = np.array([self.n_senders(place) for place in self.inputs])
        matrix = np.arange(len(self.sources))[:, None] < counts[None, :]
        matrix.setflags(write=False)
        return matrix

    @cached_property
    def port_edges(self) -> Bools:
        """Which port edges exist, `[inputs]`: one per attention input, or none at all."""
        row = np.array([self.ports and place.kind in self.head_kinds for place in self.inputs])
        row.setflags(write=False)
        return row

    @cached_property
    def n_edges(self) -> int:
        """All edges, port edges included. From the shape alone: nothing of the graph's size is made for it."""
        per_layer = self.n_heads + self.mlps
        earlier = self.n_layers * self.n_embeddings + per_layer * (self.n_layers * (self.n_layers - 1) // 2)
        own = 0 if self.parallel else self.n_layers * self.mlps * self.n_heads
        into_logits = self.n_embeddings + self.n_layers * per_layer
        ports = self.ports * self.n_layers * (self._inputs_per_layer - self.mlps)
        return self.n_spans * (self._inputs_per_layer * earlier + own + into_logits + ports)

    def columns_of_layer(self, layer: int) -> list[int]:
        """A layer's columns as EAP-IG lists them: head by head with q, k, v together, then the MLP.

        With shared key/value heads, a group's k and v follow the query of its first head.
        """
        columns: list[int] = []
        for head in range(self.n_heads):
            own = self.inputs_of(Node("head", layer, head))
            columns += own[: self.n_spans] if head % self.share else own
        return columns + ([*self.inputs_of(Node("mlp", layer))] if self.mlps else [])

    @cached_property
    def _order_of_names(self) -> NDArray[np.int64]:
        """`[2, inputs]`: in which block of names an input stands, and at which place in it."""
        blocks: list[list[int]] = []
        for layer in range(self.n_layers):
            columns = self.columns_of_layer(layer)
            mlp = len(columns) - self.n_spans
            blocks += [columns] if self.parallel or not self.mlps else [columns[:mlp], columns[mlp:]]
        order = np.zeros((2, len(self.inputs)), dtype=np.int64)
        for number, columns in enumerate((*blocks, [*self.inputs_of(Node("logits"))])):
            order[0, columns], order[1, columns] = number, np.arange(len(columns))
        return order

    def in_name_order(self, edges: Bools) -> tuple[list[int], list[int]]:
        """Rows and columns of the edges that are True, in the order of EAP-IG's files.

        Layer by layer, all senders of the layer's heads one after another, then all of its MLP (together where the two
        are parallel); the logits last.
        """
        rows, columns = np.nonzero(edges)
        block, place = self._order_of_names[:, columns]
        order = np.lexsort((place, rows, block))
        return rows[order].tolist(), columns[order].tolist()

    def names(self, edges: Bools | None = None, ports: Bools | None = None) -> list[str]:
        """Names of the edges that are True (by default all of the graph's), in EAP-IG's order; port edges last."""
        chosen_ports = self.port_edges if edges is None and ports is None else ports
        rows, columns = self.in_name_order(self.edges if edges is None else edges)
        senders, places = tuple(self.source_index), tuple(self.input_index)
        names = [f"{senders[row]}->{places[column]}" for row, column in zip(rows, columns, strict=True)]
        if chosen_ports is not None:
            columns = np.flatnonzero(chosen_ports)
            block, place = self._order_of_names[:, columns]
            names += [PortEdge(self.inputs[column]).name for column in columns[np.lexsort((place, block))]]
        return names

    def locate(self, name: str) -> tuple[int | None, int]:
        """Row and column of the edge called `name`; row None for a port edge.

        Raises:
            EdgewiseError: `name` is not an edge's name, or this graph has no such edge.
        """
        edge = parse_edge(name)
        column = self._column(edge.target)
        if isinstance(edge, PortEdge):
            if not self.port_edges[column]:
                raise EdgewiseError(f"{name!r} is a port edge, and this graph ({self.describe()}) has none")
            return None, column
        row = self.source_index.get(edge.source.name)
        if row is None:
            known = near_matches(edge.source.name, self.source_index)
            raise EdgewiseError(f"this graph ({self.describe()}) has no sending node {quoted(edge.source.name)}{known}")
        if not self.edges[row, column]:
            raise EdgewiseError(
                f"there is no edge {name!r}: {edge.source.name} does not come before {edge.target.name}"
            )
        return row, column

    def node(self, name: str) -> Node:
        """The node called `name`, which must be one of this graph's."""
        node = parse_node(name)
        if node.kind != "logits" and name not in self.source_index:
            raise EdgewiseError(f"this graph ({self.describe()}) has no node {quoted(name)}")
        return node

    def input(self, name: str) -> Input:
        """The input called `name`, which must be one of this graph's."""
        return self.inputs[self._column(parse_input(name))]

    def _column(self, place: Input) -> int:
        """The column of an input that was asked for by name."""
        column = self.input_index.get(place.name)
        if column is not None:
            return column
        if place.kind == "head" and not self.whole_heads:
            name, at = place.owner, f"@{place.span}" if place.span else ""
            ways = [f"'{name}<{kind}>{at}'" for kind in self.head_kinds]
            raise EdgewiseError(f"{quoted(name)} reads in three places; say which: {ways[0]}, {ways[1]} or {ways[2]}")
        if self.spans and not place.span:
            raise EdgewiseError(
                f"{quoted(place.name)} is split by position here; say where, as in '{place.name}@{self.spans[-1]}' "
                f"(there are {', '.join(self.spans)})"
            )
        known = near_matches(place.name, self.input_index)
        raise EdgewiseError(f"this graph ({self.describe()}) has no input {quoted(place.name)}{known}")

    def columns(self, kind: InputKind, layer: int = -1) -> slice:
        """The columns of all inputs of one kind in one layer, side by side; `logits` has no layer."""
        if kind == "logits":
            return slice(len(self.inputs) - self.n_spans, len(self.inputs))
        first = layer * self._inputs_per_layer
        for other in (*self.head_kinds, "mlp"):
            if other == kind:
                break
            first += self.n_inputs(other)
        return slice(first * self.n_spans, (first + self.n_inputs(kind)) * self.n_spans)

    def heads_of(self, layer: int) -> slice:
        """The rows of one layer's heads, side by side."""
        first = self.n_embeddings + layer * (self.n_heads + self.mlps)
        return slice(first, first + self.n_heads)

    @cached_property
    def lumped(self) -> Graph:
        """The graph that does not tell positions apart. Its columns are these, `n_spans` at a time (see `by_span`)."""
        return replace(self, spans=())

    def by_span(self, values: NDArray[Value]) -> NDArray[Value]:
        """Values of all inputs, `[..., inputs]`, by input of the lumped graph and by span, `[..., inputs, spans]`."""
        return values.reshape(*values.shape[:-1], -1, self.n_spans)

    def at_any_span(self, present: Bools) -> Bools:
        """Of what is present at some inputs, `[..., inputs]`, what is at any span, `[..., lumped inputs]`."""
        return np.asarray(self.by_span(present).any(axis=-1))

    @cached_property
    def shape(self) -> Graph:
        """What makes two graphs have the same edges: everything but the width and the coupling of heads."""
        return replace(self, d_model=0, coupled=False)

    @property
    def share(self) -> int:
        """How many query heads share a key/value head."""
        return self.n_heads // self.n_kv_heads

    def describe(self) -> str:
        """The shape in words: `12 layers of 12 heads, with port edges`."""
        words = f"{self.n_layers} layer{'s' * (self.n_layers != 1)} of {self.n_heads} head{'s' * (self.n_heads != 1)}"
        if self.n_kv_heads < self.n_heads:
            words += f" over {self.n_kv_heads} key/value heads"
        words += ", whole heads" if self.whole_heads else ""
        words += "" if self.mlps else ", no MLPs"
        words += ", parallel blocks" if self.parallel else ""
        words += ", heads coupled by a norm" if self.coupled else ""
        words += ", tok and pos split" if self.split_embedding else ""
        words += f", {len(self.spans)} spans of positions" if self.spans else ""
        if self.features:
            found = [number for number in self.features if number]
            each = " to ".join(f"{number:,}" for number in sorted({min(found), max(found)}))
            where = "the residual stream" if self.stream_features else "the MLP"
            words += f", {each} features of {where} in {len(found)} layer{'s' * (len(found) != 1)}"
        elif self.neurons:
            words += f", {self.neurons:,} neuron{'s' * (self.neurons != 1)} in each MLP"
        return words + (", with port edges" if self.ports else "")
