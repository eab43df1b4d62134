"""The ACDC paper's evaluation: the rows of its Tables 2 and 3 (`paper_rows.py`) run, and their areas beside the
published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgewise.discovery import RANDOM, method_named
from edgewise.errors import EdgewiseError, first_line
from edgewise.evaluation import Counted, roc_curve
from edgewise.evaluation.roc import SMALLEST_THRESHOLD
from edgewise.evaluation.share import share_of_way
from edgewise.models import Decoder, load_model
from edgewise.patching import Experiment
from edgewise.runs.cluster import Cluster
from edgewise.runs.paper_rows import RIGHT, ROWS, SECONDS, SHIPPED, PaperRow, rows_for, shipped_plans
from edgewise.runs.published import METHODS_IN_PAPER, PUBLISHED_AUC, WITHOUT_UNFINISHED
from edgewise.runs.series import Series
from edgewise.runs.sweep import COUNTED, SweepPlan, SweepProgress, sweep, table_csv
from edgewise.tasks import KNOWN_CIRCUITS, TASKS, Split, Task, load_task

HALF_A_DIGIT = 0.00051
"""Areas are published to three digits."""


@dataclass(frozen=True)
class Cell:
    """One number of the paper's tables beside ours.

    Attributes:
        counted: `edges` or `nodes`.
        published: the paper's area, by the pessimistic staircase; None for a method that it had not.
        ours: the same of our sweep; None where it was not run.
        trapezoid: our sweep's area by the standard rule.
        note: why the two differ, or why there is none of ours.
    """

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


@dataclass(frozen=True)
class Curve:
    """How far one method's circuits come with how many edges, where the true circuit is not known.

    Attributes:
        model: what it was measured on.
        edges_for: share of the way from the ablated run to the model, and the fewest edges that go it (None if none
        do).
        n_graph_edges: how many there are.
        seconds: what all its circuits took to find.
        points: number of edges and metric of every circuit, on test prompts.
        full, ablated: the metric of the whole model and with every edge ablated, on the prompts of the search.
    """

    task: str
    model: str
    ablation: str
    metric: str
    method: str
    edges_for: tuple[tuple[float, int | None], ...]
    n_graph_edges: int
    n_circuits: int
    seconds: float
    points: tuple[tuple[int, float], ...]
    full: float
    ablated: float


@dataclass(frozen=True)
class Reproduction:
    """What was run of the paper's evaluation.

    Attributes:
        cells: the paper's Tables 2 and 3.
        curves: sweeps on models without a known circuit: the paper's induction, and edgewise's own models.
        missing: rows that could not be run, with the reason.
    """

    cells: tuple[Cell, ...]
    curves: tuple[Curve, ...]
    missing: tuple[tuple[str, str], ...]

    def cells_csv(self) -> str:
        return table_csv([asdict(cell) for cell in self.cells], [one.name for one in fields(Cell)])

    def curves_csv(self) -> str:
        rows = []
        for curve in self.curves:
            row = asdict(curve)
            row.update({f"edges_for_{share:.0%}": count for share, count in row.pop("edges_for")})
            del row["points"]
            rows.append(row)
        return table_csv(rows, [one.name for one in fields(Curve) if one.name not in ("edges_for", "points")])


def reproduce(
    folder: Path,
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] = METHODS_IN_PAPER,
    offline: bool = False,
    device: str | None = None,
    seed: int = 0,
    progress: Callable[[str], SweepProgress] | None = None,
    began: Callable[[int, int, str, float], None] | None = None,
    cluster: Cluster | None = None,
) -> Reproduction:
    """Run the paper's sweeps, as far as the models can be had, and set the areas beside the published ones.

    Args:
        folder: where every series is kept (`paper/ROW/METHOD.jsonl`); what is there is not done again.
        tasks: some of the paper's tasks; by default all.
        methods: some of ACDC, HISP and SP, by edgewise's names; any others join in where the
            model comes with edgewise.
        offline: leave out what needs a model from the hub.
        progress: called with a row's name; gives what is told of its circuits.
        began: called when a row begins, with its number, how many there are, its name, and the seconds that are left
            until the last one ends, as far as can be said.
        cluster: where series are made side by side, before they are read here.

    Raises:
        EdgewiseError: unknown tasks or methods, or a folder that holds other series.
    """
    if not methods or (tasks is not None and not tasks):
        raise EdgewiseError("there is nothing to run without a task and a method")
    methods = tuple(method_named(method) for method in methods)
    cells: list[Cell] = []
    curves: list[Curve] = []
    missing: list[tuple[str, str]] = []
    wanted = rows_for(tasks, offline)
    shipped = [name for name in SHIPPED if tasks is None or name in tasks]
    if cluster is not None:
        _side_by_side(folder, wanted, shipped, methods, device, seed, cluster, progress)
    clock = _Clock([*((row.key, row.seconds) for row in wanted), *((name, SECONDS[name]) for name in shipped)], began)
    for row in ROWS if tasks is None else [row for row in ROWS if row.task in tasks]:
        found: list[Series] | None = None
        why = "a model from the hub is needed, and this run is offline"
        if row in wanted:
            clock.begin()
            try:
                model, task, test = _load(row, device, seed)
            except EdgewiseError as error:
                if row.offline:
                    raise
                why = first_line(error)
            else:
                plans = row.plans(methods)
                found = _sweep(folder / "paper" / row.key, model, task, test, row, plans, row.key, progress)
                if task.known_circuit is None:
                    curves += [_curve(task, model, row.ablation, row.metric, series) for series in found]
        if found is None:
            missing.append((row.key, why))
        cells += _cells(row, methods, found, why)
    for name in shipped:
        clock.begin()
        curves += _shipped(folder / "shipped" / name, name, methods, device, seed, progress)
    return Reproduction(tuple(cells), tuple(curves), tuple(missing))


def _side_by_side(
    folder: Path,
    rows: Sequence[PaperRow],
    shipped: Sequence[str],
    methods: Sequence[str],
    device: str | None,
    seed: int,
    cluster: Cluster,
    progress: Callable[[str], SweepProgress] | None,
) -> None:
    """Make the series of rows, each in its file. What fails is left to whoever reads them, and says why."""
    work: list[tuple[float, str, Callable[..., None], tuple[Any, ...]]] = []
    for row in rows:
        for plan in row.plans(methods):
            work.append((row.seconds, f"{row.key}-{plan.method}", _row_at_work, (row, plan)))
    for name in shipped:
        for number, method in enumerate((*methods, RANDOM)):  # as `shipped_plans` has them
            work.append((SECONDS[name], f"{name}-{method}", _shipped_at_work, (name, methods, number)))
    told = progress and progress("side by side")
    with cluster.joined() as joined:
        for _, name, task, given in sorted(work, key=lambda one: -one[0]):
            joined.start(name, name, task, folder.absolute(), *given, device, seed)
        while joined.under_way:
            joined.next()
            if told is not None:
                told("series", len(work) - len(joined.under_way), len(work))


def _row_at_work(folder: Path, row: PaperRow, plan: SweepPlan, device: str | None, seed: int) -> None:
    """One series of a row, in a worker."""
    model, task, test = _load(row, device, seed)
    _sweep(folder / "paper" / row.key, model, task, test, row, [plan], row.key, None)


def _shipped_at_work(
    folder: Path, name: str, methods: Sequence[str], number: int, device: str | None, seed: int
) -> None:
    """One series of a task with a model of edgewise's own, in a worker."""

    def one(n_edges: int) -> list[SweepPlan]:
        return [shipped_plans(methods, n_edges)[number]]

    _sweep_shipped(folder / "shipped" / name, name, one, device, seed, None)


class _Clock:
    """How far a list of rows has come, by what they took on another machine and how fast this one has been."""

    def __init__(self, rows: Sequence[tuple[str, float]], began: Callable[[int, int, str, float], None] | None) -> None:
        self.rows, self.began, self.number = rows, began, 0
        self.started = time.perf_counter()
        self.taken = self.expected = 0.0

    def begin(self) -> None:
        """The next row begins, and the one before has ended."""
        now = time.perf_counter()
        if self.number and now - self.started > 0.05 * self.rows[self.number - 1][1]:  # else it was there already
            self.taken += now - self.started
            self.expected += self.rows[self.number - 1][1]
        self.started = now
        left = sum(seconds for _, seconds in self.rows[self.number :])
        self.number += 1
        if self.began is not None:
            speed = self.taken / self.expected if self.expected else 1.0
            self.began(self.number, len(self.rows), self.rows[self.number - 1][0], left * speed)


def _load(row: PaperRow, device: str | None, seed: int) -> tuple[Decoder, Task, Task]:
    model = load_model(row.model, device=device, fold_value_biases=row.fold)
    options: dict[str, Any] = dict(examples=row.examples, seed=seed, variant=row.variant)
    return model, load_task(row.task, model, **options), load_task(row.task, model, split="test", **options)


def _sweep(
    folder: Path,
    model: Decoder,
    task: Task,
    test: Task,
    row: PaperRow,
    plans: Sequence[SweepPlan],
    name: str,
    progress: Callable[[str], SweepProgress] | None,
) -> list[Series]:
    folder.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(model, task, ablation=row.ablation, metric=row.metric)
    return sweep(experiment, plans, test=test, folder=folder, progress=progress and progress(name))


def _cells(row: PaperRow, methods: Sequence[str], found: list[Series] | None, why: str) -> Iterator[Cell]:
    by_method = {series.method: series for series in found or ()}
    for method in METHODS_IN_PAPER:
        for counted in COUNTED:
            where = (row.ablation, row.task, row.metric, method, counted)
            if where not in PUBLISHED_AUC:
                continue
            published, ours, trapezoid = PUBLISHED_AUC[where], None, None
            note = why if method in methods else "not asked for"
            if method in by_method:
                ours, trapezoid = _areas(by_method[method], row, counted)
                note = "" if abs(ours - published) < HALF_A_DIGIT else _why_different(row, method, counted, ours)
            yield Cell(
                row.task, row.ablation, row.metric, row.reading, method, counted, published, ours, trapezoid, note
            )
    for series in found or ():
        if series.method not in METHODS_IN_PAPER:
            for counted in COUNTED:
                areas = _areas(series, row, counted)
                yield Cell(row.task, row.ablation, row.metric, row.reading, series.method, counted, None, *areas, "")


def _areas(series: Series, row: PaperRow, counted: Counted) -> tuple[float, float]:
    known = KNOWN_CIRCUITS[row.task].on(series.points[0].circuit.graph)
    kept = [one for one in series.points if series.by != "threshold" or one.setting >= SMALLEST_THRESHOLD]
    curve = roc_curve([point.circuit for point in kept], known, counted)
    return curve.pessimistic, curve.trapezoid


def _why_different(row: PaperRow, method: str, counted: str, ours: float) -> str:
    """The reason for a difference from the published area, as far as one is known."""
    where = (row.ablation, row.task, row.metric, method, counted)
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
        why = "the published sweep masks a head's output too early and holds its first circuit last"
        flat = "; by KL its scores were rounding noise, here they are zero"
        return why + (flat if row.metric == "kl_div" else "")
    if row.reading == RIGHT:
        why = "masks are rounded without noise, after 3,000 steps"
        if row.ablation == "resample":
            return f"{why}; corrupted positions are permuted"
        return f"{why}; prompts are read as they were meant" if row.task == "tracr-xproportion" else why
    return "the code rounds masks by one random sample, and our draws are others"


def _curve(task: Task, model: Decoder, ablation: str, metric: str, series: Series) -> Curve:
    full, ablated = series.baseline[metric]
    edges_for = []
    for share in (0.5, 0.9, 0.99):
        enough = [
            point.circuit.n_edges
            for point in series.points
            if (share_of_way(point.metrics[metric], ablated, full) or 0.0) >= share
        ]
        edges_for.append((share, min(enough, default=None)))
    return Curve(
        task=task.name,
        model=model.name,
        ablation=ablation,
        metric=metric,
        method=series.method,
        edges_for=tuple(edges_for),
        n_graph_edges=series.points[0].circuit.graph.n_edges,
        n_circuits=len({point.circuit for point in series.points}),
        seconds=round(sum(point.seconds for point in series.points), 2),
        points=tuple((one.circuit.n_edges, one.test_metrics.get(metric, one.metrics[metric])) for one in series.points),
        full=full,
        ablated=ablated,
    )


def _shipped(
    folder: Path,
    name: str,
    methods: Sequence[str],
    device: str | None,
    seed: int,
    progress: Callable[[str], SweepProgress] | None,
) -> Iterator[Curve]:
    experiment, found = _sweep_shipped(
        folder, name, lambda n_edges: shipped_plans(methods, n_edges), device, seed, progress
    )
    for series in found:
        yield _curve(experiment.task, experiment.decoder, experiment.ablation, experiment.metric.name, series)


def _sweep_shipped(
    folder: Path,
    name: str,
    plans: Callable[[int], Sequence[SweepPlan]],
    device: str | None,
    seed: int,
    progress: Callable[[str], SweepProgress] | None,
) -> tuple[Experiment, list[Series]]:
    """Sweeps of a task on its own model, by the number of edges that this has."""
    model = load_model(TASKS[name].model, device=device)
    splits: tuple[Split, ...] = ("validation", "test")
    task, test = (load_task(name, model, seed=seed, split=split) for split in splits)
    folder.mkdir(parents=True, exist_ok=True)
    experiment = Experiment(model, task)
    told = progress and progress(f"{name} on {model.name}")
    return experiment, sweep(experiment, plans(experiment.graph.n_edges), test=test, folder=folder, progress=told)
