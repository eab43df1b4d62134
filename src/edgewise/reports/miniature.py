"""A circuit as a picture the size of a stamp: the shape of its strongest paths, without names."""

from __future__ import annotations

import math

import numpy as np

from edgewise.graph import Circuit, Graph, Input, Node
from edgewise.graph.circuit import Floats
from edgewise.reports.marks import KIND_COLOURS
from edgewise.reports.scene import Box, Line, Scene, to_svg

WIDTH, HEIGHT, MARGIN = 320.0, 190.0, 16.0
MOST_LINES = 60
DOT = 5.0
INK, FAINT = "#3a4554", "#dfe4ea"


def miniature(circuit: Circuit, strength: Floats | None = None, *, title: str = "") -> str:
    """The strongest edges of a circuit as SVG: layers from left to right, heads from top to bottom, MLPs below them.

    Args:
        strength: `[sources, inputs]`, how much each edge matters. Without it the first edges are taken.
    """
    graph = circuit.graph
    rows, columns = np.nonzero(circuit.edges)
    sizes = np.zeros(len(rows)) if strength is None else np.nan_to_num(strength[rows, columns], posinf=0.0, neginf=0.0)
    order = np.argsort(-np.abs(sizes), kind="stable")[:MOST_LINES]
    largest = float(np.abs(sizes).max(initial=0.0)) or 1.0
    lines: list[Line] = []
    seen: dict[tuple[float, float], None] = {}
    for at in order[::-1]:  # the strongest lie above
        place = graph.inputs[columns[at]]
        source = graph.sources[rows[at]]
        ends = _place(graph.n_layers, graph.n_heads, source), _reader(graph, place)
        (x, y), (to_x, to_y) = ends
        middle = (x + to_x) / 2
        colour = KIND_COLOURS[place.kind]
        width = 0.7 + 2.3 * math.sqrt(abs(sizes[at]) / largest)
        lines.append(Line((x, y), [((middle, y), (middle, to_y), (to_x, to_y))], colour, width, 0.75))
        seen.update(dict.fromkeys(ends))
    ground = [
        Box(_x(graph.n_layers, layer) - 0.5, MARGIN, 1.0, HEIGHT - 2 * MARGIN, FAINT) for layer in range(graph.n_layers)
    ]
    dots = [Box(x - DOT / 2, y - DOT / 2, DOT, DOT, INK, radius=DOT / 2) for x, y in seen]
    return to_svg(Scene(WIDTH, HEIGHT, (*ground, *lines, *dots), title))


def _x(layers: int, layer: int) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * (layer + 1) / (layers + 1)


def _place(layers: int, heads: int, node: Node) -> tuple[float, float]:
    bottom, top = HEIGHT - MARGIN, MARGIN
    if node.kind == "logits":
        return WIDTH - MARGIN, (top + bottom) / 2
    if node.kind == "mlp":
        return _x(layers, node.layer) + 0.3 * (WIDTH - 2 * MARGIN) / (layers + 1), bottom
    if node.kind == "head":
        return _x(layers, node.layer), top + (bottom - top) * 0.8 * (node.head + 0.5) / heads
    return MARGIN, {"tok": 0.35, "pos": 0.65}.get(node.kind, 0.5) * (bottom - top) + top


def _reader(graph: Graph, place: Input) -> tuple[float, float]:
    """Where what reads stands: keys and values that heads share, between them."""
    readers = [graph.sources[row] for row in graph.nodes_reading(place)] or [Node("logits")]
    spots = [_place(graph.n_layers, graph.n_heads, node) for node in readers]
    return spots[0][0], sum(y for _, y in spots) / len(spots)
