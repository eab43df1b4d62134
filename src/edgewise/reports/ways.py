"""The ways of single edges through the gaps of a picture: which gaps, pulled taut, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgewise.reports.layout import Placed

Floats = NDArray[np.float64]
Point = tuple[float, float]

CLEARANCE = 6.0
"""Between a box and the nearest edge that passes it."""
SPACING = 3.0
"""Between the sides of edges in one gap, as long as there is room."""
LEAVING = 0.34
"""Edges leave a box from so much of its width to both sides of its middle."""
WIDE = 3.5
"""Edges leave the boxes of a collapsed circuit so many times further from each other."""
PULLS = 160
"""Rounds of pulling edges taut."""


@dataclass(frozen=True)
class Level:
    """Boxes on one height, and the gaps between them that an edge may use."""

    top: float
    bottom: float
    gaps: tuple[tuple[float, float], ...]


def level_of(boxes: Sequence[Placed], width: float) -> Level:
    edge, gaps = CLEARANCE, []
    for box in sorted(boxes, key=lambda box: box.x):
        if box.left - CLEARANCE > edge:
            gaps.append((edge, box.left - CLEARANCE))
        edge = box.right + CLEARANCE
    gaps.append((min(edge, width - 1), width - 1))
    return Level(min(box.top for box in boxes), max(box.bottom for box in boxes), tuple(gaps))


def is_bar(node: Placed) -> bool:
    return node.kind in ("input", "tok", "pos", "logits")


@dataclass(frozen=True)
class End:
    """Where a path starts or ends: where it would, the bounds within which it may, how high, at which node."""

    x: float
    bounds: tuple[float, float]
    y: float
    node: Placed | None


class Way:
    """A way with the gaps it goes through: at each level between its ends, two points."""

    def __init__(self, start: End, end: End, first: int, between: Sequence[Level], lean: float, width: float) -> None:
        self.start, self.end, self.first, self.width = start, end, first, width
        self.gaps = _gaps(start.x, end.x, start.y, end.y, between, lean)
        self.y = np.array([start.y, *(y for level in between for y in (level.bottom, level.top)), end.y])
        line = start.x + (end.x - start.x) * (self.y - self.y[0]) / (self.y[-1] - self.y[0])
        bounds = [start.bounds, *(gap for gap in self.gaps for _ in (0, 1)), end.bounds]
        self.low, self.high = np.array([low for low, _ in bounds]), np.array([high for _, high in bounds])
        self.x = np.clip(line, self.low, self.high)

    def points(self) -> list[Point]:
        return list(zip(self.x.tolist(), self.y.tolist(), strict=True))


def reach(bar: Placed) -> tuple[float, float]:
    return bar.left + 10, bar.right - 10


def within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


def _gaps(
    start: float, end: float, bottom: float, top: float, levels: Sequence[Level], lean: float
) -> list[tuple[float, float]]:
    """The gap to take at each level: of the two nearest the straight line, those that make the shortest way."""
    options: list[list[tuple[float, tuple[float, float]]]] = [[(start, (start, start))]]
    heights = [bottom]
    for level in levels:
        y = (level.top + level.bottom) / 2
        line = start + (end - start) * (y - bottom) / (top - bottom)
        near = sorted((abs(within(line, gap) - line) - lean * (gap[0] > line) * 0.1, gap) for gap in level.gaps)[:2]
        options.append([(within(line, gap), gap) for _, gap in near])
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


def pull(paths: Sequence[Way]) -> None:
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


def spread_ends(paths: Sequence[Way]) -> None:
    """Edges leave a box side by side, in the order in which they lead on."""
    leaving: dict[str, list[Way]] = {}
    for path in paths:
        if path.start.node is not None and not is_bar(path.start.node):
            leaving.setdefault(path.start.node.name, []).append(path)
    for together in leaving.values():
        box = together[0].start.node
        assert box is not None
        apart = SPACING * (WIDE if box.kind == "whole" else 1.0)
        room = min(LEAVING * box.width, 0.5 * apart * (len(together) - 1))
        together.sort(key=lambda path: (path.x[1] - path.x[0]) / (path.y[0] - path.y[1]))
        for path, x in zip(together, np.linspace(box.x - room, box.x + room, len(together)), strict=True):
            path.x[0] = x if len(together) > 1 else box.x


def lay_side_by_side(paths: Sequence[Way]) -> None:
    """Give edges in one gap, or at one bar, a place each, as near as can be to where they want to be."""
    in_gap: dict[tuple[int, tuple[float, float]], list[Way]] = {}
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
                path.x[one] = within(path.x[one] + place - middles[index], gap)
    at_bars: dict[tuple[str, int], list[Way]] = {}
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
                path.x[0] = within(path.x[1], path.start.bounds)


def _places(wanted: Sequence[float], paths: Sequence[Way], room: tuple[float, float]) -> Iterator[tuple[int, float]]:
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
