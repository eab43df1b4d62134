"""A circuit with one box for each group of nodes: the boxes, the lines between them, and what stands on the lines.

As a group may reach over several layers, a line can lead down: it then has an arrowhead at its lower end. Where a
circuit tells positions apart, this is what stands in the column of each span.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, only_at
from edgewise.reports.columns import SpanColumn
from edgewise.reports.group_layout import LEADING, PADDING, Merged, place_group_columns, place_groups, words_of
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
    draw_attention,
    explain_attention,
    width_steps,
    widths_of_names,
)
from edgewise.reports.merged import Link, Whole, carried_between, homes, merge, ties
from edgewise.reports.routing import Wire, curve, route
from edgewise.reports.scene import Box, Line, Words, text_width
from edgewise.reports.ways import Point

FULL_NUMBERS = 60
"""Of more lines only the count of edges stands on them."""
MIXED = "#8a8a8a"
"""The colour of edges into different kinds of inputs."""


def collapsed(
    circuit: Circuit, groups: Mapping[str, Sequence[str]], edges: int | None, *, columns: bool = True
) -> Collapsed:
    """What `draw` draws of a circuit whose groups are collapsed.

    Args:
        edges: only so many lines, those with the strongest edge.
        columns: a column for each span, where the circuit tells positions apart.

    Raises:
        EdgewiseError: there are no groups, or no scores to choose lines by.
    """
    if not groups:
        raise EdgewiseError("there are no groups of nodes to collapse: give some with --groups (in Python, groups=)")
    home = homes(circuit, groups)
    parts = {"": _merged(circuit, groups, home)}
    if columns and circuit.graph.spans and circuit:
        apart = {name: only_at(circuit, number) for number, name in enumerate(circuit.graph.spans)}
        parts = {name: _merged(part, groups, home) for name, part in apart.items() if part}
    links = [link for part in parts.values() for link in part.links]
    scored = len({abs(link.strongest) for link in links}) > 1
    left_out = 0
    if edges is not None and edges < len(links):
        if not scored:
            raise EdgewiseError("the circuit has no scores, so there is no telling which edges are the strongest")
        left_out = len(links) - edges
        kept = sorted(links, key=lambda link: -abs(link.strongest))[:edges]
        chosen = {id(link) for link in kept}
        parts = {
            name: replace(part, links=[link for link in (kept if not name else part.links) if id(link) in chosen])
            for name, part in parts.items()
        }
    return Collapsed(circuit, groups, parts, scored, left_out)


def _merged(circuit: Circuit, groups: Mapping[str, Sequence[str]], home: Mapping[str, str]) -> Merged:
    wholes, links = merge(circuit, groups, home)
    return Merged(circuit, wholes, links, ties(circuit, home))


class Collapsed:
    """A circuit whose groups are one box each.

    Args:
        parts: what stands in each column, by the name of its span; of a circuit in one column, under no name.

    Attributes:
        placed: where boxes stand.
    """

    def __init__(
        self,
        circuit: Circuit,
        groups: Mapping[str, Sequence[str]],
        parts: Mapping[str, Merged],
        scored: bool,
        left_out: int,
    ) -> None:
        self.links = [link for part in parts.values() for link in part.links]
        self.scored, self.left_out = scored, left_out
        self.colour = {name: GROUP_COLOURS[at % len(GROUP_COLOURS)] for at, name in enumerate(groups)}
        self.dashed = {name: at >= len(GROUP_COLOURS) for at, name in enumerate(groups)}
        spans = circuit.graph.spans
        if "" in parts:
            self.placed = place_groups(parts[""])
        else:
            home = homes(circuit, groups)
            lines, whole = carried_between(circuit, home), _merged(circuit, groups, home)
            self.placed = place_group_columns(whole, parts, lines, spans, widths_of_names(spans))
        self.lines = [_drawn(link) for link in self.links]
        self.styles = Styles(self.lines, scored)
        self.columns = [_Column(self, column, parts[column.name]) for column in self.placed.columns]

    def draw(self, left: float, top: float) -> list[Part]:
        """Lines, the weakest at the bottom, then boxes, then what stands on the lines."""
        attention, arrowheads = draw_attention(self.placed, left, top)
        drawn = [column.draw(left, top) for column in self.columns]
        found = [*attention, *(part for lines, _ in drawn for part in lines), *arrowheads]
        return found + [part for _, above in drawn for part in above]

    def explain(self, legend: Legend, effect: str) -> None:
        """What colours, widths and numbers mean."""
        used = {line.kind for line in self.lines}
        entries = {KIND_WORDS[kind]: (colour, 2.5, False) for kind, colour in KIND_COLOURS.items() if kind in used}
        if "" in used:
            entries["several of these"] = (MIXED, 2.5, False)
        if entries:
            legend.lines("edges into", entries)
        explain_attention(legend, self.placed)
        if any(column.ties for column in self.columns):
            legend.lines("a key/value head", {"read by query heads": (SHARED_COLOUR, 1.0, True)})
        if self.scored:
            legend.lines(f"{effect}, of the strongest edge", width_steps(self.styles, self.lines))
        if self.links:
            legend.note(
                "On a line of several edges: how many they are"
                + ("; the score of the strongest edge, and after a stroke the sum of all." if self.full else ".")
            )
        if any(column.leads_down(link) for column in self.columns for link in column.links):
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

    @property
    def full(self) -> bool:
        """Whether scores stand on the lines."""
        return self.scored and len(self.links) <= FULL_NUMBERS


class _Column:
    """What stands in one column."""

    def __init__(self, picture: Collapsed, column: SpanColumn, part: Merged) -> None:
        self.picture, self.wholes, self.links, self.ties = picture, part.wholes, part.links, part.ties
        self.name, self.layout, self.left = column.name, column.layout, column.left
        self.height_of = {node.name: node.y for node in self.layout.nodes}
        self.lines = [_drawn(link) for link in self.links]

    def draw(self, left: float, top: float) -> tuple[list[Part], list[Part]]:
        """Lines, the weakest at the bottom; then boxes and what stands on the lines."""
        left += self.left
        wires = [*self._wires(), *(Wire(*self._upwards(shared, reader)) for shared, reader in self.ties)]
        ways = [[(x + left, y + top) for x, y in points] for points in route(self.layout, wires)]
        ways, tied = ways[: len(self.links)], ways[len(self.links) :]
        parts: list[Part] = [
            Line(points[0], curve(points), SHARED_COLOUR, 1.0, dashed=True, says=f"{reader} reads {shared}")
            for (shared, reader), points in zip(self.ties, tied, strict=True)
        ]
        for at in sorted(range(len(ways)), key=lambda at: (abs(self.lines[at].score), at)):
            parts += self._line(at, ways[at])
        boxes = [part for whole in self.wholes for part in self._box(whole, left, top)]
        return parts, [*boxes, *self._numbers(ways, left, top)]

    def _line(self, at: int, points: Sequence[Point]) -> Iterator[Part]:
        line, link = self.lines[at], self.links[at]
        pieces, width = curve(points), self._width(link)
        colour = KIND_COLOURS.get(line.kind, MIXED)
        yield Line(points[0], pieces, "#ffffff", width + 2.4, 0.8)
        says = _says(link, self.picture.scored, self.name)
        yield Line(points[0], pieces, colour, round(width, 2), 0.9, line.score < 0, says)
        if self.leads_down(link):
            x, y = points[0]
            yield Line((x - 4, y - 8), [((x, y - 1),), ((x + 4, y - 8),)], colour, max(1.8, width))

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
        return self.picture.styles.width(link.strongest)

    def leads_down(self, link: Link) -> bool:
        """Whether a line leads to a box further down."""
        return self.height_of[link.source] < self.height_of[link.target]

    def _box(self, whole: Whole, left: float, top: float) -> Iterator[Part]:
        node = self.layout.by_name[whole.name]
        x, y = node.left + left, node.top + top
        if not whole.group:
            mlp = whole.name.startswith("m")
            fill = BAR_FILL if node.kind != "whole" else MLP_FILL if mlp else HEAD_FILL
            yield Box(x, y, node.width, node.height, fill, BORDER, 1.0, 5, says=node.full_name)
            yield Words(node.x + left, node.y + top + 4, whole.name, SMALL, "middle")
            return
        says = f"{node.full_name}: {' '.join(whole.found)}"
        fill, dashed = self.picture.colour[whole.name], self.picture.dashed[whole.name]
        yield Box(x, y, node.width, node.height, fill, BORDER, 1.0, 5, dashed, says)
        baseline = y + PADDING + 10
        for text, bold, colour in words_of(whole):
            yield Words(node.x + left, baseline, text, SMALL, "middle", colour, bold)
            baseline += LEADING

    def _numbers(self, ways: Sequence[Sequence[Point]], left: float, top: float) -> Iterator[Part]:
        """What stands on each line, where there is room for it; the strongest lines choose first."""
        full = self.picture.full
        taken = [(n.left + left, n.top + top, n.right + left, n.bottom + top) for n in self.layout.nodes]
        tips = [(x + left - self.left, y + top) for arc in self.picture.placed.arcs for x, y in arc.corners[-1:]]
        taken += [(x - 6, y - 9, x + 6, y + 9) for x, y in tips]
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
                inside = not self.name or left <= place[0] < place[2] <= left + self.layout.width
                if inside and not any(_overlap(place, other) for other in taken):
                    taken.append(place)
                    yield Box(place[0], place[1], width, 13, "#ffffff", radius=3)
                    yield Words(x, y + 3.5, text, 9.5, "middle")
                    break


def _drawn(link: Link) -> Drawn:
    return Drawn(_name(link), link.source, link.target, _kind(link), link.strongest)


def _name(link: Link) -> str:
    return f"{link.source}->{link.target}"


def _kind(link: Link) -> str:
    """What the link's edges lead into, or nothing if they lead into several kinds of inputs."""
    return next(iter(link.kinds)) if len(link.kinds) == 1 else ""


def _says(link: Link, scored: bool, span: str) -> str:
    name = f"{_name(link)}@{span}" if span else _name(link)
    count = f"{len(link.edges):,} edge{'s' * (len(link.edges) != 1)}"
    if not scored:
        return f"{name}: {count}"
    return f"{name}: {count}; strongest {link.edges[0]} {link.strongest:.4g}, summed {link.summed:.4g}"


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
