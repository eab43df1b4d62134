"""Areas under ROC curves: the ACDC paper's beside ours, with the reason where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgewise.evaluation import Counted, roc_curve
from edgewise.evaluation.roc import SMALLEST_THRESHOLD
from edgewise.runs.paper_rows import RIGHT, PaperRow
from edgewise.runs.published import ABSOLUTE, METHODS_IN_PAPER, RESET, WITHOUT_UNFINISHED
from edgewise.runs.series import Series
from edgewise.runs.sweep import COUNTED
from edgewise.tasks import KNOWN_CIRCUITS

HALF_A_DIGIT = 0.00051
"""Areas are published to three digits."""


@dataclass(frozen=True)
class Cell:
    """One area of the paper's beside ours.

    Attributes:
        table: what it belongs to.
        counted: `edges` or `nodes`.
        published: the paper's area, by the pessimistic staircase; None for a method that it had not.
        ours: the same of our sweep; None where it was not run.
        trapezoid: our sweep's area by the standard rule.
        note: why the two differ, or why there is none of ours.
    """

    table: str
    task: str
    ablation: str
    metric: str
    reading: str
    method: str
    counted: str
    published: float | None
    ours: float | None
    trapezoid: float | None
    note: str


def cells_of(row: PaperRow, methods: Sequence[str], found: list[Series] | None, why: str) -> Iterator[Cell]:
    """The areas of a row, published and ours; `why` there are none of ours, where nothing was `found`."""
    where = row.table, row.task, row.ablation, row.metric, row.reading
    by_method = {series.method: series for series in found or ()}
    for method in METHODS_IN_PAPER:
        for counted in COUNTED:
            published, ours, trapezoid = row.published(method, counted), None, None
            if published is None:
                continue
            note = why if method in methods else "not asked for"
            if method in by_method:
                ours, trapezoid = _areas(by_method[method], row, counted)
                note = "" if abs(ours - published) < HALF_A_DIGIT else _why_different(row, method, counted)
            yield Cell(*where, method, counted, published, ours, trapezoid, note)
    for series in found or ():
        if series.method not in METHODS_IN_PAPER:
            for counted in COUNTED:
                areas = _areas(series, row, counted)
                yield Cell(*where, series.method, counted, None, *areas, "")


def _areas(series: Series, row: PaperRow, counted: Counted) -> tuple[float, float]:
    known = KNOWN_CIRCUITS[row.task].on(series.points[0].circuit.graph)
    kept = [one for one in series.points if series.by != "threshold" or one.setting >= SMALLEST_THRESHOLD]
    curve = roc_curve([point.circuit for point in kept], known, counted)
    return curve.pessimistic, curve.trapezoid


def _why_different(row: PaperRow, method: str, counted: str) -> str:
    """The reason for a difference from the published area, as far as one is known."""
    where = (row.ablation, row.task, row.metric, method, counted)
    if row.table == ABSOLUTE:
        return "8 of the 46 published runs had plainly not finished, and all below 0.0076 look as if they had not"
    if row.table == RESET and method == "head-importance":
        return "the published sweep masked the most important unit first; " + _why_of_scores(row)
    if row.table == RESET and row.offline:
        return "the published reset network puts out nothing at all, which a shuffled program does not"
    if method == "acdc":
        unfinished = WITHOUT_UNFINISHED.get(where)
        if unfinished is not None and row.reading != RIGHT:
            runs, area = unfinished
            return f"{runs} published runs had not finished; without them it is {area:.3f}"
        if row.reading == RIGHT:
            return "corrupted positions are permuted, as the paper says; in the published runs they stayed in place"
        return "not explained"
    if method == "head-importance":
        if row.reading == RIGHT:
            return (
                "importances averaged along a path; published ones are all zero, as l2 has no gradient at the clean "
                "run, so their order is the one in which the code lists units"
            )
        return _why_of_scores(row)
    if row.reading == RIGHT:
        why = "masks are rounded without noise, after 3,000 steps"
        if row.ablation == "resample":
            return f"{why}; corrupted positions are permuted"
        return f"{why}; prompts are read as they were meant" if row.task == "tracr-xproportion" else why
    return "the code rounds masks by one random sample, and our draws are others"


def _why_of_scores(row: PaperRow) -> str:
    """What is wrong with the published sweeps of head importance."""
    if row.offline:
        return "its scores are all zero"
    why = "the published sweep masks a head's output too early and holds its first circuit last"
    return why + ("; by KL its scores were rounding noise, here they are zero" if row.metric == "kl_div" else "")
