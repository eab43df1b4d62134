"""How edges find their way through a picture: up from level to level, never through the box of another node.

At every level an edge goes through one gap between boxes. It takes the gaps near its straight line, is pulled as taut
as they allow, and lies beside the other edges in the same gap, not upon them.

Where there are many, edges into one input run together: a trunk leads straight down from the input, and the edges join
it a few levels above where they start. As all of a trunk leads to the same place, nothing is lost by that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgewise.reports.layout import Layout, Placed
from edgewise.reports.ways import (
    CLEARANCE,
    End,
    Point,
    Way,
    is_bar,
    lay_side_by_side,
    level_of,
    pull,
    reach,
    spread_ends,
    within,
)

JOINING = 120.0
"""An edge joins its trunk one level later for so much that the trunk is to the side."""


@dataclass(frozen=True)
class Wire:
    """What is to be led from the top of one node to the bottom of another.

    `at` is how far right of the target's middle it ends; at a bar, it ends wherever it comes out. `width` is how wide
    it is drawn.
    """

    source: str
    target: str
    at: float = 0.0
    width: float = 1.0


def route(layout: Layout, wires: Sequence[Wire], *, bundled: bool = False) -> list[list[Point]]:
    """The points of every wire, from its source upwards; `curve` makes a smooth line of them.

    Args:
        bundled: let wires to one place run together.
    """
    router = _Router(layout)
    if bundled:
        return [_thinned(points) for points in router.bundled(wires)]
    return [_thinned(path.points()) for path in router.led([router.path(wire) for wire in wires])]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Without the points in the middle of upright parts."""
    kept = [points[0]]
    for point, after in pairwise(points[1:]):
        if abs(point[0] - kept[-1][0]) > 0.05 or abs(after[0] - point[0]) > 0.05:
            kept.append(point)
    return [*kept, points[-1]]


def curve(points: Sequence[Point]) -> list[tuple[Point, Point, Point]]:
    """A smooth line through points that lead upwards: the control points of cubic pieces, the first point left out.

    It starts and ends upright, and between two points it never leaves the strip between their `x`.
    """
    xs, ys = np.array([x for x, _ in points]), np.array([y for _, y in points])
    steps, rises = np.diff(ys), np.diff(xs) / np.diff(ys)
    slopes = np.zeros(len(points))
    inner = rises[:-1] * rises[1:] > 0
    first, second = 2 * steps[1:] + steps[:-1], steps[1:] + 2 * steps[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes[1:-1] = np.where(inner, (first + second) / (first / rises[:-1] + second / rises[1:]), 0.0)
    pieces: list[tuple[Point, Point, Point]] = []
    for number, step in enumerate(steps):
        one, other = number, number + 1
        pieces.append(
            (
                (xs[one] + slopes[one] * step / 3, ys[one] + step / 3),
                (xs[other] - slopes[other] * step / 3, ys[other] - step / 3),
                (xs[other], ys[other]),
            )
        )
    return pieces


def rounded(corners: Sequence[Point], radius: float) -> list[tuple[Point, ...]]:
    """A line of straight parts with round corners, in pieces as `Line` has them, the first corner left out."""
    pieces: list[tuple[Point, ...]] = []
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        room = min(radius, math.dist(before, corner) / 2, math.dist(corner, after) / 2)
        start, end = (_toward(corner, other, room) for other in (before, after))
        pieces += [(start,), (_toward(corner, start, room / 2), _toward(corner, end, room / 2), end)]
    return [*pieces, (corners[-1],)]


def _toward(start: Point, end: Point, far: float) -> Point:
    """The point so far from the start on the way to the end."""
    share = far / max(math.dist(start, end), 1e-9)
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


class _Router:
    """The levels of a layout, and the ways that wires take through them."""

    def __init__(self, layout: Layout) -> None:
        self.nodes = layout.by_name
        heights = sorted({node.y for node in layout.nodes}, reverse=True)
        self.level_of = {node.name: heights.index(node.y) for node in layout.nodes}
        self.levels = [level_of([node for node in layout.nodes if node.y == y], layout.width) for y in heights]

    def path(self, wire: Wire) -> Way:
        """The way of a wire by itself: along its straight line, or straight up from or to a bar."""
        source, target = self.nodes[wire.source], self.nodes[wire.target]
        start, end = source.x, target.x + wire.at
        if is_bar(source) and not is_bar(target):
            start = end
        starts = reach(source) if is_bar(source) else (start, start)
        start = within(start, starts)
        ends = reach(target) if is_bar(target) else (end, end)
        end = within(start if is_bar(target) else end, ends)
        first, last = self.level_of[wire.source] + 1, self.level_of[wire.target]
        return self._way(
            End(start, starts, source.top, source),
            End(end, ends, target.bottom, target),
            first,
            last,
            source,
            wire.width,
        )

    def _way(self, start: End, end: End, first: int, last: int, source: Placed, width: float) -> Way:
        lean = -1.0 if (source.layer + source.head) % 2 else 1.0  # where both sides are as good
        return Way(start, end, first, self.levels[first:last], lean, width)

    def led(self, paths: list[Way]) -> list[Way]:
        """The paths, pulled taut and laid side by side."""
        if paths:
            pull(paths)
            spread_ends(paths)
            lay_side_by_side(paths)
        return paths

    def bundled(self, wires: Sequence[Wire]) -> list[list[Point]]:
        """The points of every wire, where wires to one place share a trunk."""
        together: dict[tuple[str, float], list[Wire]] = {}
        for wire in wires:
            if not is_bar(self.nodes[wire.target]):
                together.setdefault((wire.target, wire.at), []).append(wire)
        trunks = {place: trunk for place, some in together.items() if (trunk := self._trunk(some)) is not None}
        alone = {
            index: self.path(wire) for index, wire in enumerate(wires) if (wire.target, wire.at) not in trunks
        }  # fmt: skip
        self.led([*trunks.values(), *alone.values()])
        joining = {
            index: self._joining(wire, trunks[wire.target, wire.at])
            for index, wire in enumerate(wires)
            if index not in alone
        }
        if joining:
            paths = [path for path, _ in joining.values()]
            pull(paths)
            spread_ends(paths)
        found: list[list[Point]] = []
        for index in range(len(wires)):
            if index in alone:
                found.append(alone[index].points())
            else:
                path, rest = joining[index]
                found.append([*path.points(), *rest])
        return found

    def _trunk(self, wires: Sequence[Wire]) -> Way | None:
        """The common way of wires to one place: from above their lowest source, as straight up as can be."""
        target, lowest = self.nodes[wires[0].target], min(wires, key=lambda wire: self.level_of[wire.source])
        source = self.nodes[lowest.source]
        first, last = self.level_of[lowest.source] + 1, self.level_of[target.name]
        if len(wires) < 2 or first == last:
            return None
        x = target.x + wires[0].at
        end = End(x, (x, x), target.bottom, target)
        anywhere = reach(source) if is_bar(source) else (CLEARANCE, self.levels[first].gaps[-1][1])
        return self._way(
            End(within(x, anywhere), anywhere, source.top, None),
            end,
            first,
            last,
            target,
            max(wire.width for wire in wires),
        )

    def _joining(self, wire: Wire, trunk: Way) -> tuple[Way, list[Point]]:
        """A wire's way to its trunk, and the rest of the trunk."""
        source, target = self.nodes[wire.source], self.nodes[wire.target]
        first, last = self.level_of[wire.source] + 1, self.level_of[wire.target]
        if is_bar(source) and first == trunk.first:
            start = End(trunk.x[0], (trunk.x[0], trunk.x[0]), source.top, source)
            point = 1
        else:
            if is_bar(source):
                start = End(within(trunk.x[0], reach(source)), reach(source), source.top, source)
            else:
                start = End(source.x, (source.x, source.x), source.top, source)
            near = 1 + 2 * (first - trunk.first)
            away = abs(trunk.x[near] - source.x) if near < len(trunk.x) else 0.0
            last = min(last, first + int(away / JOINING))
            point = 1 + 2 * (last - trunk.first)
        if is_bar(source) and first == trunk.first:
            last = first
        x = float(trunk.x[point])
        end = End(x, (x, x), float(trunk.y[point]), target)
        return self._way(start, end, first, last, source, wire.width), trunk.points()[point + 1 :]
