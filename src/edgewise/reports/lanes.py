"""Lanes above rows of boxes, along which what attention carries on runs from column to column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewise.graph import Carried
from edgewise.reports.layout import Placed
from edgewise.reports.ways import Point

LANE = 6.0
"""From one lane to the next."""
FIRST_LANE = 10.0
"""From a row to its lowest lane."""
INSET = 7.0
"""How far inside its box's side a line leaves and enters: outside of where edges leave."""
UNDER = 9.0
"""A line that enters a box from below turns so far under it."""


@dataclass(frozen=True)
class Arc:
    """The line of what attention carries on: its corners, from the box that reads to the box that is used."""

    carried: Carried
    corners: tuple[Point, ...]


def covering(arcs: Sequence[Arc]) -> list[Arc]:
    """Some of the lines that look like all of them: from each box to the furthest, and to each from the furthest."""
    furthest: dict[tuple[object, ...], Arc] = {}
    for arc in arcs:
        one = arc.carried
        for key in ((_direction(one), one.at), (_direction(one), one.node, one.to)):
            other = furthest.get(key)
            if other is None or _length(arc) > _length(other):
                furthest[key] = arc
    chosen = {id(arc) for arc in furthest.values()}
    return [arc for arc in arcs if id(arc) in chosen]


def _length(arc: Arc) -> float:
    return abs(arc.corners[-1][0] - arc.corners[0][0])


class Lanes:
    """The lanes of lines between boxes that stand in columns, a column for each span.

    All lines from one box to the right share a lane, and so do those to the left: what joins it reaches whatever is
    further along. Short ones have low lanes, so that longer ones pass above them.

    Args:
        spans: names of the spans, as the lines count them.
        x_of: the middle of every box, by its name and its span.
        row_of: the number of its row, lowest first, by its name.
    """

    def __init__(
        self,
        lines: Sequence[Carried],
        spans: Sequence[str],
        x_of: Mapping[tuple[str, str], float],
        row_of: Mapping[str, int],
    ) -> None:
        self.lines, self.spans, self.row_of = lines, spans, row_of
        extents: dict[tuple[str, bool], list[float]] = {}
        for one in lines:
            ends = x_of[one.reader, spans[one.at]], x_of[one.node, spans[one.to]]
            extents.setdefault(_direction(one), []).extend(ends)
        taken: dict[int, list[list[tuple[float, float]]]] = {}
        self.lane_of: dict[tuple[str, bool], int] = {}
        for key in sorted(extents, key=lambda key: (max(extents[key]) - min(extents[key]), key)):
            low, high = min(extents[key]), max(extents[key])
            lanes = taken.setdefault(row_of[key[0]], [])
            free = (at for at, lane in enumerate(lanes) if all(high < one or other < low for one, other in lane))
            at = self.lane_of[key] = next(free, len(lanes))
            if at == len(lanes):
                lanes.append([])
            lanes[at].append((low, high))

    @property
    def above(self) -> dict[int, float]:
        """How much more room rows need above them, by their number."""
        room: dict[int, float] = {}
        for (name, _), lane in self.lane_of.items():
            row = self.row_of[name]
            room[row] = max(room.get(row, 0.0), FIRST_LANE + LANE * lane)
        return room

    def arcs(
        self, boxes: Mapping[tuple[str, str], Placed], tops: Sequence[float], gutters: Mapping[str, float]
    ) -> tuple[Arc, ...]:
        """Every line in its lane.

        Args:
            boxes: where they stand, by name and span.
            tops: how high every row reaches.
            gutters: by span, where a line can rise past rows between the two that it joins.
        """
        found = []
        for one in self.lines:
            start, end = boxes[one.reader, self.spans[one.at]], boxes[one.node, self.spans[one.to]]
            row = self.row_of[one.reader]
            y = tops[row] - FIRST_LANE - LANE * self.lane_of[_direction(one)]
            next_to = self.row_of[one.node] in (row, row + 1)
            under = 2 * end.y - tops[self.row_of[one.node]] + UNDER  # below all of the row, whose boxes share a middle
            found.append(Arc(one, _corners(start, end, y, under, None if next_to else gutters[self.spans[one.to]])))
        return tuple(found)


def _direction(line: Carried) -> tuple[str, bool]:
    return line.reader, line.to > line.at


def _corners(start: Placed, end: Placed, y: float, under: float, gutter: float | None) -> tuple[Point, ...]:
    """Up from one box, along a lane, and into the other: from above if it stands in the same row, else from below."""
    side = 1.0 if end.x > start.x else -1.0
    out = start.x + side * (start.width / 2 - INSET)
    if end.y == start.y:
        into = end.x - side * (end.width / 2 - INSET)
        return (out, start.top), (out, y), (into, y), (into, end.top)
    into = end.x + end.width / 2 - INSET
    rise = ((into, y),) if gutter is None else ((gutter, y), (gutter, under), (into, under))
    return (out, start.top), (out, y), *rise, (into, end.bottom)
