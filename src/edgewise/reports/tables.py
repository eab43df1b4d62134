"""Tables of sweeps and of the paper's evaluation, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from edgewise.evaluation import CircuitComparison, roc_curve, roc_point
from edgewise.evaluation.share import share_of_way
from edgewise.graph import Circuit
from edgewise.reports.words import NEGATED, metric_number, number, percent, readers_value
from edgewise.runs.paper import Reproduction
from edgewise.runs.paper_cells import Cell
from edgewise.runs.paper_curves import Curve
from edgewise.runs.paper_findings import Finding, Measure
from edgewise.runs.published import ABSOLUTE, RESET, TABLES
from edgewise.runs.series import Series
from edgewise.runs.sweep import COUNTED

SHORT = {"acdc": "ACDC", "head-importance": "HISP", "subnetwork-probing": "SP"}

Rows = tuple[list[str], list[list[str]]]
"""A heading and the lines under it."""


def paper_rows(cells: Sequence[Cell]) -> tuple[Rows, list[str]]:
    """Published area, ours, and the standard area for edges and nodes, with the number of a note where they differ.

    And the notes.
    """
    lines: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        lines.setdefault((cell.ablation, cell.task, cell.metric, cell.reading, cell.method), []).append(cell)
    notes = list(dict.fromkeys(cell.note for cell in cells if cell.note))
    rows = []
    for (ablation, task, metric, reading, method), (edges, nodes) in lines.items():
        numbers = dict.fromkeys(notes.index(cell.note) + 1 for cell in (edges, nodes) if cell.note)
        areas = [text for cell in (edges, nodes) for text in map(_area, (cell.published, cell.ours, cell.trapezoid))]
        rows.append(
            [
                _ablated(ablation),
                task,
                metric,
                reading,
                SHORT.get(method, method),
                *areas,
                " ".join(f"[{one}]" for one in numbers),
            ]
        )
    columns = [f"{what} {which}" for what in ("edges", "nodes") for which in ("paper", "ours", "standard")]
    return (["ablation", "task", "metric", "reading", "method", *columns, "note"], rows), notes


def curve_rows(curves: Sequence[Curve]) -> Rows:
    """How many edges each method needs for how much of the way from the ablated run to the model."""
    rows = [
        [
            curve.task,
            Path(curve.model).name,
            curve.metric,
            curve.method,
            *("-" if count is None else f"{count:,}" for _, count in curve.edges_for),
            f"{curve.n_graph_edges:,}",
            f"{curve.n_circuits}",
            f"{curve.seconds:.1f}",
        ]
        for curve in curves
    ]
    shares = [f"edges for {share:.0%}" for share, _ in curves[0].edges_for] if curves else []
    return ["task", "model", "metric", "method", *shares, "of", "circuits", "seconds"], rows


def finding_rows(findings: Sequence[Finding]) -> Rows:
    """Every number of single circuits of the paper, printed and ours, with the reason where they differ."""
    rows = [
        [
            one.figure,
            one.task,
            _ablated(one.ablation),
            one.circuit,
            measure.what,
            _printed(measure),
            _measured(measure),
            measure.note,
        ]
        for one in findings
        for measure in one.measures
    ]
    return ["figure", "task", "ablation", "circuit", "measured", "paper", "ours", "note"], rows


def type_rows(findings: Sequence[Finding]) -> Rows:
    """What circuits that were searched have of each component type of the known circuit."""
    rows = [
        [
            one.figure,
            one.task,
            _ablated(one.ablation),
            one.circuit,
            group.group,
            f"{len(group.found)} of {len(group.members)}",
            ", ".join(group.found),
        ]
        for one in findings
        for group in one.groups
    ]
    return ["figure", "task", "ablation", "circuit", "component type", "found", "which"], rows


def _ablated(ablation: str) -> str:
    """An ablation as the paper calls it."""
    return "corrupted" if ablation == "resample" else ablation


def _printed(measure: Measure) -> str:
    """A number of the paper's as readers see it: not the negative that a search has."""
    text = measure.published
    if measure.what in NEGATED and float(text) != 0:
        text = text[1:] if text.startswith("-") else f"-{text}"
    return text.replace(".", "0.", 1) if text.lstrip("-").startswith(".") else text


def _measured(measure: Measure) -> str:
    value = measure.ours
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else number(readers_value(measure.what, value))


def series_rows(series: Series, metric: str, known: Circuit | None = None) -> Rows:
    """A line per circuit: its setting, size, metric, what it recovers, and its point against a known circuit."""
    full, ablated = series.baseline[metric]
    rows = []
    for point in series.points:
        value = point.metrics[metric]
        share = share_of_way(value, ablated, full)
        recovered = "" if share is None else percent(share)
        tested = metric_number(metric, point.test_metrics[metric]) if metric in point.test_metrics else ""
        row = [f"{point.setting:.4g}", f"{point.circuit.n_edges:,}", metric_number(metric, value), recovered, tested]
        if known is not None:
            found = roc_point(point.circuit, known)
            row += [f"{found.true_positive_rate:.3f}", f"{found.false_positive_rate:.3f}"]
        rows.append(row)
    truth = ["true positives", "false positives"] if known is not None else []
    return [
        "asked for" if series.by == "edges" else series.by,
        "edges",
        metric,
        "recovered",
        "on test prompts",
        *truth,
    ], rows


def areas_line(series: Series, known: Circuit) -> str:
    """The areas under a sweep's ROC curves, by edges and by nodes."""
    circuits = [point.circuit for point in series.points]
    parts = []
    for counted in COUNTED:
        curve = roc_curve(circuits, known, counted)
        parts.append(f"{counted} {curve.pessimistic:.3f} (standard {curve.trapezoid:.3f})")
    return f"area under its ROC curve, by the paper's rule: {', '.join(parts)}"


def overlap_rows(found: CircuitComparison) -> Rows:
    """Every two circuits: edges of both and of one alone, and how far edges and nodes overlap."""
    rows = [
        [
            f"{one.first} and {one.second}",
            f"{one.common:,}",
            f"{one.only_first:,}",
            f"{one.only_second:,}",
            f"{one.jaccard:.3f}",
            f"{one.nodes:.3f}",
        ]
        for one in found.pairs
    ]
    rows.append(["all", f"{found.in_all:,}", f"of {found.in_any:,}", "", "", ""])
    return [
        "circuits",
        "in both",
        "first only",
        "second only",
        f"Jaccard: {found.unit}",
        "nodes, logits counted" if found.unit == "nodes" else "nodes",
    ], rows


def component_rows(found: CircuitComparison, names: int = 3) -> Rows:
    """Nodes where circuits differ: how many edges each has there, and some that it alone has."""
    rows = []
    for one in found.components:
        own = [
            f"{name}: {', '.join(edges[:names])}{' ...' if len(edges) > names else ''}"
            for name, edges in zip(found.names, one.own, strict=True)
            if edges
        ]
        rows.append([one.node, *(f"{count:,}" for count in one.edges), f"{one.shared:,}", "; ".join(own)])
    if found.unit == "nodes":
        return ["node", *found.names], [[row[0], *("yes" if one == "1" else "" for one in row[1:-2])] for row in rows]
    return ["node", *(f"{found.unit} of {name}" for name in found.names), "in all", "note"], rows


def terminal_table(title: str, rows: Rows, *, right: int | None = None) -> Table:
    """Rows as a table for the terminal; columns from `right` on are numbers."""
    heading, lines = rows
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for index, column in enumerate(heading):
        numbers = right is not None and right <= index and column != "note"
        table.add_column(
            Text(column),
            justify="right" if numbers else "left",
            overflow="fold",
            no_wrap=not numbers and column != "note",
        )
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def markdown_table(rows: Rows) -> str:
    """Rows as a Markdown table."""
    heading, lines = rows
    text = ["| " + " | ".join(line) + " |" for line in (heading, ["---"] * len(heading), *lines)]
    return "\n".join(text) + "\n"


def reproduction_markdown(found: Reproduction) -> str:
    """All tables, the notes and what was not run, as a Markdown page."""
    parts: list[str] = []
    for one in reproduction_tables(found):
        parts += [one.explained, markdown_table(one.rows), *(f"{note}\n" for note in one.notes)]
    if found.missing:
        parts += ["Not run:\n", *(f"* {name}: {why}" for name, why in found.missing)]
    return "\n".join(parts).rstrip() + "\n"


@dataclass(frozen=True)
class ReproductionTable:
    """One table of the paper's evaluation.

    Attributes:
        title: what stands above it in the terminal.
        explained: what stands above it in Markdown.
        right: the first column of numbers.
        notes: lines below it, with their numbers.
    """

    title: str
    explained: str
    rows: Rows
    right: int | None = None
    notes: Sequence[str] = ()


def reproduction_tables(found: Reproduction) -> Iterator[ReproductionTable]:
    """The tables of what was run: areas, single circuits, and curves where nobody knows the circuit."""
    for table, cells in cells_by_table(found.cells).items():
        rows, notes = paper_rows(cells)
        numbered = [f"[{index}] {note}" for index, note in enumerate(notes, 1)]
        yield ReproductionTable(TABLE_WORDS[table], AREAS_EXPLAINED[table], rows, 5, numbered)
    ran = [one for one in found.findings if any(measure.ours is not None for measure in one.measures)]
    if ran:
        yield ReproductionTable("single circuits", FINDINGS_EXPLAINED, finding_rows(ran), 5)
    if any(one.groups for one in ran):
        yield ReproductionTable("component types", TYPES_EXPLAINED, type_rows(ran))
    curves = [curve for curve in found.curves if curve.references.known is None]
    if curves:
        yield ReproductionTable("where the true circuit is not known", CURVES_EXPLAINED, curve_rows(curves), 4)


def cells_by_table(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The areas that were run, by the table that they belong to."""
    tables: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.ours is not None:
            tables.setdefault(cell.table, []).append(cell)
    return tables


AREAS_EXPLAINED = {
    TABLES: "Areas under ROC curves (Tables 2 and 3). `paper` (as published) and `ours` are by the paper's pessimistic "
    "staircase, `standard` joins the same points of our sweep by straight lines.\n",
    RESET: "Areas in reset networks, whose heads and neurons are shuffled, so there is nothing good to find.\n",
    ABSOLUTE: "Areas of ACDC by the size of a change, whatever its sign (figure 5).\n",
}
TABLE_WORDS = {TABLES: "areas under ROC curves", RESET: "areas in reset networks", ABSOLUTE: "areas by absolute change"}
FINDINGS_EXPLAINED = (
    "Single circuits: what the paper says of each, and ours. Metrics are those on test prompts; `references` are what "
    "its plots have for comparison.\n"
)
TYPES_EXPLAINED = "What those that were searched have of each component type of the known circuit.\n"
CURVES_EXPLAINED = (
    "The fewest edges with which a circuit of each method goes 50, 90 and 99% of the way from the ablated run to the "
    "model, on the prompts that it was searched with; `-` where no circuit of its sweep does.\n"
)


def _area(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
