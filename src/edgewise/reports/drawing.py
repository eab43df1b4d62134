"""The circuit as a drawing: SVG, PNG or PDF, with no system package.

Layers from bottom to top (`layout`), edges led between the boxes (`routing`), as wide as their effect is large,
coloured by what they lead into: a query, a key, a value, an MLP or the logits. Port edges are no lines: a head's q, k
and v are small marks under its name, filled where edges lead in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.files import write_bytes
from edgewise.graph import Circuit
from edgewise.reports.layout import Layout, Placed, place
from edgewise.reports.legend import GREY, SMALL, Legend, Part, heading
from edgewise.reports.routing import Wire, curve, route
from edgewise.reports.scene import Box, Line, Scene, Words, to_svg

FORMATS = (".svg", ".png", ".pdf")
MOST_UNSCORED = 3000
"""More edges than this are not drawn unless scores say which matter."""
IN_FULL = 100
"""Where there are more than `FADING` edges with scores, all but so many are faded."""
FADING = 150
BUNDLING = 120

# Okabe and Ito's colours, told apart by the colour-blind; a node's letters say the same in black and white.
KIND_COLOURS = {"q": "#0072B2", "k": "#E69F00", "v": "#009E73", "mlp": "#CC79A7", "logits": "#3a3a3a"}
KIND_WORDS = {"q": "query", "k": "key", "v": "value", "mlp": "MLP", "logits": "logits"}
SHARED_COLOUR = "#9a9a9a"
# Paul Tol's light colours, made for dark words on them.
GROUP_COLOURS = ("#77AADD", "#EE8866", "#EEDD88", "#FFAABB", "#99DDFF", "#44BB99", "#BBCC33", "#AAAA00")
BORDER, HEAD_FILL, MLP_FILL, BAR_FILL, BAND = "#6b6b6b", "#ffffff", "#e9e9e9", "#f1f1f1", "#f6f7f9"

AXIS = 62.0
"""Room for the names of the layers."""
OUTER = 12.0
LEAST_WIDTH = 470.0
TAB_WIDTH, TAB_HEIGHT, TAB_STEP = 13.0, 11.0, 16.0


@dataclass(frozen=True)
class Drawn:
    """An edge that is a line in the picture."""

    name: str
    source: str
    target: str
    kind: str
    score: float


def draw(
    circuit: Circuit,
    path: str | Path | None = None,
    *,
    title: str = "",
    subtitle: str = "",
    groups: Mapping[str, str] | None = None,
    edges: int | None = None,
    effect: str = "score",
    notes: Sequence[str] = (),
) -> str:
    """Draw a circuit.

    Args:
        path: where to write it; the ending says as what: `.svg`, `.png` or `.pdf`. Nothing is written without one.
        title, subtitle: what stands above it.
        groups: the name of the group of components that a node belongs to, by the node's name; groups have colours.
        edges: draw only so many, those with the largest scores. What is left out is said in the picture.
        effect: what the circuit's scores are, for the legend, as in `rise of kl_div`.
        notes: sentences to put under the picture.

    Returns:
        The picture as SVG text. The same circuit always gives the same text.

    Raises:
        EdgewiseError: an ending that is no format, a file that cannot be written, `edges` below 1, or more edges than
            can be told apart without scores that say which to draw.
    """
    suffix = None if path is None else _suffix(Path(path))
    scene = compose(circuit, title=title, subtitle=subtitle, groups=groups, edges=edges, effect=effect, notes=notes)
    text = to_svg(scene)
    if path is not None:
        if suffix == ".svg":
            data = text.encode()
        else:
            from edgewise.reports.raster import to_pdf, to_png

            data = to_png(scene) if suffix == ".png" else to_pdf(scene)
        write_bytes(Path(path), data)
    return text


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        wrong = f"not {suffix!r}" if suffix else "and it has no ending"
        raise EdgewiseError(
            f"the picture's file name {str(path)!r} should end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, {wrong}"
        )
    return suffix


def compose(
    circuit: Circuit,
    *,
    title: str = "",
    subtitle: str = "",
    groups: Mapping[str, str] | None = None,
    edges: int | None = None,
    effect: str = "score",
    notes: Sequence[str] = (),
) -> Scene:
    """The picture that `draw` writes, as a scene."""
    chosen, said = _choose(circuit, edges)
    layout = place(chosen, groups)
    lines = list(_edges(chosen))
    scored = len({abs(line.score) for line in lines}) > 1
    width = max(LEAST_WIDTH, layout.width + AXIS + OUTER)
    left = AXIS + (width - AXIS - OUTER - layout.width) / 2
    parts, top = heading(title, subtitle, OUTER, width - 2 * OUTER)
    parts += _bands(layout, top, width)
    styles = _Styles(lines, scored)
    parts += _lines(layout, lines, styles, left, top, chosen)
    for node in layout.nodes:
        parts += _node(node, chosen, styles_of_groups(groups, layout), left, top)
    legend = Legend(OUTER, top + layout.height, width - 2 * OUTER)
    _explain(legend, layout, lines, styles, effect, groups)
    for note in (*said, *styles.notes(), *notes):
        legend.note(note)
    about = title or f"a circuit of {circuit.n_edges:,} edges"
    return Scene(width, legend.y + 12, (*parts, *legend.parts), about)


def _choose(circuit: Circuit, edges: int | None) -> tuple[Circuit, list[str]]:
    """The part of the circuit that is drawn, and what is to be said of the rest."""
    total, ports = int(circuit.edges.sum()), int(circuit.ports.sum())
    said = []
    if ports:
        said.append(
            f"{circuit.n_edges:,} edges; {ports:,} of them are a head's own query, key or value, which are its marks, "
            "not lines."
        )
    if edges is not None and edges < 1:
        raise EdgewiseError(f"the number of edges to draw should be at least 1, not {edges}")
    if not circuit:
        return circuit, ["The circuit is empty."]
    scores = np.zeros(circuit.edges.shape) if circuit.scores is None else np.nan_to_num(np.abs(circuit.scores))
    rows, columns = np.nonzero(circuit.edges)
    strengths = scores[rows, columns]
    most = edges
    if len(set(strengths.tolist())) < 2:
        if edges is not None and edges < total:
            raise EdgewiseError("the circuit has no scores, so there is no telling which edges are the strongest")
        if total > MOST_UNSCORED:
            raise EdgewiseError(
                f"the circuit has {total:,} edges and no scores that say which of them to draw; without scores, "
                f"at most {MOST_UNSCORED:,} can be drawn"
            )
    elif most is None and total > MOST_UNSCORED:
        most = MOST_UNSCORED
    if most is None or most >= total:
        return circuit, said
    strongest = np.argsort(-strengths, kind="stable")[:most]
    kept = np.zeros_like(circuit.edges)
    kept[rows[strongest], columns[strongest]] = True
    said.append(f"The {most:,} strongest edges are drawn; {total - most:,} weaker ones are left out.")
    chosen = Circuit(circuit.graph, kept, circuit.ports & kept.any(axis=0), circuit.scores, circuit.port_scores)
    return chosen, said


def _edges(circuit: Circuit) -> Iterator[Drawn]:
    """The edges that are lines, early senders first."""
    graph = circuit.graph
    for row, column in zip(*(one.tolist() for one in np.nonzero(circuit.edges)), strict=True):
        source, target = graph.sources[row], graph.inputs[column]
        score = 0.0 if circuit.scores is None else float(circuit.scores[row, column])
        yield Drawn(
            f"{source.name}->{target.name}",
            source.name,
            target.owner,
            target.kind,
            score if math.isfinite(score) else 0.0,
        )


class _Styles:
    """How wide and how strong lines are."""

    def __init__(self, lines: Sequence[Drawn], scored: bool) -> None:
        self.scored, self.count = scored, len(lines)
        strengths = sorted((abs(line.score) for line in lines), reverse=True)
        self.largest = strengths[0] if strengths else 0.0
        self.smallest = strengths[-1] if strengths else 0.0
        self.fades = scored and self.count > FADING
        self.faint = strengths[IN_FULL - 1] if self.fades else 0.0
        self.widest = 5.0 if self.count <= 100 else 3.6

    def width(self, score: float) -> float:
        """The square root of the effect, so that small ones can be seen and large ones leave room."""
        if not self.scored:
            return 1.8 if self.count <= 60 else 1.2 if self.count <= 300 else 0.9
        return 0.7 + (self.widest - 0.7) * math.sqrt(abs(score) / self.largest)

    def opacity(self, score: float) -> float:
        if self.fades and abs(score) < self.faint:
            return 0.28
        return 0.9 if self.scored or self.count <= 150 else 0.6

    def notes(self) -> Iterator[str]:
        if self.fades:
            yield f"The {IN_FULL} strongest edges are drawn in full; the other {self.count - IN_FULL:,} are faded."
        if not self.scored and self.count > 1:
            yield "The circuit has no scores, so all edges are drawn alike."


def _lines(
    layout: Layout, lines: Sequence[Drawn], styles: _Styles, left: float, top: float, circuit: Circuit
) -> list[Part]:
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


def _bands(layout: Layout, top: float, width: float) -> list[Part]:
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


def _node(
    node: Placed, circuit: Circuit, groups: Mapping[str, tuple[str, bool]], left: float, top: float
) -> Iterator[Part]:
    fill, dashed = groups.get(node.group or "", (_fill(node), False))
    says = f"{node.name}: {node.group}" if node.group else node.name
    x, y = node.left + left, node.top + top
    yield Box(x, y, node.width, node.height, fill, BORDER, 1.0, 5, dashed, says)
    tabs = list(_tabs(node, circuit, left, top))
    yield Words(node.x + left, (y + 14) if tabs else node.y + top + 4, node.label, SMALL, "middle")
    yield from tabs


def _fill(node: Placed) -> str:
    return {"head": HEAD_FILL, "group": HEAD_FILL, "mlp": MLP_FILL}.get(node.kind, BAR_FILL)


def _tabs(node: Placed, circuit: Circuit, left: float, top: float) -> Iterator[Part]:
    """A head's q, k and v: filled where edges lead in, an outline where only the port edge is there."""
    for kind in ("q", "k", "v"):
        column = circuit.graph.input_index.get(f"{node.name}<{kind}>")
        if column is None or not (circuit.ports[column] or circuit.edges[:, column].any()):
            continue
        filled = bool(circuit.edges[:, column].any())
        x, y = node.x + _port_offset(kind) + left, node.bottom + top - TAB_HEIGHT - 2
        colour = KIND_COLOURS[kind]
        yield Box(
            x - TAB_WIDTH / 2, y, TAB_WIDTH, TAB_HEIGHT, colour if filled else "#ffffff", colour, radius=2.5,
            says=f"{node.name}<{kind}>",
        )  # fmt: skip
        yield Words(x, y + 8.6, kind, 9.0, "middle", "#ffffff" if filled and kind != "k" else "#1a1a1a", True)


def _explain(
    legend: Legend,
    layout: Layout,
    lines: Sequence[Drawn],
    styles: _Styles,
    effect: str,
    groups: Mapping[str, str] | None,
) -> None:
    kinds = [kind for kind in KIND_COLOURS if any(line.kind == kind for line in lines)]
    if kinds:
        legend.lines("edges into", {KIND_WORDS[kind]: (KIND_COLOURS[kind], 2.5, False) for kind in kinds})
    if any(node.kind == "group" for node in layout.nodes):
        legend.lines("a key/value head", {"read by query heads": (SHARED_COLOUR, 1.0, True)})
    if styles.scored:
        steps = (styles.largest, styles.largest / 4, max(styles.smallest, styles.largest / 100))
        entries = {_number(value): ("#3a3a3a", styles.width(value), False) for value in steps}
        if any(line.score < 0 for line in lines):
            entries["below zero"] = ("#3a3a3a", 1.5, True)
        legend.lines(effect, entries)
    fills = styles_of_groups(groups, layout)
    if fills:
        legend.boxes("components", {name: (fill, BORDER, dashed) for name, (fill, dashed) in fills.items()})


def _number(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.2g}"
