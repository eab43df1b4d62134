"""How edges find their way through a picture: up from level to level, never through the box of another node.

At every level an edge goes through one gap between boxes. It takes the gaps near its straight line, is pulled as taut
as they allow, and lies beside the other edges in the same gap, not upon them.

Where there are many, edges into one input run together: a trunk leads straight down from the input, and the edges join
it a few levels above where they start. As all of a trunk leads to the same place, nothing is lost by that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.reports.layout import Layout, Placed

Floats = NDArray[np.float64]
Point = tuple[float, float]

CLEARANCE = 6.0
"""Between a box and the nearest edge that passes it."""
SPACING = 3.0
"""Between the sides of edges in one gap, as long as there is room."""
LEAVING = 0.34
"""Edges leave a box from so much of its width to both sides of its middle."""
PULLS = 160
"""Rounds of pulling edges taut."""
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


@dataclass(frozen=True)
class _Level:
    """Boxes on one height, and the gaps between them that an edge may use."""

    top: float
    bottom: float
    gaps: tuple[tuple[float, float], ...]


def route(layout: Layout, wires: Sequence[Wire], *, bundled: bool = False) -> list[list[Point]]:
    """The points of every wire, from its source upwards; `curve` makes a smooth line of them.

    Args:
        bundled: let wires to one place run together.
    """
    router = _Router(layout)
    if not bundled:
        return [path.points() for path in router.led([router.path(wire) for wire in wires])]
    return router.bundled(wires)


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


class _Router:
    """The levels of a layout, and the ways that wires take through them."""

    def __init__(self, layout: Layout) -> None:
        self.nodes = layout.by_name
        heights = sorted({node.y for node in layout.nodes}, reverse=True)
        self.level_of = {node.name: heights.index(node.y) for node in layout.nodes}
        self.levels = [_level([node for node in layout.nodes if node.y == y], layout.width) for y in heights]

    def path(self, wire: Wire) -> _Path:
        """The way of a wire by itself: along its straight line, or straight up from or to a bar."""
        source, target = self.nodes[wire.source], self.nodes[wire.target]
        start, end = source.x, target.x + wire.at
        if _is_bar(source) and not _is_bar(target):
            start = end
        starts = _reach(source) if _is_bar(source) else (start, start)
        start = _within(start, starts)
        ends = _reach(target) if _is_bar(target) else (end, end)
        end = _within(start if _is_bar(target) else end, ends)
        first, last = self.level_of[wire.source] + 1, self.level_of[wire.target]
        return self._way(
            _End(start, starts, source.top, source),
            _End(end, ends, target.bottom, target),
            first,
            last,
            source,
            wire.width,
        )

    def _way(self, start: _End, end: _End, first: int, last: int, source: Placed, width: float) -> _Path:
        lean = -1.0 if (source.layer + source.head) % 2 else 1.0  # where both sides are as good
        return _Path(start, end, first, self.levels[first:last], lean, width)

    def led(self, paths: list[_Path]) -> list[_Path]:
        """The paths, pulled taut and laid side by side."""
        if paths:
            _pull(paths)
            _spread_ends(paths)
            _lay_side_by_side(paths)
        return paths

    def bundled(self, wires: Sequence[Wire]) -> list[list[Point]]:
        """The points of every wire, where wires to one place share a trunk."""
        together: dict[tuple[str, float], list[Wire]] = {}
        for wire in wires:
            if not _is_bar(self.nodes[wire.target]):
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
            _pull(paths)
            _spread_ends(paths)
        found: list[list[Point]] = []
        for index in range(len(wires)):
            if index in alone:
                found.append(alone[index].points())
            else:
                path, rest = joining[index]
                found.append([*path.points(), *rest])
        return found

    def _trunk(self, wires: Sequence[Wire]) -> _Path | None:
        """The common way of wires to one place: from above their lowest source, as straight up as can be."""
        target, lowest = self.nodes[wires[0].target], min(wires, key=lambda wire: self.level_of[wire.source])
        source = self.nodes[lowest.source]
        first, last = self.level_of[lowest.source] + 1, self.level_of[target.name]
        if len(wires) < 2 or first == last:
            return None
        x = target.x + wires[0].at
        end = _End(x, (x, x), target.bottom, target)
        anywhere = _reach(source) if _is_bar(source) else (CLEARANCE, self.levels[first].gaps[-1][1])
        return self._way(
            _End(_within(x, anywhere), anywhere, source.top, None),
            end,
            first,
            last,
            target,
            max(wire.width for wire in wires),
        )

    def _joining(self, wire: Wire, trunk: _Path) -> tuple[_Path, list[Point]]:
        """A wire's way to its trunk, and the rest of the trunk."""
        source, target = self.nodes[wire.source], self.nodes[wire.target]
        first, last = self.level_of[wire.source] + 1, self.level_of[wire.target]
        if _is_bar(source) and first == trunk.first:
            start = _End(trunk.x[0], (trunk.x[0], trunk.x[0]), source.top, source)
            point = 1
        else:
            if _is_bar(source):
                start = _End(_within(trunk.x[0], _reach(source)), _reach(source), source.top, source)
            else:
                start = _End(source.x, (source.x, source.x), source.top, source)
            near = 1 + 2 * (first - trunk.first)
            away = abs(trunk.x[near] - source.x) if near < len(trunk.x) else 0.0
            last = min(last, first + int(away / JOINING))
            point = 1 + 2 * (last - trunk.first)
        if _is_bar(source) and first == trunk.first:
            last = first
        x = float(trunk.x[point])
        end = _End(x, (x, x), float(trunk.y[point]), target)
        return self._way(start, end, first, last, source, wire.width), trunk.points()[point + 1 :]


def _level(boxes: Sequence[Placed], width: float) -> _Level:
    edge, gaps = CLEARANCE, []
    for box in sorted(boxes, key=lambda box: box.x):
        if box.left - CLEARANCE > edge:
            gaps.append((edge, box.left - CLEARANCE))
        edge = box.right + CLEARANCE
    gaps.append((min(edge, width - 1), width - 1))
    return _Level(min(box.top for box in boxes), max(box.bottom for box in boxes), tuple(gaps))


def _is_bar(node: Placed) -> bool:
    return node.kind in ("input", "tok", "pos", "logits")


@dataclass(frozen=True)
class _End:
    """Where a path starts or ends: where it would, the bounds within which it may, how high, and at which node if any."""

    x: float
    bounds: tuple[float, float]
    y: float
    node: Placed | None


class _Path:
    """A way with the gaps it goes through: at each level between its ends, two points."""

    def __init__(
        self, start: _End, end: _End, first: int, between: Sequence[_Level], lean: float, width: float
    ) -> None:
        self.start, self.end, self.first, self.width = start, end, first, width
        self.gaps = _gaps(start.x, end.x, start.y, end.y, between, lean)
        self.y = np.array([start.y, *(y for level in between for y in (level.bottom, level.top)), end.y])
        line = start.x + (end.x - start.x) * (self.y - self.y[0]) / (self.y[-1] - self.y[0])
        bounds = [start.bounds, *(gap for gap in self.gaps for _ in (0, 1)), end.bounds]
        self.low, self.high = np.array([low for low, _ in bounds]), np.array([high for _, high in bounds])
        self.x = np.clip(line, self.low, self.high)

    def points(self) -> list[Point]:
        return list(zip(self.x.tolist(), self.y.tolist(), strict=True))


def _reach(bar: Placed) -> tuple[float, float]:
    return bar.left + 10, bar.right - 10


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _gaps(
    start: float, end: float, bottom: float, top: float, levels: Sequence[_Level], lean: float
) -> list[tuple[float, float]]:
    """The gap to take at each level: of the two nearest the straight line, those that make the shortest way."""
    options: list[list[tuple[float, tuple[float, float]]]] = [[(start, (start, start))]]
    heights = [bottom]
    for level in levels:
        y = (level.top + level.bottom) / 2
        line = start + (end - start) * (y - bottom) / (top - bottom)
        near = sorted((abs(_within(line, gap) - line) - lean * (gap[0] > line) * 0.1, gap) for gap in level.gaps)[:2]
        options.append([(_within(line, gap), gap) for _, gap in near])
        heights.append(y)
    options.append([(end, (end, end))])
    heights.append(top)
    costs, choices = [0.0], []
    for number in range(1, len(options)):
        rise = heights[number - 1] - heights[number]
        found = [
            min(
                (cost + (x - before) ** 2 / rise, index)
                for index, (cost, (before, _)) in enumerate(zip(costs, options[number - 1], strict=True))
            )
            for x, _ in options[number]
        ]
        costs, choices = [cost for cost, _ in found], [*choices, [index for _, index in found]]
    chosen, index = [], 0
    for number in range(len(options) - 1, 0, -1):
        index = choices[number - 1][index]
        chosen.append(options[number - 1][index][1])
    return chosen[-2::-1]


def _pull(paths: Sequence[_Path]) -> None:
    """Pull every path taut inside its gaps: each point to the line between its neighbours, again and again."""
    longest = max(len(path.x) for path in paths)
    shape = (len(paths), longest)
    x, low, high, toward = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros((*shape, 2))
    for row, path in enumerate(paths):
        count = len(path.x)
        x[row, :count], low[row, :count], high[row, :count] = path.x, path.low, path.high
        weights = 1 / np.abs(np.diff(path.y))
        toward[row, 1:count, 0], toward[row, : count - 1, 1] = weights, weights
    toward /= np.maximum(toward.sum(axis=2, keepdims=True), 1e-12)
    before, after = toward[..., 0], toward[..., 1]
    for pull in range(PULLS):
        part = slice(pull % 2, None, 2)
        moved = before * np.roll(x, 1, axis=1) + after * np.roll(x, -1, axis=1)
        # Beyond the line by half as much again: fewer rounds to the same end.
        x[:, part] = np.clip(x + 1.5 * (moved - x), low, high)[:, part]
    for row, path in enumerate(paths):
        path.x = x[row, : len(path.x)].copy()


def _spread_ends(paths: Sequence[_Path]) -> None:
    """Edges leave a box side by side, in the order in which they lead on."""
    leaving: dict[str, list[_Path]] = {}
    for path in paths:
        if path.start.node is not None and not _is_bar(path.start.node):
            leaving.setdefault(path.start.node.name, []).append(path)
    for together in leaving.values():
        box = together[0].start.node
        assert box is not None
        room = min(LEAVING * box.width, SPACING * 0.5 * (len(together) - 1))
        together.sort(key=lambda path: (path.x[1] - path.x[0]) / (path.y[0] - path.y[1]))
        for path, x in zip(together, np.linspace(box.x - room, box.x + room, len(together)), strict=True):
            path.x[0] = x if len(together) > 1 else box.x


def _lay_side_by_side(paths: Sequence[_Path]) -> None:
    """Give edges in one gap, or at one bar, a place each, as near as can be to where they want to be."""
    in_gap: dict[tuple[int, tuple[float, float]], list[_Path]] = {}
    for path in paths:
        for number, gap in enumerate(path.gaps):
            in_gap.setdefault((path.first + number, gap), []).append(path)
    for (level, gap), together in in_gap.items():
        points = [1 + 2 * (level - path.first) for path in together]
        middles = [(path.x[point] + path.x[point + 1]) / 2 for path, point in zip(together, points, strict=True)]
        # Of edges that would lie upon each other along a box, the longer ones go outside.
        outward = [(x < gap[0] + 0.5) * 1.0 - (x > gap[1] - 0.5) * 1.0 for x in middles]
        wanted = [
            x + 0.02 * out * (path.y[0] - path.y[-1])
            for x, out, path in zip(middles, outward, together, strict=True)
        ]  # fmt: skip
        for index, place in _places(wanted, together, gap):
            path, point = together[index], points[index]
            for one in (point, point + 1):
                path.x[one] = _within(path.x[one] + place - middles[index], gap)
    at_bars: dict[tuple[str, int], list[_Path]] = {}
    for path in paths:
        for end, at in ((path.start, 0), (path.end, -1)):
            if end.bounds[0] < end.bounds[1]:
                at_bars.setdefault((end.node.name if end.node else "", at), []).append(path)
    for (name, at), together in at_bars.items():
        if name:
            wanted = [float(path.x[(1 if at == 0 else -2) if len(path.x) > 2 else at]) for path in together]
            bounds = together[0].start.bounds if at == 0 else together[0].end.bounds
            for index, place in _places(wanted, together, bounds):
                together[index].x[at] = place
        else:
            for path in together:
                path.x[0] = _within(path.x[1], path.start.bounds)


def _places(wanted: Sequence[float], paths: Sequence[_Path], room: tuple[float, float]) -> Iterator[tuple[int, float]]:
    """Which of the paths that want a place gets which, in ascending order."""
    order = np.argsort(wanted, kind="stable")
    widths = np.array([paths[index].width for index in order])
    yield from zip(order.tolist(), _apart(np.array(wanted)[order], widths, room).tolist(), strict=True)


def _apart(wanted: Floats, widths: Floats, room: tuple[float, float]) -> Floats:
    """Places in ascending order, apart from each other, in a room, and together as near as can be to what is wanted."""
    offsets = np.concatenate([[0.0], np.cumsum((widths[1:] + widths[:-1]) / 2 + SPACING)])
    offsets *= min(1.0, (room[1] - room[0]) / max(offsets[-1], 1e-9))
    blocks: list[tuple[float, int]] = []  # mean and size of edges that push each other
    for value in wanted - offsets:
        mean, size = float(value), 1
        while blocks and blocks[-1][0] >= mean:
            last, many = blocks.pop()
            mean, size = (mean * size + last * many) / (size + many), size + many
        blocks.append((mean, size))
    places = np.concatenate([np.full(size, mean) for mean, size in blocks]) + offsets
    return np.minimum(np.maximum(places, room[0] + offsets), room[1] - (offsets[-1] - offsets))
