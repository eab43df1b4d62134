"""The circuit as a drawing: SVG, PNG or PDF, with no system package.

Layers from bottom to top (`layout`), edges led between the boxes (`routing`), as wide as their effect is large,
coloured by what they lead into: a query, a key, a value, an MLP or the logits. Port edges are no lines: a head's q, k
and v are small marks under its name, filled where edges lead in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.files import write_bytes
from edgewise.graph import Circuit, OutputCircuit, as_shown, node_scores
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.groups import GivenGroups, Groups, group_of, read_groups
from edgewise.reports.collapsed import collapsed
from edgewise.reports.columns import place_columns
from edgewise.reports.legend import Legend, heading
from edgewise.reports.marks import (
    OUTER,
    Drawn,
    Styles,
    bands,
    draw_attention,
    draw_lines,
    draw_node,
    explain,
    left_out,
    names_of_columns,
    styles_of_groups,
    widths_of_names,
)
from edgewise.reports.scene import Scene, to_svg

FORMATS = (".svg", ".png", ".pdf")
MOST_UNSCORED = 3000
"""More edges than this are not drawn unless scores say which matter."""

AXIS = 62.0
"""Room for the names of the layers."""
LEAST_WIDTH, MOST_TITLE = 470.0, 500


def draw(
    circuit: Circuit,
    path: str | Path | None = None,
    *,
    title: str = "",
    subtitle: str = "",
    groups: GivenGroups | None = None,
    collapse: bool = False,
    columns: bool = True,
    edges: int | None = None,
    effect: str = "score",
    notes: Sequence[str] = (),
) -> str:
    """Draw a circuit.

    Args:
        path: where to write it; the ending says as what: `.svg`, `.png` or `.pdf`. Nothing is written without one.
        title, subtitle: what stands above it.
        groups: groups of nodes, which have colours: names and nodes, or a JSON or TOML file of them.
        collapse: draw each group as one box, and the edges between two of them as one line; nodes of no group stay by
            themselves.
        columns: of a circuit that tells positions apart, a column for each span. False for all spans in one, with a
            line for each span of an edge.
        edges: draw only so many (of a collapsed circuit, lines), those with the largest scores. What is left out is
            said in the picture. Of a circuit of whole nodes the nodes alone are drawn, unless a number of edges is
            given.
        effect: what the circuit's scores are, for the legend, as in `rise of kl_div`.
        notes: sentences to put under the picture.

    Returns:
        The picture as SVG text. The same circuit always gives the same text.

    Raises:
        EdgewiseError: a circuit of neurons; groups that are none of this graph, or none to collapse; an ending that is
            no format, a file that cannot be written, `edges` below 1, more edges than can be told apart without scores
            that say which to draw, or a title of more than `MOST_TITLE` characters.
    """
    require_edges(circuit, "there is no picture")
    if isinstance(circuit, OutputCircuit):
        circuit, notes = circuit.of_edges(), (*notes, "Which output dimensions its nodes write is not shown.")
    suffix = None if path is None else require_format(Path(path))
    named = {} if groups is None else read_groups(groups, circuit.graph)
    about: dict[str, Any] = {"title": title, "subtitle": subtitle, "columns": columns, "edges": edges}
    about |= {"effect": effect, "notes": notes}
    scene = (compose_collapsed if collapse else compose)(circuit, groups=named, **about)
    text = to_svg(scene)
    if path is not None:
        if suffix == ".svg":
            data = text.encode()
        else:
            from edgewise.reports.raster import to_pdf, to_png

            data = to_png(scene) if suffix == ".png" else to_pdf(scene)
        write_bytes(Path(path), data)
    return text


def require_format(path: Path) -> str:
    """The ending of a picture's file name; an EdgewiseError if it is none that can be written."""
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
    groups: Groups | None = None,
    columns: bool = True,
    edges: int | None = None,
    effect: str = "score",
    notes: Sequence[str] = (),
) -> Scene:
    """The picture that `draw` writes, as a scene."""
    _check(title, edges)
    values: dict[str, str] = {}
    if circuit.whole_nodes and edges is None:
        chosen, said, values = _boxes(circuit)
    else:
        chosen, said = _choose(_edges_of_nodes(circuit), edges)
        if circuit.whole_nodes:
            said.append("Whole nodes were chosen: an edge is as strong as the weaker of its two nodes.")
    home = group_of(groups or {})
    placed = place_columns(chosen, home, apart=columns and not values, least_widths=widths_of_names(chosen.graph.spans))
    lines = [] if values else list(_edges(chosen))
    scored = len({abs(line.score) for line in lines}) > 1
    width = max(LEAST_WIDTH, placed.width + AXIS + OUTER)
    left = AXIS + (width - AXIS - OUTER - placed.width) / 2
    parts, top = heading(title, subtitle, OUTER, width - 2 * OUTER)
    names, top, bottom = names_of_columns(placed, left, top)
    attention, arrowheads = draw_attention(placed, left, top)
    parts += [*bands(placed.together, top, width), *names, *attention]
    styles = Styles(lines, scored)
    fills = styles_of_groups(home, placed.together)
    for column in placed.columns:
        own = [line for line in lines if line.span == column.name] if placed.named else lines
        parts += draw_lines(column.layout, own, styles, left + column.left, top, column.circuit)
    parts += arrowheads
    for column in placed.columns:
        for node in column.layout.nodes:
            parts += draw_node(node, column.circuit, fills, left + column.left, top, values.get(node.name, ""))
    legend = Legend(OUTER, bottom, width - 2 * OUTER)
    explain(legend, placed, lines, styles, effect, home)
    for note in (*said, *left_out(placed), *styles.notes(), *notes):
        legend.note(note)
    about = title or f"a circuit of {circuit.size:,} {circuit.unit}"
    return Scene(width, legend.y + 12, (*parts, *legend.parts), about)


def compose_collapsed(
    circuit: Circuit,
    *,
    title: str = "",
    subtitle: str = "",
    groups: Groups | None = None,
    columns: bool = True,
    edges: int | None = None,
    effect: str = "score",
    notes: Sequence[str] = (),
) -> Scene:
    """The picture that `draw` writes of a circuit whose groups are collapsed."""
    _check(title, edges)
    picture = collapsed(circuit, groups or {}, edges, columns=columns)
    width = max(LEAST_WIDTH, picture.placed.width + 2 * OUTER)
    left = (width - picture.placed.width) / 2
    parts, top = heading(title, subtitle, OUTER, width - 2 * OUTER)
    names, top, bottom = names_of_columns(picture.placed, left, top)
    parts += [*names, *picture.draw(left, top)]
    legend = Legend(OUTER, bottom, width - 2 * OUTER)
    picture.explain(legend, effect)
    said = [] if circuit else ["The circuit is empty."]
    for note in (*said, *left_out(picture.placed), *notes):
        legend.note(note)
    about = title or f"a circuit of {circuit.n_edges:,} edges"
    return Scene(width, legend.y + 12, (*parts, *legend.parts), about)


def _check(title: str, edges: int | None) -> None:
    if len(title) > MOST_TITLE:
        raise EdgewiseError(f"a title has at most {MOST_TITLE} characters, not {len(title):,}")
    if edges is not None and edges < 1:
        raise EdgewiseError(f"the number of edges to draw should be at least 1, not {edges}")


def _boxes(circuit: Circuit) -> tuple[Circuit, list[str], dict[str, str]]:
    """What a circuit of whole nodes is drawn as, no lines: its nodes, what is to be said, and the nodes' numbers."""
    if not circuit:
        return circuit, ["The circuit is empty."], {}
    scores, names = node_scores(circuit), circuit.nodes()
    found = dict.fromkeys(names, "")
    said = f"{circuit.size:,} nodes, each with all that it writes; edges between them are not drawn."
    if scores is not None:
        found |= {name: f"{scores[circuit.graph.source_index[name]]:z.2g}" for name in names[:-1]}
        said = f"{said[:-1]}. The number in a box is its node's score."
    edges = circuit.edges.copy()
    edges[:, :-1] = False  # nodes stand where they do without what they read
    return replace(circuit, edges=edges, whole_nodes=False), [said], found


def _edges_of_nodes(circuit: Circuit) -> Circuit:
    """A circuit; of one of whole nodes the edges between them, as strong as the weaker of their two nodes."""
    shown, scores, graph = as_shown(circuit), node_scores(circuit), circuit.graph
    if not circuit.whole_nodes or scores is None:
        return shown
    readers = [graph.nodes_reading(place) for place in graph.inputs]
    reading = np.array([max((abs(scores[row]) for row in rows), default=np.inf) for rows in readers])
    return shown.with_scores(np.where(shown.edges, np.minimum(abs(scores)[:, None], reading[None, :]), 0.0))


def _choose(circuit: Circuit, edges: int | None) -> tuple[Circuit, list[str]]:
    """The part of the circuit that is drawn, and what is to be said of the rest."""
    total, ports = int(circuit.edges.sum()), int(circuit.ports.sum())
    said = []
    if ports:
        said.append(
            f"{circuit.n_edges:,} edges; {ports:,} of them are a head's own query, key or value, which are its marks, "
            "not lines."
        )
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
            target.span,
        )


def _shown(circuit: Circuit) -> str | None:
    """What a notebook shows of a circuit; None, so that it shows the words instead, where a drawing says nothing."""
    try:
        return draw(circuit)
    except EdgewiseError:
        return None


Circuit.draw = draw
Circuit._repr_svg_ = _shown
