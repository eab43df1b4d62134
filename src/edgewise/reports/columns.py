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
from edgewise.reports.layout import (
    MARGIN,
    NARROW_MIDDLE,
    HeadColumns,
    Layout,
    Member,
    Placed,
    between,
    levels_of,
    place,
    stacked,
    stand,
)
from edgewise.reports.ways import Point

LANE = 6.0
"""From one lane of attention to the next."""
FIRST_LANE = 10.0
"""From a level to its lowest lane."""
INSET = 7.0
"""How far inside its box's side a lane's line stands: outside of where edges leave."""
UNDER = 9.0
"""A line that enters a box from below turns so far under it."""
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
class Arc:
    """The line of what attention carries on: its corners, from the copy that reads to the copy that is used."""

    carried: Carried
    corners: tuple[Point, ...]


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

    @property
    def left_out(self) -> list[str]:
        """Spans at which the circuit has nothing."""
        there = {column.name for column in self.columns}
        return [name for name in self.spans if name not in there]

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
    lefts, left = {}, 0.0
    for name, (_, heads) in standing.items():
        lefts[name] = left
        left += heads.width
    level_of = {member.name: number for number, level in enumerate(levels) for member in level}
    x_of = {
        (member.name, name): lefts[name] + x
        for name, (own, heads) in standing.items()
        for level in own
        for member, x, _ in heads.across(level)
    }
    every = carried(circuit)
    lines = [one for one in every if one.at != one.to]
    lanes = _lanes(lines, spans, x_of, level_of)
    above: dict[int, float] = {}
    for one, lane in zip(lines, lanes, strict=True):
        level = level_of[one.reader]
        above[level] = max(above.get(level, 0.0), FIRST_LANE + LANE * lane)
    heights, height = stacked(levels, max(between(part) for part in parts.values()), above)
    columns = tuple(
        SpanColumn(
            name, lefts[name], Layout(stand(own, heights, heads, groups, name), heads.width, height), parts[name]
        )
        for name, (own, heads) in standing.items()
    )
    boxes = {
        (node.name, column.name): replace(node, x=node.x + column.left)
        for column in columns
        for node in column.layout.nodes
    }
    arcs = tuple(
        Arc(one, _corners(boxes[one.reader, spans[one.at]], boxes[one.node, spans[one.to]], lane, gutter))
        for one, lane in zip(lines, lanes, strict=True)
        for gutter in [None if level_of[one.node] <= level_of[one.reader] + 1 else lefts[spans[one.to]] + MARGIN / 2]
    )
    return Columns(columns, arcs, left, height, tuple(every), spans)


def _lanes(
    lines: Sequence[Carried],
    spans: Sequence[str],
    x_of: Mapping[tuple[str, str], float],
    level_of: Mapping[str, int],
) -> list[int]:
    """The lane of every line above its level, 0 the lowest.

    All lines from one reader to its right share a lane, and so do those to its left: what joins it reaches whatever
    is further along. Short ones have low lanes, so that longer ones pass above them.
    """
    extents: dict[tuple[str, bool], list[float]] = {}
    keys = [(one.reader, one.to > one.at) for one in lines]
    for one, key in zip(lines, keys, strict=True):
        extents.setdefault(key, []).extend((x_of[one.reader, spans[one.at]], x_of[one.node, spans[one.to]]))
    taken: dict[int, list[list[tuple[float, float]]]] = {}
    lane_of: dict[tuple[str, bool], int] = {}
    for key in sorted(extents, key=lambda key: (max(extents[key]) - min(extents[key]), key)):
        low, high = min(extents[key]), max(extents[key])
        lanes = taken.setdefault(level_of[key[0]], [])
        free = (number for number, lane in enumerate(lanes) if all(high < one or other < low for one, other in lane))
        lane_of[key] = next(free, len(lanes))
        if lane_of[key] == len(lanes):
            lanes.append([])
        lanes[lane_of[key]].append((low, high))
    return [lane_of[key] for key in keys]


def _corners(start: Placed, end: Placed, lane: int, gutter: float | None) -> tuple[Point, ...]:
    """Up from one box, along a lane, and into the other: from above, or into a reader of shared keys from below.

    Args:
        gutter: where the line can rise past other heads of the layer, if there are any between the two.
    """
    side = 1.0 if end.x > start.x else -1.0
    out, y = start.x + side * (start.width / 2 - INSET), start.top - FIRST_LANE - LANE * lane
    if end.y == start.y:
        into = end.x - side * (end.width / 2 - INSET)
        return (out, start.top), (out, y), (into, y), (into, end.top)
    into, under = end.x + end.width / 2 - INSET, end.bottom + UNDER
    rise = () if gutter is None else ((gutter, y), (gutter, under), (into, under))
    return (out, start.top), (out, y), *(rise or ((into, y),)), (into, end.bottom)
