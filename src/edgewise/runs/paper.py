"""The ACDC paper's evaluation: its sweeps (`paper_rows.py`) and single circuits (`paper_circuits.py`), run, and beside
what was published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgewise.discovery import RANDOM, method_named
from edgewise.errors import EdgewiseError, first_line, unknown
from edgewise.models import Decoder, load_model, permuted
from edgewise.models.sources import is_cached
from edgewise.patching import Experiment
from edgewise.runs.cluster import Cluster
from edgewise.runs.paper_cells import Cell, cells_of
from edgewise.runs.paper_circuits import CIRCUITS, PaperCircuit
from edgewise.runs.paper_curves import Curve, curves_of, references_of
from edgewise.runs.paper_findings import Finding, find, not_found
from edgewise.runs.paper_rows import LARGE_EXAMPLES, LARGE_METHODS, RESET_SEEDS, ROWS, SHIPPED, OwnRow, PaperRow
from edgewise.runs.published import METHODS_IN_PAPER
from edgewise.runs.series import Series
from edgewise.runs.sweep import SweepPlan, SweepProgress, sweep, table_csv
from edgewise.tasks import TASKS, Split, Task, load_task

Row = PaperRow | PaperCircuit | OwnRow
OWN_MODELS = "own-models"
FIGURES = tuple(dict.fromkeys([*(row.table for row in ROWS), *(row.figure for row in CIRCUITS), OWN_MODELS]))
"""Tables and figures by name: the paper's, and sweeps of edgewise's own models."""


@dataclass(frozen=True)
class Reproduction:
    """What was run of the paper's evaluation.

    Attributes:
        cells: areas under ROC curves: the paper's Tables 2 and 3, its reset networks, its figure 5.
        curves: edges against the metric, of every sweep.
        findings: single circuits: figures, table 4, references.
        missing: rows that could not be run, with the reason.
    """

    cells: tuple[Cell, ...]
    curves: tuple[Curve, ...]
    findings: tuple[Finding, ...]
    missing: tuple[tuple[str, str], ...]

    def cells_csv(self) -> str:
        return table_csv([asdict(cell) for cell in self.cells], [one.name for one in fields(Cell)])

    def curves_csv(self) -> str:
        """A line per curve, without its points."""
        rows = []
        for curve in self.curves:
            row = asdict(curve)
            row.update({f"edges_for_{share:.0%}": count for share, count in row.pop("edges_for")})
            row.update(row.pop("references"))
            del row["points"]
            rows.append(row)
        left_out = ("edges_for", "points", "references")
        return table_csv(rows, [one.name for one in fields(Curve) if one.name not in left_out])

    def findings_csv(self) -> str:
        """A line per number of a single circuit; metrics as a search has them, lower being better."""
        about = ("figure", "key", "task", "model", "ablation", "circuit")
        rows = [
            {**{name: getattr(one, name) for name in about}, **asdict(measure)}
            for one in self.findings
            for measure in one.measures
        ]
        return table_csv(rows, [*about, "what", "published", "ours", "note"])


class _Models:
    """Models as rows load them: the last one stays for the next row, and one that cannot be had is not asked for
    twice.
    """

    def __init__(self) -> None:
        self.last: tuple[tuple[str, bool], Decoder] | None = None
        self.failed: dict[str, str] = {}

    def load(self, place: str, fold: bool, device: str | None) -> Decoder:
        """A model, with the biases of norms and values folded or not.

        Raises:
            EdgewiseError: it cannot be had.
        """
        if place in self.failed:
            raise EdgewiseError(self.failed[place])
        if self.last is None or self.last[0] != (place, fold):
            self.last = None  # so that two do not stand in memory
            try:
                loaded = load_model(place, device=device, fold_norm_biases=fold, fold_value_biases=fold)
            except EdgewiseError as error:
                self.failed[place] = str(error)
                raise
            self.last = (place, fold), loaded
        return self.last[1]


@dataclass(frozen=True)
class _Where:
    """With what rows are run.

    Attributes:
        folder: where every series is kept.
        weights: where the paper's models lie, by name, if not on the hub.
        progress: called with a row's name; gives what is told of its circuits.
    """

    folder: Path
    methods: tuple[str, ...]
    device: str | None
    seed: int
    weights: Mapping[str, str]
    progress: Callable[[str], SweepProgress] | None = None
    models: _Models = field(default_factory=_Models)


@dataclass
class _Kept:
    """What rows have come to so far."""

    cells: list[Cell] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def reproduce(
    folder: Path,
    *,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    figures: Sequence[str] | None = None,
    offline: bool = False,
    weights: Mapping[str, str | Path] | None = None,
    model: str | Path | None = None,
    examples: int | None = None,
    device: str | None = None,
    seed: int = 0,
    progress: Callable[[str], SweepProgress] | None = None,
    began: Callable[[int, int, str, float], None] | None = None,
    cluster: Cluster | None = None,
) -> Reproduction:
    """Run the paper's sweeps and circuits, as far as the models can be had, and set what comes out beside the paper's.

    Args:
        folder: where every series is kept (`paper/ROW/METHOD.jsonl`); what is there is not done again.
        tasks: some of the paper's tasks; by default all.
        methods: some of ACDC, HISP and SP, by edgewise's names, for its sweeps; any others join in where the model
            comes with edgewise.
        figures: some of the tables and figures, as in `FIGURES`; by default all.
        offline: leave out what needs a model that is not on this machine.
        weights: folders of the paper's models, by name (`gpt2`, `attn-only-4l`, `redwood_attn_2l`).
        model: instead of all this, sweep the tasks on this model, with few circuits (`OwnRow.large`).
        examples: prompt pairs for that model.
        progress: called with a row's name; gives what is told of its circuits.
        began: called when a row begins, with its number, how many there are, its name, and the seconds that are left
            until the last one ends, as far as can be said.
        cluster: where series are made side by side, before they are read here.

    Raises:
        EdgewiseError: unknown tasks, methods or figures, or a folder that holds other series.
    """
    if methods is None:
        methods = METHODS_IN_PAPER if model is None else LARGE_METHODS
    if not methods or (tasks is not None and not tasks):
        raise EdgewiseError("there is nothing to run without a task and a method")
    given = {name: str(Path(path).expanduser().absolute()) for name, path in (weights or {}).items()}
    where = _Where(folder, tuple(map(method_named, methods)), device, seed, given, progress)
    rows = chosen(tasks, figures) if model is None else _on_one_model(str(model), tasks, examples)
    asked = [row for row in rows if not isinstance(row, PaperRow) or row.plans(where.methods)]
    every = [(row, _why_not(row, given, offline)) for row in asked]
    to_run = [row for row, why in every if not why]
    if cluster is not None:
        _side_by_side(to_run, where, cluster)
    clock = _Clock([(row.key, row.seconds) for row in to_run], began)
    kept = _Kept()
    for row, why in every:
        if not why:
            clock.begin()
        _run(row, why, where, kept)
    return Reproduction(tuple(kept.cells), tuple(kept.curves), tuple(kept.findings), tuple(kept.missing))


def chosen(tasks: Sequence[str] | None, figures: Sequence[str] | None) -> list[Row]:
    """The paper's rows, and those of edgewise's own models, of some tasks and figures.

    Raises:
        EdgewiseError: a task or figure that is none of the paper's evaluation.
    """
    shipped = [OwnRow(task, TASKS[task].model, "shipped", seconds=seconds) for task, seconds in SHIPPED.items()]
    rows: list[Row] = [*ROWS, *CIRCUITS, *shipped]
    known = list(dict.fromkeys(row.task for row in rows))
    for task in tasks or ():
        if task not in known:
            raise unknown("task of the paper", task, known)
    for figure in figures or ():
        if figure not in FIGURES:
            raise unknown("table or figure of the paper", figure, FIGURES)
    return [
        row for row in rows if (tasks is None or row.task in tasks) and (figures is None or _figure(row) in figures)
    ]


def _figure(row: Row) -> str:
    return row.table if isinstance(row, PaperRow) else row.figure if isinstance(row, PaperCircuit) else OWN_MODELS


def _on_one_model(model: str, tasks: Sequence[str] | None, examples: int | None) -> list[Row]:
    for task in tasks or ():
        if task not in SHIPPED:
            raise unknown("task that any model can be swept on", task, SHIPPED)
    count = LARGE_EXAMPLES if examples is None else examples
    return [OwnRow(task, model, "model", count, large=True) for task in (SHIPPED if tasks is None else tasks)]


def _why_not(row: Row, weights: Mapping[str, str], offline: bool) -> str:
    """Why a row is not even tried; empty where it is."""
    if isinstance(row, OwnRow):
        return ""
    if isinstance(row, PaperRow) and row.cannot:
        return row.cannot
    here = row.offline or row.model in weights or not offline or is_cached(row.model)
    return "" if here else f"the weights of {row.model} are not on this machine, and this run is offline"


def _run(row: Row, why: str, where: _Where, kept: _Kept) -> None:
    """Run a row, or say why it was not."""
    found: list[Series] | None = None
    ours = isinstance(row, OwnRow) and not row.large
    if not why:
        try:
            experiment, test = _load(row, where)
            if isinstance(row, PaperCircuit):
                told = where.progress and where.progress(row.key)
                kept.findings.append(find(row, experiment, test, where.folder / "circuits" / row.key, told))
                return
            found = _sweep(row, row_plans(row, where.methods, experiment), experiment, test, where)
        except EdgewiseError as error:
            if ours or (not isinstance(row, OwnRow) and row.offline):
                raise
            why = first_line(error)
        else:
            table = _figure(row)
            references = references_of(experiment, test, RESET_SEEDS.get(row.task, 0))
            kept.curves += curves_of(found, experiment, references, table=table, key=row.key)
    if found is None:
        kept.missing.append((row.key, why))
    if isinstance(row, PaperRow):
        kept.cells += cells_of(row, where.methods, found, why)
    elif isinstance(row, PaperCircuit):
        kept.findings.append(not_found(row, why))


def row_plans(row: PaperRow | OwnRow, methods: Sequence[str], experiment: Experiment) -> list[SweepPlan]:
    """A row's sweeps on the graph of its model."""
    return row.plans(methods, experiment.graph.n_edges) if isinstance(row, OwnRow) else row.plans(methods)


def _load(row: Row, where: _Where) -> tuple[Experiment, Task]:
    """What a row is run on, and its test prompts."""
    model = _model(row, where)
    options: dict[str, Any] = dict(examples=row.examples, seed=where.seed)
    if not isinstance(row, OwnRow):
        options["variant"] = row.variant
    splits: tuple[Split, ...] = ("validation", "test")
    task, test = (load_task(row.task, model, split=split, **options) for split in splits)
    if isinstance(row, PaperRow) and row.has_areas and task.known_circuit is None:
        raise EdgewiseError(
            f"model {model.name!r} is not of the shape in which people know the circuit of {row.task!r}"
        )
    if isinstance(row, OwnRow):
        return Experiment(model, task), test
    whole = isinstance(row, PaperCircuit) and row.heads == "whole"
    experiment = Experiment(model, task, ablation=row.ablation, metric=row.metric, ports=not whole, whole_heads=whole)
    return experiment, test


def _model(row: Row, where: _Where) -> Decoder:
    if isinstance(row, OwnRow):
        return where.models.load(row.model, False, where.device)
    model = where.models.load(where.weights.get(row.model, row.model), row.fold, where.device)
    return model if row.permuted is None else permuted(model, row.permuted)


def _folder(row: PaperRow | OwnRow, where: _Where) -> Path:
    return where.folder / (row.folder if isinstance(row, OwnRow) else "paper") / row.key


def _sweep(
    row: PaperRow | OwnRow, plans: Sequence[SweepPlan], experiment: Experiment, test: Task, where: _Where
) -> list[Series]:
    folder = _folder(row, where)
    folder.mkdir(parents=True, exist_ok=True)
    told = where.progress and where.progress(row.key)
    return sweep(experiment, plans, test=test, folder=folder, progress=told)


def _side_by_side(rows: Sequence[Row], where: _Where, cluster: Cluster) -> None:
    """Make the series of rows, each in its file. What fails is left to whoever reads them, and says why."""
    work: list[tuple[float, str, PaperRow | OwnRow, str]] = []
    for row in rows:
        if isinstance(row, PaperCircuit):
            continue
        own = isinstance(row, OwnRow)
        for method in (*where.methods, RANDOM) if own else [plan.method for plan in row.plans(where.methods)]:
            work.append((row.seconds, f"{row.key}-{method}", row, method))
    told = where.progress and where.progress("side by side")
    given = replace(where, folder=where.folder.absolute(), progress=None, models=_Models())
    with cluster.joined() as joined:
        for _, name, row, method in sorted(work, key=lambda one: -one[0]):
            joined.start(name, name, _at_work, row, method, given)
        while joined.under_way:
            joined.next()
            if told is not None:
                told("series", len(work) - len(joined.under_way), len(work))


def _at_work(row: PaperRow | OwnRow, method: str, where: _Where) -> None:
    """One series of a row, in a worker."""
    experiment, test = _load(row, where)
    plans = [plan for plan in row_plans(row, where.methods, experiment) if plan.method == method]
    _sweep(row, plans, experiment, test, where)


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
