"""Where nodes stand where positions are told apart: a column for each span, in each the nodes that take part there.

Levels are the same in all columns, so that a head's copies stand side by side. An edge stays in the column of the span
where it reads. What keys and values read there is seen from other spans: attention carries it on (`graph.carried`),
along lanes above the level of the head, from the copy that reads to the copies that are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from edgewise.graph import Carried, Circuit, at_span, carried
from edgewise.graph.convert import lumped
from edgewise.reports.lanes import Arc, Lanes
from edgewise.reports.layout import (
    MARGIN,
    NARROW_MIDDLE,
    HeadColumns,
    Layout,
    Member,
    between,
    heights,
    levels_of,
    place,
    stacked,
    stand,
)

FEW_HEADS = 4
"""So many heads of a span have a place of their own in every level; more are as close together as levels allow."""


@dataclass(frozen=True)
class SpanColumn:
    """What stands at one span.

    Attributes:
        name: the span's; empty for the one column of a circuit that does not tell positions apart.
        left: where the column begins, in pixels from the left of the picture.
        layout: its nodes, in pixels from the column's left.
        circuit: the part of the circuit at the span, over the graph without spans.
    """

    name: str
    left: float
    layout: Layout
    circuit: Circuit


@dataclass(frozen=True)
class Columns:
    """The columns of a picture, side by side, and the lines of attention between them.

    Attributes:
        carried: what attention carries on, also inside one column.
        spans: names of all spans, as `Carried` counts them.
    """

    columns: tuple[SpanColumn, ...]
    arcs: tuple[Arc, ...]
    width: float
    height: float
    carried: tuple[Carried, ...] = ()
    spans: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether there is a column for each span, and not one for all positions."""
        return bool(self.spans)

    @cached_property
    def together(self) -> Layout:
        """All nodes in pixels from the left of the picture. A name stands in it once for each span."""
        nodes = [
            replace(node, x=round(node.x + column.left, 2)) if column.left else node
            for column in self.columns
            for node in column.layout.nodes
        ]
        return Layout(tuple(nodes), self.width, self.height)


def place_columns(
    circuit: Circuit,
    groups: Mapping[str, str] | None = None,
    *,
    apart: bool = True,
    least_widths: Mapping[str, float] | None = None,
) -> Columns:
    """Give every node its place, in the column of every span where it takes part.

    A circuit without spans, or without edges, has one column, which is its layout (`place`).

    Args:
        groups: the name of the group of components that a node belongs to, by the node's name.
        apart: False for one column of all spans together.
        least_widths: how much room columns need at least, by their names.
    """
    spans = circuit.graph.spans
    if not (spans and apart and circuit):
        whole = lumped(circuit)
        layout = place(whole, groups)
        return Columns((SpanColumn("", 0.0, layout, whole),), (), layout.width, layout.height)
    parts = {name: part for number, name in enumerate(spans) if (part := at_span(circuit, number))}
    levels = levels_of(lumped(circuit))
    there = {name: {member for level in levels_of(part) for member in level} for name, part in parts.items()}
    standing: dict[str, tuple[list[list[Member]], HeadColumns]] = {}
    for name in parts:
        own = [[member for member in level if member in there[name]] for level in levels]
        most = max(FEW_HEADS, *(sum(member.kind != "mlp" for member in level) for level in own))
        least = (least_widths or {}).get(name, 0.0)
        heads = HeadColumns(circuit.graph.lumped, own, most=most, middle=NARROW_MIDDLE, least_width=least)
        standing[name] = own, heads
    lefts = side_by_side({name: heads.width for name, (_, heads) in standing.items()})
    x_of = {
        (member.name, name): lefts[name] + x
        for name, (own, heads) in standing.items()
        for level in own
        for member, x, _ in heads.across(level)
    }
    every = carried(circuit)
    row_of = {member.name: number for number, level in enumerate(levels) for member in level}
    lanes = Lanes([one for one in every if one.at != one.to], spans, x_of, row_of)
    tall = heights(levels)
    middles, height = stacked(tall, max(between(part) for part in parts.values()), lanes.above)
    columns = tuple(
        SpanColumn(
            name, lefts[name], Layout(stand(own, middles, heads, groups, name), heads.width, height), parts[name]
        )
        for name, (own, heads) in standing.items()
    )
    return joined(columns, lanes, [y - own / 2 for y, own in zip(middles, tall, strict=True)], every)


def side_by_side(widths: Mapping[str, float]) -> dict[str, float]:
    """Where each column begins, by its name."""
    lefts, left = {}, 0.0
    for name, width in widths.items():
        lefts[name] = left
        left += width
    return lefts


def joined(columns: tuple[SpanColumn, ...], lanes: Lanes, tops: Sequence[float], every: Sequence[Carried]) -> Columns:
    """Columns with the lines between them.

    Args:
        tops: how high every row of boxes reaches.
        every: what attention carries on, also inside a column.
    """
    boxes = {
        (node.name, column.name): replace(node, x=node.x + column.left)
        for column in columns
        for node in column.layout.nodes
    }
    arcs = lanes.arcs(boxes, tops, {column.name: column.left + MARGIN / 2 for column in columns})
    width = columns[-1].left + columns[-1].layout.width
    return Columns(columns, arcs, width, columns[-1].layout.height, tuple(every), tuple(lanes.spans))
