"""The nodes of a page; and where positions are told apart, their places, the same as in the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewise.graph import Circuit, Graph
from edgewise.reports.columns import Columns, place_columns
from edgewise.reports.layout import Placed

Box = tuple[float, float, float, float]
"""x and y of its middle, width and height."""

NAME_ROOM = 24.0
"""Above columns, for their names."""


@dataclass(frozen=True)
class Place:
    """A node of the page; where positions are told apart, a node at one span.

    Where query heads share a key/value head, that has a node of its own, `a4.g1`.

    Attributes:
        name: the node's name, which its copies at other spans have too.
        full_name: its name with the span, `a4.h1@S1`.
        span: the span, or None where positions are not told apart.
        readers: what sees the key and the value that it reads, in other nodes of the page: of a key/value head that
            query heads share those heads; where positions are told apart, the head at other spans.
        wide: where positions are told apart, where it stands when every edge that was sent has room; else None, as the
            page itself finds places for what it shows.
        close: the same where only circuits and the known one have, or None for a node that is in none of them.
    """

    name: str
    full_name: str
    span: str | None
    kind: str
    layer: int
    readers: tuple[str, ...]
    wide: Box | None
    close: Box | None


@dataclass(frozen=True)
class Places:
    """All nodes of a page, early to late, and the two ways to lay them out.

    Attributes:
        wide, close: the columns of spans, where there are any, and the lines of attention between them.
    """

    nodes: list[Place]
    wide: Columns
    close: Columns


def places(sent: Circuit, shown_first: Circuit, groups: Mapping[str, Sequence[str]]) -> Places:
    """The nodes of all edges that were sent.

    Args:
        shown_first: those of the edges that the page shows before anyone touches it.
    """
    graph = sent.graph
    group_of = {member: group for group, members in groups.items() for member in members}
    wide, close = place_columns(sent, group_of), place_columns(shown_first, group_of)
    seen_by = _seen_by(wide, close)
    near = {node.full_name: node for node in close.together.nodes}
    found = []
    for node in wide.together.nodes:
        readers = list(seen_by.get(node.full_name, ()))
        if node.kind == "group" and not graph.spans:
            readers = _readers(graph, node.name)
        at = near.get(node.full_name)
        found.append(
            Place(
                node.name,
                node.full_name,
                node.span or None,
                node.kind,
                node.layer,
                tuple(readers),
                _box(node, wide) if graph.spans else None,
                None if at is None or not graph.spans else _box(at, close),
            )
        )
    return Places(found, wide, close)


def _readers(graph: Graph, shared: str) -> list[str]:
    """The query heads that read a key/value head that they share."""
    place = graph.input(f"{shared}<k>")
    return [graph.sources[row].name for row in graph.nodes_reading(place)]


def _seen_by(*layouts: Columns) -> dict[str, dict[str, None]]:
    """What sees the key and the value of each node at each span, in any of the layouts."""
    found: dict[str, dict[str, None]] = {}
    for layout in layouts:
        for one in layout.carried:
            reader = f"{one.reader}@{layout.spans[one.at]}"
            found.setdefault(reader, {})[f"{one.node}@{layout.spans[one.to]}"] = None
    return found


def _box(node: Placed, layout: Columns) -> Box:
    return (node.x, node.y + NAME_ROOM * layout.named, node.width, node.height)


def columns_of(layout: Columns) -> dict[str, list[list[float | str]]]:
    """What the page is told of columns.

    Returns:
        `columns`: of each its span, its left side, its width, its top and its height. `arcs`: of each line of
        attention the nodes that it joins, then x and y of each corner, one after another.
    """
    columns: list[list[float | str]] = []
    arcs: list[list[float | str]] = []
    if layout.named:
        for one in layout.columns:
            columns.append(
                [one.name, round(one.left, 1), round(one.layout.width, 1), NAME_ROOM, round(layout.height, 1)]
            )
    for arc in layout.arcs:
        ends = [
            f"{arc.carried.reader}@{layout.spans[arc.carried.at]}",
            f"{arc.carried.node}@{layout.spans[arc.carried.to]}",
        ]
        corners = [round(value, 1) for x, y in arc.corners for value in (x, y + NAME_ROOM)]
        arcs.append([*ends, *corners])
    return {"columns": columns, "arcs": arcs}
