"""A circuit with one box for each group of nodes: where the boxes stand, and the lines between them.

Boxes stand in the order in which their nodes stand in the model, on average, early ones below; nodes of no group are
small boxes by themselves. Boxes side by side have no line between them. As a group may reach over several layers, a
line can lead down: it then has an arrowhead at its lower end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.reports.layout import BOX_HEIGHT, BOX_WIDTH, MARGIN, Layout, Placed, PlacedKind
from edgewise.reports.legend import SMALL, Legend, Part
from edgewise.reports.marks import (
    BAR_FILL,
    BORDER,
    GROUP_COLOURS,
    HEAD_FILL,
    KIND_COLOURS,
    KIND_WORDS,
    MLP_FILL,
    SHARED_COLOUR,
    Drawn,
    Styles,
    width_steps,
)
from edgewise.reports.merged import Link, Whole, merge, ties
from edgewise.reports.routing import Wire, curve, route
from edgewise.reports.scene import Box, Line, Words, shorten, text_width, wrap
from edgewise.reports.ways import Point

GROUP_WIDTH = 150.0
SPREAD = 64.0
"""Between two boxes side by side."""
BETWEEN = 64.0
"""From one row of boxes to the next: room for a line's numbers."""
ASIDE = 70.0
"""Room on both sides for lines that pass."""
LEAST_WIDTH = 460.0
PADDING, LEADING = 8.0, 14.0
MOST_ACROSS = 8
"""Boxes side by side."""
MOST_LINES = 3
"""Of a box's list of nodes."""
FULL_NUMBERS = 60
"""Of more lines only the count of edges stands on them."""
MIXED = "#8a8a8a"
"""The colour of edges into different kinds of inputs."""


def collapsed(circuit: Circuit, groups: Mapping[str, Sequence[str]], edges: int | None) -> Collapsed:
    """What `draw` draws of a circuit whose groups are collapsed.

    Args:
        edges: only so many lines, those with the strongest edge.

    Raises:
        EdgewiseError: there are no groups, or no scores to choose lines by.
    """
    if not groups:
        raise EdgewiseError("there are no groups of nodes to collapse: give some with --groups (in Python, groups=)")
    wholes, links = merge(circuit, groups)
    scored = len({abs(link.strongest) for link in links}) > 1
    left_out = 0
    if edges is not None and edges < len(links):
        if not scored:
            raise EdgewiseError("the circuit has no scores, so there is no telling which edges are the strongest")
        left_out = len(links) - edges
        links = sorted(links, key=lambda link: -abs(link.strongest))[:edges]
    return Collapsed(circuit, groups, wholes, links, scored, left_out)


class Collapsed:
    """A circuit whose groups are one box each.

    Attributes:
        width: that its boxes and lines take.
    """

    def __init__(
        self,
        circuit: Circuit,
        groups: Mapping[str, Sequence[str]],
        wholes: list[Whole],
        links: list[Link],
        scored: bool,
        left_out: int,
    ) -> None:
        self.circuit, self.wholes, self.links, self.scored, self.left_out = circuit, wholes, links, scored, left_out
        self.colour = {name: GROUP_COLOURS[at % len(GROUP_COLOURS)] for at, name in enumerate(groups)}
        self.dashed = {name: at >= len(GROUP_COLOURS) for at, name in enumerate(groups)}
        self.ties = ties(circuit, groups)
        self.layout = _place(wholes, links, self.ties)
        self.height_of = {node.name: node.y for node in self.layout.nodes}
        self.lines = [Drawn(_name(link), link.source, link.target, _kind(link), link.strongest) for link in links]
        self.styles = Styles(self.lines, scored)
        self.width = self.layout.width

    def draw(self, left: float, top: float) -> list[Part]:
        """Lines, the weakest at the bottom, then boxes, then what stands on the lines."""
        wires = [*self._wires(), *(Wire(*self._upwards(shared, reader)) for shared, reader in self.ties)]
        ways = [[(x + left, y + top) for x, y in points] for points in route(self.layout, wires)]
        ways, tied = ways[: len(self.links)], ways[len(self.links) :]
        parts: list[Part] = [
            Line(points[0], curve(points), SHARED_COLOUR, 1.0, dashed=True, says=f"{reader} reads {shared}")
            for (shared, reader), points in zip(self.ties, tied, strict=True)
        ]
        for at in sorted(range(len(ways)), key=lambda at: (abs(self.lines[at].score), at)):
            line, points = self.lines[at], ways[at]
            pieces, width = curve(points), self._width(self.links[at])
            colour = KIND_COLOURS.get(line.kind, MIXED)
            parts.append(Line(points[0], pieces, "#ffffff", width + 2.4, 0.8))
            parts.append(
                Line(
                    points[0], pieces, colour, round(width, 2), 0.9, line.score < 0, _says(self.links[at], self.scored)
                )
            )
            if self._leads_down(self.links[at]):
                x, y = points[0]
                parts.append(Line((x - 4, y - 8), [((x, y - 1),), ((x + 4, y - 8),)], colour, max(1.8, width)))
        for whole in self.wholes:
            parts += self._box(whole, left, top)
        return parts + list(self._numbers(ways, left, top))

    def explain(self, legend: Legend, effect: str) -> None:
        """What colours, widths and numbers mean."""
        used = {line.kind for line in self.lines}
        entries = {KIND_WORDS[kind]: (colour, 2.5, False) for kind, colour in KIND_COLOURS.items() if kind in used}
        if "" in used:
            entries["several of these"] = (MIXED, 2.5, False)
        if entries:
            legend.lines("edges into", entries)
        if self.ties:
            legend.lines("a key/value head", {"read by query heads": (SHARED_COLOUR, 1.0, True)})
        if self.scored:
            legend.lines(f"{effect}, of the strongest edge", width_steps(self.styles, self.lines))
        if self.links:
            full = self.scored and len(self.links) <= FULL_NUMBERS
            legend.note(
                "On a line of several edges: how many they are"
                + ("; the score of the strongest edge, and after a stroke the sum of all." if full else ".")
            )
        if any(self._leads_down(link) for link in self.links):
            legend.note(
                "A line with an arrowhead leads down: a group stands where its nodes do on average, and edges can lead "
                "back."
            )
        if self.left_out:
            legend.note(
                f"The {len(self.links):,} strongest lines are drawn; {self.left_out:,} weaker ones are left out."
            )
        if not self.scored and len(self.links) > 1:
            legend.note("The circuit has no scores, so all lines are drawn alike.")

    def _wires(self) -> list[Wire]:
        """Each link from its lower box to its upper one, whose lines end side by side, in the order of the lower."""
        ends = [self._upwards(link.source, link.target) for link in self.links]
        at = [0.0] * len(ends)
        for upper in {upper for _, upper in ends}:
            box = self.layout.by_name[upper]
            into = [index for index, (_, one) in enumerate(ends) if one == upper]
            into.sort(key=lambda index: (self.layout.by_name[ends[index][0]].x, index))
            step = min(16.0, 0.76 * box.width / max(1, len(into) - 1))
            for place, index in enumerate(into):
                at[index] = (place - (len(into) - 1) / 2) * step
        return [
            Wire(lower, upper, offset, self._width(link))
            for link, (lower, upper), offset in zip(self.links, ends, at, strict=True)
        ]

    def _upwards(self, one: str, other: str) -> tuple[str, str]:
        """Two boxes, the lower one first."""
        return (one, other) if self.height_of[one] > self.height_of[other] else (other, one)

    def _width(self, link: Link) -> float:
        return self.styles.width(link.strongest)

    def _leads_down(self, link: Link) -> bool:
        return self.height_of[link.source] < self.height_of[link.target]

    def _box(self, whole: Whole, left: float, top: float) -> Iterator[Part]:
        node = self.layout.by_name[whole.name]
        x, y = node.left + left, node.top + top
        if not whole.group:
            mlp = whole.name.startswith("m")
            fill = BAR_FILL if node.kind != "whole" else MLP_FILL if mlp else HEAD_FILL
            yield Box(x, y, node.width, node.height, fill, BORDER, 1.0, 5, says=whole.name)
            yield Words(node.x + left, node.y + top + 4, whole.name, SMALL, "middle")
            return
        says = f"{whole.name}: {' '.join(whole.found)}"
        fill = self.colour[whole.name]
        yield Box(x, y, node.width, node.height, fill, BORDER, 1.0, 5, self.dashed[whole.name], says)
        baseline = y + PADDING + 10
        for text, bold, colour in _words(whole):
            yield Words(node.x + left, baseline, text, SMALL, "middle", colour, bold)
            baseline += LEADING

    def _numbers(self, ways: Sequence[Sequence[Point]], left: float, top: float) -> Iterator[Part]:
        """What stands on each line, where there is room for it; the strongest lines choose first."""
        full = self.scored and len(self.links) <= FULL_NUMBERS
        taken = [(n.left + left, n.top + top, n.right + left, n.bottom + top) for n in self.layout.nodes]
        for at in sorted(range(len(ways)), key=lambda at: (-abs(self.lines[at].score), at)):
            link = self.links[at]
            if len(link.edges) == 1 and not full:
                continue
            text = f"{len(link.edges)}×" if len(link.edges) > 1 else ""
            if full:
                scores = number(link.strongest)
                scores += f" / {number(link.summed)}" if len(link.edges) > 1 else ""
                text = f"{text} {scores}".strip()
            width = text_width(text, 9.5) + 4
            for x, y in _along(ways[at]):
                place = (x - width / 2, y - 7, x + width / 2, y + 6)
                if not any(_overlap(place, other) for other in taken):
                    taken.append(place)
                    yield Box(place[0], place[1], width, 13, "#ffffff", radius=3)
                    yield Words(x, y + 3.5, text, 9.5, "middle")
                    break


def _place(wholes: Sequence[Whole], links: Sequence[Link], tied: Sequence[tuple[str, str]]) -> Layout:
    """Rows of boxes in the order of the wholes, with no line inside a row; the embedding below, the logits above."""
    pairs = [*((link.source, link.target) for link in links), *tied]
    linked = {frozenset(pair) for pair in pairs}
    bottom = [whole for whole in wholes if whole.name in ("input", "tok", "pos")]
    above = [whole for whole in wholes if whole.name == "logits"]
    rows: list[list[Whole]] = [bottom] if bottom else []
    first = len(rows)
    for whole in wholes:
        if whole in bottom or whole in above:
            continue
        row = rows[-1] if len(rows) > first else None
        if row is None or len(row) == MOST_ACROSS or any(frozenset((whole.name, one.name)) in linked for one in row):
            rows.append([whole])
        else:
            row.append(whole)
    rows += [above] if above else []
    sizes = {whole.name: _size(whole) for whole in wholes}
    widths = [sum(sizes[one.name][0] for one in row) + SPREAD * (len(row) - 1) for row in rows]
    width = max([LEAST_WIDTH, *(one + 2 * ASIDE for one in widths)])
    heights = [max(sizes[one.name][1] for one in row) for row in rows]
    height = 2 * MARGIN + sum(heights) + BETWEEN * max(0, len(rows) - 1)
    placed: dict[str, Placed] = {}
    low = height - MARGIN
    for row, tall, wide in zip(rows, heights, widths, strict=True):
        y = round(low - tall / 2, 2)
        low -= tall + BETWEEN
        bars = row is bottom or row is above
        each = (width - 2 * MARGIN - MARGIN * (len(row) - 1)) / len(row)
        x = MARGIN if bars else (width - wide) / 2
        for whole in row if bars else _in_order(row, pairs, placed):
            own = each if bars else sizes[whole.name][0]
            tall_own = sizes[whole.name][1]
            kind = _kind_of(whole)
            placed[whole.name] = Placed(whole.name, kind, -1, -1, round(x + own / 2, 2), y, own, tall_own, whole.name)
            x += own + (MARGIN if bars else SPREAD)
    return Layout(tuple(placed.values()), width, height)


def _in_order(row: Sequence[Whole], linked: Sequence[tuple[str, str]], placed: Mapping[str, Placed]) -> list[Whole]:
    """The boxes of a row from left to right: each near the middle of those below that it is linked with."""

    def middle(whole: Whole) -> float:
        others = [
            placed[other]
            for pair in linked
            for one, other in (pair, pair[::-1])
            if one == whole.name and other in placed
        ]
        xs = [node.x for node in others if node.kind not in ("input", "tok", "pos")]
        return sum(xs) / len(xs) if xs else 0.0

    return sorted(row, key=middle)


def _kind_of(whole: Whole) -> PlacedKind | Literal["whole"]:
    name = whole.name
    return name if name == "input" or name == "tok" or name == "pos" or name == "logits" else "whole"


def _size(whole: Whole) -> tuple[float, float]:
    if not whole.group:
        return BOX_WIDTH, BOX_HEIGHT
    return GROUP_WIDTH, 2 * PADDING + LEADING * len(list(_words(whole)))


def _words(whole: Whole) -> Iterator[tuple[str, bool, str]]:
    """What stands in a group's box: its name, how many of its nodes the circuit has, which, and edges inside it."""
    room = GROUP_WIDTH - 2 * PADDING
    for line in wrap(whole.name, SMALL, room, bold=True):
        yield line, True, "#1a1a1a"
    count = sum(node in whole.members for node in whole.found)
    yield f"{count} of {len(whole.members)} node{'s' * (len(whole.members) != 1)}", False, "#1a1a1a"
    lines = wrap(" ".join(whole.found), SMALL, room)
    for at, line in enumerate(lines[:MOST_LINES]):
        cut = at == MOST_LINES - 1 and len(lines) > MOST_LINES
        yield shorten(f"{line} …" if cut else line, SMALL, room), False, "#1a1a1a"
    if whole.within:
        yield f"{whole.within:,} edge{'s' * (whole.within != 1)} inside", False, "#3a3a3a"


def _name(link: Link) -> str:
    return f"{link.source}->{link.target}"


def _kind(link: Link) -> str:
    """What the link's edges lead into, or nothing if they lead into several kinds of inputs."""
    return next(iter(link.kinds)) if len(link.kinds) == 1 else ""


def _says(link: Link, scored: bool) -> str:
    count = f"{len(link.edges):,} edge{'s' * (len(link.edges) != 1)}"
    if not scored:
        return f"{_name(link)}: {count}"
    return f"{_name(link)}: {count}; strongest {link.edges[0]} {link.strongest:.4g}, summed {link.summed:.4g}"


def number(value: float) -> str:
    return f"{value:z.2g}" if abs(value) < 100 else f"{value:,.0f}"


_SHARES = (0.5, 0.35, 0.65, 0.25, 0.75, 0.15, 0.85)


def _along(points: Sequence[Point]) -> Iterator[Point]:
    """Places on a way where something can be written: in the middle first, then nearer its ends."""
    start, end = points[0][1], points[-1][1]
    for share in _SHARES:
        y = start + share * (end - start)
        for (x0, y0), (x1, y1) in pairwise(points):
            if min(y0, y1) <= y <= max(y0, y1) and y0 != y1:
                t = (y - y0) / (y1 - y0)
                yield x0 + (x1 - x0) * (t * t * (3 - 2 * t)), y
                break


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
