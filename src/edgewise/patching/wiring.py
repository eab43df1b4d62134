"""Which rows and columns of a graph's edge matrix belong to which component of a model."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.graph import Graph
from edgewise.graph.names import InputKind
from edgewise.models import Decoder


@dataclass(frozen=True)
class Wiring:
    """The components of a Decoder in the edge matrix of one of its graphs.

    Attributes:
        rows: per component, the rows of its nodes.
        columns: per component, the columns of its inputs, by kind.
        asked: per component and kind, which of its own inputs those of the graph ask (see `Component.asked`).
        node: per row, component and number of the node in it; None for an embedding.
        input: per column, component, kind and number of the component's own input that it asks; None for the logits.
    """

    rows: tuple[slice, ...]
    columns: tuple[dict[InputKind, slice], ...]
    asked: tuple[dict[InputKind, list[int] | None], ...]
    node: tuple[tuple[int, int] | None, ...]
    input: tuple[tuple[int, InputKind, int] | None, ...]

    @classmethod
    def of(cls, decoder: Decoder, graph: Graph) -> Wiring:
        """The wiring of a Decoder's own graph, or of one that gives every query head its own key and value input."""
        rows, columns, asked = [], [], []
        node: list[tuple[int, int] | None] = [None] * graph.n_embeddings
        place: list[tuple[int, InputKind, int] | None] = []
        for index, component in enumerate(decoder.components):
            count = len(component.nodes)
            rows.append(slice(len(node), len(node) + count))
            node += [(index, number) for number in range(count)]
            columns.append({})
            asked.append({})
            for kind in component.kinds:
                # In a graph without groups, keys and values are as many as queries.
                n_inputs = graph.n_kv_heads if kind in ("k", "v") else len(component.inputs(kind))
                which = component.asked(kind, n_inputs)
                columns[-1][kind] = slice(len(place), len(place) + n_inputs)
                asked[-1][kind] = which
                place.extend((index, kind, one) for one in which or range(n_inputs))
        return cls(tuple(rows), tuple(columns), tuple(asked), tuple(node), (*place, None))
