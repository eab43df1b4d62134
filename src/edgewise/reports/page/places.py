"""Where the page puts each node: the same places as in the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewise.graph import Circuit
from edgewise.reports.layout import Layout, place


@dataclass(frozen=True)
class Place:
    """A node of the page. Where query heads share a key/value head, that has a node of its own, `a4.g1`.

    Attributes:
        readers: for such a node, the query heads that read it.
        wide: x, y, width and height where every edge that was sent has room.
        close: the same where only circuits and the known one have, or None for a node that is in none of them.
    """

    name: str
    kind: str
    layer: int
    readers: tuple[str, ...]
    wide: tuple[float, float, float, float]
    close: tuple[float, float, float, float] | None


def places(sent: Circuit, shown_first: Circuit, groups: Mapping[str, Sequence[str]]) -> list[Place]:
    """The nodes of all edges that were sent, early to late.

    Args:
        shown_first: those of the edges that the page shows before anyone touches it.
    """
    graph = sent.graph
    group_of = {member: group for group, members in groups.items() for member in members}
    wide, close = place(sent, group_of), place(shown_first, group_of)
    found = []
    for node in wide.nodes:
        readers: tuple[str, ...] = ()
        if node.kind == "group":
            column = graph.input_index[f"{node.name}<k>"]
            readers = tuple(graph.sources[row].name for row in graph.nodes_reading(graph.inputs[column]))
        at = _box(wide, node.name)
        assert at is not None
        found.append(Place(node.name, node.kind, node.layer, readers, at, _box(close, node.name)))
    return found


def _box(layout: Layout, name: str) -> tuple[float, float, float, float] | None:
    node = layout.by_name.get(name)
    return None if node is None else (node.x, node.y, node.width, node.height)
