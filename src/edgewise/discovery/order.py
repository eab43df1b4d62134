"""The order of a search: from the logits back to the embedding, and at each input from one parent to the next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgewise.errors import unknown
from edgewise.graph import Graph
from edgewise.graph.names import InputKind

OrderMode = Literal["normal", "reverse", "shuffle"]
ORDER_MODES = ("normal", "reverse", "shuffle")


@dataclass(frozen=True)
class Order:
    """The order in which an input's parents are tried, after `names_mode` and `indices_mode` of the paper's code.

    Attributes:
        layers: `normal` from late to early layers, MLP before heads; `reverse` from early to late; or `shuffle`.
        heads: inside a layer, `normal` from high to low; `reverse` from low to high (the paper's choice for
            induction); or `shuffle`.
        seed: of the shuffles.
    """

    layers: OrderMode = "normal"
    heads: OrderMode = "normal"
    seed: int = 0

    def __post_init__(self) -> None:
        for mode in (self.layers, self.heads):
            if mode not in ORDER_MODES:
                raise unknown("order", mode, ORDER_MODES)

    def parents(self, graph: Graph) -> list[int]:
        """All sending nodes, as rows, in the order in which they are tried."""
        generator = random.Random(self.seed)
        groups: dict[tuple[str, int], list[int]] = {}
        for row, node in enumerate(graph.sources):
            groups.setdefault((node.kind, node.layer), []).append(row)
        embedding = [rows for (kind, _), rows in groups.items() if kind in ("input", "tok", "pos")]
        late_to_early = [rows for (kind, _), rows in groups.items() if kind in ("head", "mlp")][::-1] + embedding
        if self.layers == "reverse":
            late_to_early.reverse()
        elif self.layers == "shuffle":
            generator.shuffle(late_to_early)
        for rows in late_to_early:
            if self.heads == "normal":
                rows.reverse()
            elif self.heads == "shuffle":
                generator.shuffle(rows)
        return [row for rows in late_to_early for row in rows]


@dataclass(frozen=True)
class Visit:
    """One stop on the walk: a node (where nothing is tested), a port edge, or an input with all its parents."""

    kind: Literal["node", "port", "input"]
    name: str
    column: int = -1


def visits(graph: Graph) -> Iterator[Visit]:
    """The walk from the logits back to the embedding, in the order of the paper's code; an input's late spans first."""

    def inputs(kind: Literal["port", "input"], of: InputKind, layer: int = -1) -> Iterator[Visit]:
        columns = graph.columns(of, layer)
        for column in reversed(range(columns.start, columns.stop)):
            yield Visit(kind, graph.inputs[column].name, column)

    def heads(kind: Literal["port", "input"], layer: int) -> Iterator[Visit]:
        for letter in reversed(graph.head_kinds):
            yield from inputs(kind, letter, layer)

    yield from inputs("input", "logits")
    for layer in reversed(range(graph.n_layers)):
        if graph.mlps:
            yield Visit("node", f"m{layer}")
            yield from inputs("input", "mlp", layer)
        for head in reversed(range(graph.n_heads)):
            yield Visit("node", f"a{layer}.h{head}")
        if graph.ports:
            yield from heads("port", layer)
        yield from heads("input", layer)
    for node in graph.sources[: graph.n_embeddings][::-1]:
        yield Visit("node", node.name)
