"""The parts of a drawing: nodes with their marks, edges with colour and width, layers' names, what the legend says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgewise.graph import Circuit
from edgewise.reports.columns import Columns
from edgewise.reports.lanes import covering
from edgewise.reports.layout import Layout, Placed
from edgewise.reports.legend import GREY, SMALL, Legend, Part
from edgewise.reports.routing import Wire, curve, rounded, route
from edgewise.reports.scene import Box, Line, Words, text_width

IN_FULL = 100
"""Where there are more than `FADING` edges with scores, all but so many are faded."""
FADING = 150
BUNDLING = 120
"""More edges than this run together where they lead to one place."""

# Okabe and Ito's colours, told apart by the colour-blind; a node's letters say the same in black and white.
KIND_COLOURS = {
    "q": "#0072B2",
    "k": "#E69F00",
    "v": "#009E73",
    "head": "#56B4E9",
    "mlp": "#CC79A7",
    "logits": "#3a3a3a",
}
KIND_WORDS = {"q": "query", "k": "key", "v": "value", "head": "head", "mlp": "MLP", "logits": "logits"}
SHARED_COLOUR = "#9a9a9a"
ATTENTION_COLOUR, ATTENTION_WIDTH = "#9fb1cc", 1.6
EVERY_ARC = 1000
"""Of more lines of attention, only as many are drawn as it takes to look the same."""
# Paul Tol's light colours, made for dark words on them.
GROUP_COLOURS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00")
BORDER, HEAD_FILL, MLP_FILL, BAR_FILL, BAND = "#6b6b6b", "#ffffff", "#e9e9e9", "#f1f1f1", "#f6f7f9"

OUTER = 12.0
NAME_SIZE, NAME_ROOM = 12.0, 20.0
"""Of a column's name."""
TALL = 560.0
"""Columns higher than this have their names below, too."""
BETWEEN_COLUMNS = "#d9dee6"
TAB_WIDTH, TAB_HEIGHT, TAB_STEP = 13.0, 11.0, 16.0


@dataclass(frozen=True)
class Drawn:
    """An edge that is a line in the picture."""

    name: str
    source: str
    target: str
    kind: str
    score: float
    span: str = ""


class Styles:
    """How wide and how strong lines are."""

    def __init__(self, lines: Sequence[Drawn], scored: bool) -> None:
        self.scored, self.count = scored, len(lines)
        strengths = sorted((abs(line.score) for line in lines), reverse=True)
        self.largest = strengths[0] if strengths else 0.0
        self.smallest = strengths[-1] if strengths else 0.0
        self.fades = scored and self.count > FADING
        self.faint = strengths[IN_FULL - 1] if self.fades else 0.0
        self.in_full = sum(strength >= self.faint for strength in strengths)
        self.widest = 5.0 if self.count <= 100 else 3.6

    def width(self, score: float) -> float:
        """The square root of the effect, so that small ones can be seen and large ones leave room."""
        if not self.scored:
            return 1.8 if self.count <= 60 else 1.2 if self.count <= 300 else 0.9
        return 0.7 + (self.widest - 0.7) * math.sqrt(abs(score) / self.largest)

    def opacity(self, score: float) -> float:
        if self.fades and abs(score) < self.faint:
            return 0.28
        return 0.9 if self.scored or self.count <= FADING else 0.6

    def notes(self) -> Iterator[str]:
        if self.fades:
            rest = self.count - self.in_full
            yield f"The {self.in_full} strongest edges are drawn in full; the other {rest:,} are faded."
        if not self.scored and self.count > 1:
            yield "The circuit has no scores, so all edges are drawn alike."


def draw_lines(
    layout: Layout, lines: Sequence[Drawn], styles: Styles, left: float, top: float, circuit: Circuit
) -> list[Part]:
    """All edges, the weakest at the bottom; and what query heads share, as dashes."""
    shared = list(_shared_readers(layout, circuit))
    wires = [Wire(line.source, line.target, _port_offset(line.kind), styles.width(line.score)) for line in lines]
    wires += [Wire(group, head) for group, head in shared]
    ways = [[(x + left, y + top) for x, y in points] for points in route(layout, wires, bundled=len(lines) > BUNDLING)]
    parts: list[Part] = [
        Line(
            points[0], curve(points), SHARED_COLOUR, 1.0, dashed=True, says=f"{head} reads the key and value of {group}"
        )
        for (group, head), points in zip(shared, ways[len(lines) :], strict=True)
    ]
    halo = len(lines) <= FADING
    order = sorted(range(len(lines)), key=lambda index: (abs(lines[index].score), index))
    for index in order:
        line, points = lines[index], ways[index]
        pieces, width = curve(points), styles.width(line.score)
        if halo:
            parts.append(Line(points[0], pieces, "#ffffff", width + 2.4, 0.8))
        says = f"{line.name}: {line.score:.4g}" if styles.scored else line.name
        parts.append(
            Line(
                points[0],
                pieces,
                KIND_COLOURS[line.kind],
                round(width, 2),
                styles.opacity(line.score),
                line.score < 0,
                says,
            )
        )
    return parts


def draw_attention(placed: Columns, left: float, top: float) -> tuple[list[Part], list[Part]]:
    """What attention carries on from column to column, and arrowheads where it gets to."""
    lines: list[Part] = []
    heads: dict[tuple[float, float], Part] = {}
    for arc in placed.arcs if len(placed.arcs) <= EVERY_ARC else covering(placed.arcs):
        one = arc.carried
        corners = [(x + left, y + top) for x, y in arc.corners]
        what = " and ".join(KIND_WORDS[kind] for kind in (("k", "v") if one.kinds == ("head",) else one.kinds))
        says = f"{one.node} at {placed.spans[one.to]} looks at {placed.spans[one.at]}: {what} of {one.reader}"
        lines.append(Line(corners[0], rounded(corners, 5.0), ATTENTION_COLOUR, ATTENTION_WIDTH, says=says))
        (x, y), back = corners[-1], math.copysign(5.5, corners[-2][1] - corners[-1][1])
        wings = (x - 3, y + back), [((x, y + back / 6),), ((x + 3, y + back),)]
        heads[x, y] = Line(*wings, ATTENTION_COLOUR, ATTENTION_WIDTH)
    return lines, [*heads.values()]


def widths_of_names(spans: Sequence[str]) -> dict[str, float]:
    """How wide columns have to be for their names."""
    return {span: text_width(span, NAME_SIZE, bold=True) + NAME_ROOM for span in spans}


def names_of_columns(placed: Columns, left: float, top: float) -> tuple[list[Part], float, float]:
    """The name of every column above it, and below one that is tall, and a line between two columns.

    Returns:
        These, how far down columns begin, and where what stands below them does.
    """
    if not placed.named:
        return [], top, top + placed.height
    first = top + NAME_ROOM
    last = first + placed.height + (NAME_ROOM if placed.height > TALL else 0.0)
    parts: list[Part] = []
    for column in placed.columns:
        x = left + column.left
        if column.left:
            parts.append(Line((x, top + 4), [((x, last),)], BETWEEN_COLUMNS, 1.0))
        for y in (first - 4, last - 5) if placed.height > TALL else (first - 4,):
            parts.append(Words(x + column.layout.width / 2, y, column.name, NAME_SIZE, "middle", bold=True))
    return parts, first, last


def left_out(placed: Columns) -> list[str]:
    """What is to be said of spans that have no column."""
    there = {column.name for column in placed.columns}
    missing = [span for span in placed.spans if span not in there]
    return [f"Spans at which nothing is drawn are left out: {', '.join(missing)}."] if missing else []


def _shared_readers(layout: Layout, circuit: Circuit) -> Iterator[tuple[str, str]]:
    """Each shared key/value head in the picture with every query head in it that reads it."""
    share = circuit.graph.share
    for group in layout.nodes:
        if group.kind == "group":
            for head in range(group.head * share, (group.head + 1) * share):
                name = f"a{group.layer}.h{head}"
                if name in layout.by_name:
                    yield group.name, name


def _port_offset(kind: str) -> float:
    return {"q": -TAB_STEP, "v": TAB_STEP}.get(kind, 0.0)


def bands(layout: Layout, top: float, width: float) -> list[Part]:
    """Every second layer on a faint ground, and the layers' names on the left."""
    parts: list[Part] = []
    layers = sorted({node.layer for node in layout.nodes if node.layer >= 0})
    for number, layer in enumerate(layers):
        nodes = [node for node in layout.nodes if node.layer == layer]
        high, low = min(node.top for node in nodes) - 10, max(node.bottom for node in nodes) + 10
        if number % 2 == 0:
            parts.append(Box(0, top + high, width, low - high, BAND))
        middle = top + (high + low) / 2 + 4
        parts.append(Words(OUTER, middle, f"layer {layer}", SMALL, colour=GREY))
    return parts


def styles_of_groups(groups: Mapping[str, str] | None, layout: Layout) -> dict[str, tuple[str, bool]]:
    """A fill for every group in the picture, in the order in which groups are given; dashed when colours run out."""
    here = {node.group for node in layout.nodes if node.group is not None}
    names = list(dict.fromkeys((groups or {}).values()))
    return {
        name: (GROUP_COLOURS[number % len(GROUP_COLOURS)], number >= len(GROUP_COLOURS))
        for number, name in enumerate(names)
        if name in here
    }


def draw_node(
    node: Placed,
    circuit: Circuit,
    groups: Mapping[str, tuple[str, bool]],
    left: float,
    top: float,
    value: str = "",
) -> Iterator[Part]:
    """A node's box with its name, and its `value`, or a head's marks."""
    fill, dashed = groups.get(node.group or "", (_fill(node), False))
    says = f"{node.full_name}: {node.group}" if node.group else node.full_name
    x, y = node.left + left, node.top + top
    yield Box(x, y, node.width, node.height, fill, BORDER, 1.0, 5, dashed, says)
    tabs = list(_tabs(node, circuit, left, top))
    below = bool(value) and node.kind == "head"
    label = f"{node.label}  {value}" if value and not below else node.label
    yield Words(node.x + left, (y + 14) if tabs or below else node.y + top + 4, label, SMALL, "middle")
    if below:
        yield Words(node.x + left, y + 26, value, 9.5, "middle", GREY)
    yield from tabs


def _fill(node: Placed) -> str:
    return {"head": HEAD_FILL, "group": HEAD_FILL, "mlp": MLP_FILL}.get(node.kind, BAR_FILL)


def _tabs(node: Placed, circuit: Circuit, left: float, top: float) -> Iterator[Part]:
    """A head's q, k and v: filled where edges lead in, an outline where only the port edge is there."""
    at = f"@{node.span}" if node.span else ""
    for kind in ("q", "k", "v"):
        column = circuit.graph.input_index.get(f"{node.name}<{kind}>")
        if column is None or not (circuit.ports[column] or circuit.edges[:, column].any()):
            continue
        filled = bool(circuit.edges[:, column].any())
        x, y = node.x + _port_offset(kind) + left, node.bottom + top - TAB_HEIGHT - 2
        colour = KIND_COLOURS[kind]
        yield Box(
            x - TAB_WIDTH / 2, y, TAB_WIDTH, TAB_HEIGHT, colour if filled else "#ffffff", colour, radius=2.5,
            says=f"{node.name}<{kind}>{at}",
        )  # fmt: skip
        yield Words(x, y + 8.6, kind, 9.0, "middle", "#ffffff" if filled and kind != "k" else "#1a1a1a", True)


def explain_attention(legend: Legend, placed: Columns) -> None:
    if placed.arcs:
        entry = {"carries a key or a value on to where its head is used": (ATTENTION_COLOUR, ATTENTION_WIDTH, False)}
        legend.lines("attention", entry)


def explain(
    legend: Legend,
    placed: Columns,
    lines: Sequence[Drawn],
    styles: Styles,
    effect: str,
    groups: Mapping[str, str] | None,
) -> None:
    kinds = [kind for kind in KIND_COLOURS if any(line.kind == kind for line in lines)]
    if kinds:
        legend.lines("edges into", {KIND_WORDS[kind]: (KIND_COLOURS[kind], 2.5, False) for kind in kinds})
    explain_attention(legend, placed)
    if any(node.kind == "group" for node in placed.together.nodes):
        legend.lines("a key/value head", {"read by query heads": (SHARED_COLOUR, 1.0, True)})
    if styles.scored:
        legend.lines(effect, width_steps(styles, lines))
    fills = styles_of_groups(groups, placed.together)
    if fills:
        legend.boxes("components", {name: (fill, BORDER, dashed) for name, (fill, dashed) in fills.items()})


def width_steps(styles: Styles, lines: Sequence[Drawn]) -> dict[str, tuple[str, float, bool]]:
    """Scores with the width and the dashes that lines of them have, for the legend."""
    least = max(styles.smallest, styles.largest / 100)
    steps = (styles.largest, max(styles.largest / 4, least), least)
    entries = {_number(value): ("#3a3a3a", styles.width(value), False) for value in steps}
    if any(line.score < 0 for line in lines):
        entries["below zero"] = ("#3a3a3a", 1.5, True)
    return entries


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.2g}"
