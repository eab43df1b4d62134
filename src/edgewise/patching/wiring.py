"""Which rows and columns of a graph's edge matrix belong to which component of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgewise.graph import Graph
from edgewise.graph.names import InputKind
from edgewise.models import Decoder

EMBEDDING = -1
"""The embedding among the components, before the first."""


@dataclass(frozen=True)
class Wiring:
    """The components of a Decoder in the edge matrix of one of its graphs.

    Attributes:
        rows: per component, the rows of its nodes.
        columns: per component, the columns of its inputs, by kind; a whole head's query, key and value are all made of
            one.
        asked: per component and kind, which of its own inputs those of the graph ask (see `Component.asked`).
        node: per row, component and number of the node in it; None for an embedding.
        component: per column, the component that reads there; None for the logits.
        asks: per column, the number of each of the component's own inputs that it asks, by kind.
    """

    rows: tuple[slice, ...]
    columns: tuple[dict[InputKind, slice], ...]
    asked: tuple[dict[InputKind, list[int] | None], ...]
    node: tuple[tuple[int, int] | None, ...]
    component: tuple[int | None, ...]
    asks: tuple[dict[InputKind, int], ...]

    @classmethod
    def of(cls, decoder: Decoder, graph: Graph) -> Wiring:
        """The wiring of a Decoder's own graph, or of one that gives every query head its own key and value input."""
        rows, columns, asked = [], [], []
        node: list[tuple[int, int] | None] = [None] * graph.n_embeddings
        reader: list[int | None] = [None] * len(graph.inputs)
        asks: list[dict[InputKind, int]] = [{} for _ in graph.inputs]
        for index, component in enumerate(decoder.components):
            count = len(component.nodes)
            rows.append(slice(len(node), len(node) + count))
            node += [(index, number) for number in range(count)]
            columns.append({})
            asked.append({})
            for kind in component.kinds:
                read = "head" if graph.whole_heads and kind in ("q", "k", "v") else kind
                # In a graph without groups, keys and values are as many as queries.
                n_inputs = graph.n_inputs(read)
                which = component.asked(kind, n_inputs)
                columns[-1][kind] = at = graph.columns(read, component.layer)
                asked[-1][kind] = which
                for number, one in enumerate(which or range(n_inputs)):
                    for column in range(at.start + number * graph.n_spans, at.start + (number + 1) * graph.n_spans):
                        reader[column], asks[column][kind] = index, one
        return cls(tuple(rows), tuple(columns), tuple(asked), tuple(node), tuple(reader), tuple(asks))

    def component_of(self, row: int) -> int:
        """The component that a sender belongs to; `EMBEDDING` for one of the embedding's."""
        found = self.node[row]
        return EMBEDDING if found is None else found[0]

    def columns_of(self, component: int) -> Iterator[int]:
        """A component's columns, each once: a whole head's query, key and value read one."""
        for first, stop in dict.fromkeys((one.start, one.stop) for one in self.columns[component].values()):
            yield from range(first, stop)
