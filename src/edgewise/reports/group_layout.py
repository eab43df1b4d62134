"""Where the boxes of a circuit stand in which each group of nodes is one: in rows, in a column for each span.

Boxes stand in the order in which their nodes stand in the model, on average, early ones below; nodes of no group are
small boxes by themselves. Boxes side by side have no line between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgewise.graph import Carried, Circuit
from edgewise.reports.columns import Columns, SpanColumn, joined, side_by_side
from edgewise.reports.lanes import Lanes
from edgewise.reports.layout import BOX_HEIGHT, BOX_WIDTH, MARGIN, Layout, Placed, PlacedKind, stacked
from edgewise.reports.legend import SMALL
from edgewise.reports.merged import Link, Whole
from edgewise.reports.scene import shorten, wrap

GROUP_WIDTH = 150.0
SPREAD = 64.0
"""Between two boxes side by side."""
BETWEEN = 64.0
"""From one row of boxes to the next: room for a line's numbers."""
ASIDE = 70.0
"""Room on both sides for lines that pass."""
NARROW_ASIDE = 52.0
"""The same in the column of a span."""
LEAST_WIDTH = 460.0
PADDING, LEADING = 8.0, 14.0
MOST_ACROSS = 8
"""Boxes side by side."""
MOST_LINES = 3
"""Of a box's list of nodes."""


@dataclass(frozen=True)
class Merged:
    """A circuit, or what of it is at one span, with its wholes and the links and ties between them."""

    circuit: Circuit
    wholes: Sequence[Whole]
    links: Sequence[Link]
    ties: Sequence[tuple[str, str]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Wholes between which there is a line."""
        return [*((link.source, link.target) for link in self.links), *self.ties]


def place_groups(merged: Merged) -> Columns:
    """All boxes in one column."""
    rows = _rows(merged)
    width = max(LEAST_WIDTH, _room(rows, ASIDE))
    tall = [max(size_of(whole)[1] for whole in row) for row in rows]
    middles, height = stacked(tall, BETWEEN)
    layout = Layout(_stand(merged, rows, middles, width), width, height)
    return Columns((SpanColumn("", 0.0, layout, merged.circuit),), (), width, height)


def place_group_columns(
    merged: Merged,
    parts: Mapping[str, Merged],
    lines: Sequence[Carried],
    spans: Sequence[str],
    least_widths: Mapping[str, float],
) -> Columns:
    """The boxes of every span in a column of its own, with the rows in common.

    Args:
        merged: all of the circuit, whose rows they are.
        parts: what of it is at each span, by the span's name.
        lines: what attention carries on between wholes at different spans.
    """
    numbers = {whole.name: number for number, row in enumerate(_rows(merged)) for whole in row}
    count = max(numbers.values()) + 1
    rows = {
        name: [[whole for whole in part.wholes if numbers[whole.name] == number] for number in range(count)]
        for name, part in parts.items()
    }
    widths = {name: max(least_widths[name], _room(own, NARROW_ASIDE)) for name, own in rows.items()}
    lefts = side_by_side(widths)
    tall = [max(size_of(whole)[1] for own in rows.values() for whole in own[number]) for number in range(count)]

    def stand(middles: Sequence[float]) -> dict[str, tuple[Placed, ...]]:
        return {name: _stand(part, rows[name], middles, widths[name], name) for name, part in parts.items()}

    flat = stand([0.0] * count)  # x does not hang on y, and y on the lanes, which hang on x
    x_of = {(box.name, name): box.x + lefts[name] for name, boxes in flat.items() for box in boxes}
    lanes = Lanes(lines, spans, x_of, numbers)
    middles, height = stacked(tall, BETWEEN, lanes.above)
    columns = tuple(
        SpanColumn(name, lefts[name], Layout(boxes, widths[name], height), parts[name].circuit)
        for name, boxes in stand(middles).items()
    )
    return joined(columns, lanes, [y - own / 2 for y, own in zip(middles, tall, strict=True)], lines)


def _rows(merged: Merged) -> list[list[Whole]]:
    """Rows of wholes in their order, with no line inside a row; the embedding below, the logits above."""
    linked = {frozenset(pair) for pair in merged.pairs}
    bottom = [whole for whole in merged.wholes if whole.name in ("input", "tok", "pos")]
    above = [whole for whole in merged.wholes if whole.name == "logits"]
    rows: list[list[Whole]] = [bottom] if bottom else []
    first = len(rows)
    for whole in merged.wholes:
        if whole in bottom or whole in above:
            continue
        row = rows[-1] if len(rows) > first else None
        if row is None or len(row) == MOST_ACROSS or any(frozenset((whole.name, one.name)) in linked for one in row):
            rows.append([whole])
        else:
            row.append(whole)
    return rows + ([above] if above else [])


def _room(rows: Sequence[Sequence[Whole]], aside: float) -> float:
    """How wide rows are, with room on both sides."""
    return max((_width(row) + 2 * aside for row in rows), default=0.0)


def _width(row: Sequence[Whole]) -> float:
    return sum(size_of(whole)[0] for whole in row) + SPREAD * (len(row) - 1)


def _stand(
    merged: Merged, rows: Sequence[Sequence[Whole]], middles: Sequence[float], width: float, span: str = ""
) -> tuple[Placed, ...]:
    """The boxes of all rows in their places; some rows may have none."""
    placed: dict[str, Placed] = {}
    for row, y in zip(rows, middles, strict=True):
        if not row:
            continue
        bars = _kind_of(row[0]) != "whole"
        each = (width - 2 * MARGIN - MARGIN * (len(row) - 1)) / len(row)
        x = MARGIN if bars else (width - _width(row)) / 2
        for whole in row if bars else _in_order(row, merged.pairs, placed):
            own, tall = size_of(whole)
            own = each if bars else own
            middle = round(x + own / 2, 2)
            placed[whole.name] = Placed(
                whole.name, _kind_of(whole), -1, -1, middle, y, own, tall, whole.name, None, span
            )  # fmt: skip
            x += own + (MARGIN if bars else SPREAD)
    return tuple(placed.values())


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


def size_of(whole: Whole) -> tuple[float, float]:
    """How wide and how high its box is."""
    if not whole.group:
        return BOX_WIDTH, BOX_HEIGHT
    return GROUP_WIDTH, 2 * PADDING + LEADING * len(list(words_of(whole)))


def words_of(whole: Whole) -> Iterator[tuple[str, bool, str]]:
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
