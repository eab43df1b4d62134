"""Sweeps: one task, several methods, circuits of many sizes, each measured from scratch by a circuit run.

What can be shared is: the model's and the ablated activations by everything; a method's scores by all sizes cut from
them; a search of ACDC by all thresholds that decide alike (discovery/thresholds.py); the steps of subnetwork probing by
up to 16 lambdas, where the model is so small that this saves time.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgewise.discovery import (
    ALIASES,
    METHODS,
    RANDOM,
    Found,
    Order,
    ProgressCallback,
    head_importance,
    one_by_one,
)
from edgewise.errors import EdgewiseError, unknown
from edgewise.evaluation import Counted, random_circuit, roc_curve, roc_point
from edgewise.graph import Circuit
from edgewise.patching import Experiment
from edgewise.patching.ablation import SEEDED
from edgewise.runs.cluster import Cluster
from edgewise.runs.journal import DecisionFile
from edgewise.runs.run import describe_model
from edgewise.runs.series import ENDING, Series, SeriesFile, Sweep, SweepPoint
from edgewise.tasks import METRICS, Task, mean_over_places, metrics_of


def grid(low: float, high: float, count: int) -> tuple[float, ...]:
    """10^low to 10^high in `count` steps that are even on a logarithmic axis."""
    return tuple(10 ** (low + (high - low) * step / (count - 1)) for step in range(count))


MARKS = tuple(f"{method}{ENDING}" for method in (*METHODS, "random"))
"""Files that say of a folder that it is a sweep's."""
COUNTED: tuple[Counted, ...] = ("edges", "nodes")
PAPER_THRESHOLDS = grid(-4, 0, 21)
"""The ACDC paper's base grid: 10^-4 to 1 in 21 steps."""
LAMBDAS = (0.01, 0.1, 0.316, 1.0, 3.16, 10.0, 31.6)


@dataclass(frozen=True)
class SweepPlan:
    """What one method is to be swept over.

    Attributes:
        method: as in `METHODS`, or `random`: circuits of random paths, for comparison.
        settings: thresholds for ACDC, lambdas for subnetwork probing, numbers of edges for other methods; none for
            head importance with `by_unit`, which masks unit after unit.
        options: the method's own, by name.
        by_unit: the paper's sweep of head importance.
        order: ACDC's.
        absolute: ACDC's rule looks at the size of a change, not at its sign.
        seed: of what a method draws.
    """

    method: str
    settings: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    by_unit: bool = False
    order: Order = Order()  # noqa: RUF009 - frozen
    absolute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", ALIASES.get(self.method, self.method))

    @property
    def by(self) -> str:
        """What the settings are."""
        method = METHODS.get(self.method)
        return "units masked" if self.by_unit else "edges" if method is None else method.by

    def check(self) -> None:
        """Refuse what cannot be swept.

        Raises:
            EdgewiseError: an unknown method or option, or settings that make no sense for the method.
        """
        if self.method not in (*METHODS, RANDOM):
            raise unknown("method", self.method, (*METHODS, RANDOM))
        if self.method != "acdc" and (self.absolute or (self.order.layers, self.order.heads) != ("normal", "normal")):
            raise EdgewiseError(f"an order and the absolute rule are ACDC's; a sweep of {self.method!r} has none")
        takes = METHODS[self.method].options if self.method in METHODS else {}
        for name in self.options:
            if name not in takes:
                raise EdgewiseError(f"method {self.method!r} has no option {name!r}")
        if not self.settings and not self.by_unit:
            raise EdgewiseError(f"a sweep of {self.method!r} needs at least one {self.by.rstrip('s')}")
        if not all(math.isfinite(one) for one in self.settings):
            raise EdgewiseError(f"the settings of a sweep should be numbers, not {self.settings}")
        if self.by == "edges" and any(one < 1 or one != int(one) for one in self.settings):
            raise EdgewiseError(
                f"method {self.method!r} is swept over whole numbers of edges from 1, not {self.settings}"
            )
        if self.by == "lambda" and min(self.settings) < 0:
            raise EdgewiseError("a lambda should be 0 or more")
        if self.method == RANDOM and self.seed < 0:
            raise EdgewiseError(f"a seed of random circuits is a whole number of 0 or more, not {self.seed}")


SweepProgress = Callable[[str, int, int], None]
"""Called with a method, how many of its circuits are there, and how many there will be."""


def sweep(
    experiment: Experiment,
    plans: Sequence[SweepPlan],
    *,
    test: Task | None = None,
    folder: Path | None = None,
    progress: SweepProgress | None = None,
    searching: ProgressCallback | None = None,
    cluster: Cluster | None = None,
) -> Sweep:
    """Run every plan and measure every circuit.

    Args:
        test: prompts to measure every circuit on as well.
        folder: where each series is kept as it grows, as `METHOD.jsonl`; what is there already is not done again, nor
            are the decisions of a search of ACDC that was stopped.
        progress: told of every circuit; `searching` of every step of an ACDC search.
        cluster: where ACDC's searches and other methods' series are made side by side (`sweep_by_side.py`).

    Raises:
        EdgewiseError: a plan that makes no sense, a folder that holds other series, or whatever a method raises.
    """
    for plan in plans:
        plan.check()
    methods = [plan.method for plan in plans]
    for method in methods:
        if methods.count(method) > 1:
            raise EdgewiseError(f"method {method!r} is named twice")
    if folder is not None and experiment.metric.name not in METRICS:
        raise EdgewiseError(
            f"metric {experiment.metric.name!r} is a function of your own, which a folder cannot tell from another; "
            "sweep without a folder"
        )
    if cluster is not None and folder is None:
        raise EdgewiseError("a sweep that is made side by side keeps its circuits in a folder: say which")
    judges = [Judge(experiment)]
    if test is not None:
        judges.append(Judge(on_others(experiment, test)))

    def read() -> list[SeriesFile | None]:
        if folder is None:
            return [None] * len(plans)
        return [
            SeriesFile(
                folder / f"{plan.method}{ENDING}",
                about(experiment, plan, judges),
                experiment.graph,
                [float(unit) for unit in range(_count(experiment, plan))] if plan.by_unit else plan.settings,
            )
            for plan in plans
        ]

    files = read()
    baseline = _baseline(judges[0])
    for file in files:
        if file is not None and not file.finished:  # a folder that cannot be written is found out now
            if not file.baseline:  # the series is new, and so are its searches
                journal_path(file.path).unlink(missing_ok=True)
            file.start(baseline)
    if cluster is not None and folder is not None:
        from edgewise.runs.sweep_by_side import make_side_by_side

        left = [(plan, len(file.points)) for plan, file in zip(plans, files, strict=True) if file and not file.finished]
        make_side_by_side(experiment, left, test, folder, cluster, progress)
        files = read()
    return Sweep(
        _run(experiment, plan, judges, baseline, file, progress, searching)
        for plan, file in zip(plans, files, strict=True)
    )


def on_others(experiment: Experiment, test: Task) -> Experiment:
    """The same experiment on other prompts."""
    return Experiment(
        experiment.decoder, test, ablation=experiment.carried, metric=experiment.metric, graph=experiment.graph
    )


def _baseline(judge: Judge) -> dict[str, tuple[float, float]]:
    graph = judge.experiment.graph
    full, empty = judge(Circuit.full(graph)), judge(Circuit.empty(graph))
    return {name: (full[name], empty[name]) for name in full}


class Judge:
    """Every metric of a circuit on one set of prompts; a circuit that was measured is not measured again."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.metrics = metrics_of(experiment.task)
        if experiment.metric.name not in [one.name for one in self.metrics]:
            self.metrics.insert(0, experiment.metric)
        self.seen: dict[Circuit, dict[str, float]] = {}

    def __call__(self, circuit: Circuit) -> dict[str, float]:
        if circuit not in self.seen:
            logits = self.experiment.logits(circuit)
            self.seen[circuit] = {
                one.name: mean_over_places(one(logits, self.experiment.reference)) for one in self.metrics
            }
        return self.seen[circuit]


def _run(
    experiment: Experiment,
    plan: SweepPlan,
    judges: list[Judge],
    baseline: Mapping[str, tuple[float, float]],
    file: SeriesFile | None,
    progress: SweepProgress | None,
    searching: ProgressCallback | None,
) -> Series:
    points: list[SweepPoint] = [] if file is None else file.points
    if file is not None and file.finished:
        return Series(plan.method, plan.by, tuple(points), file.baseline)
    count, done = _count(experiment, plan), len(points)
    if progress is not None:
        progress(plan.method, done, count)
    with _journal(experiment, plan, file) as journal:
        for setting, circuit, seconds, same_as in _timed(_circuits(experiment, plan, done, searching, journal)):
            tested = judges[1](circuit) if len(judges) > 1 else {}
            if journal is not None and same_as is None:
                seconds += journal.seconds(setting)
            point = SweepPoint(setting, circuit, judges[0](circuit), tested, seconds, same_as)
            if file is None:
                points.append(point)
            else:
                file.add(point)
            if progress is not None:
                progress(plan.method, len(points), count)
    if file is not None:
        file.finish()
        journal_path(file.path).unlink(missing_ok=True)
    return Series(plan.method, plan.by, tuple(points), baseline if file is None else file.baseline)


def journal_path(series: Path) -> Path:
    """Where the decisions of a series' searches are kept until it is finished."""
    return series.with_name(f"{series.stem}-searches{ENDING}")


@contextmanager
def _journal(experiment: Experiment, plan: SweepPlan, file: SeriesFile | None) -> Iterator[DecisionFile | None]:
    """What keeps the decisions of ACDC's searches beside their series until that is finished."""
    if file is None or plan.method != "acdc":
        yield None
        return
    journal = DecisionFile(journal_path(file.path), experiment.graph, several=True)
    try:
        yield journal
    finally:
        journal.close()


def about(experiment: Experiment, plan: SweepPlan, judges: Sequence[Any] = ()) -> dict[str, Any]:
    """Everything that makes a series what it is."""
    carried = experiment.carried
    return {
        "method": plan.method,
        "by": plan.by,
        "settings": list(plan.settings),
        "options": dict(plan.options),
        "order": [plan.order.layers, plan.order.heads, plan.order.seed],
        **({"absolute": True} if plan.absolute else {}),
        "seed": plan.seed,
        "task": dict(experiment.task.settings),
        "test": [dict(judge.experiment.task.settings) for judge in judges[1:]],
        "model": {name: value for name, value in describe_model(experiment.decoder).items() if name != "device"},
        "ablation": experiment.ablation,
        **({"ablation_seed": carried.seed} if carried.name in SEEDED else {}),
        **({} if carried.over is None else {"mean_over": dict(carried.over.settings)}),
        "metric": experiment.metric.name,
    }


def _count(experiment: Experiment, plan: SweepPlan) -> int:
    if not plan.by_unit:
        return len(plan.settings)
    config = experiment.decoder.config
    return 1 + config.n_layers * (config.n_heads + 2 * config.n_kv_heads + config.mlps)


def _timed(found: Iterator[Found]) -> Iterator[tuple[float, Circuit, float, float | None]]:
    """The same with the seconds that each took to come."""
    while True:
        started = time.perf_counter()
        one = next(found, None)
        if one is None:
            return
        yield one[0], one[1], time.perf_counter() - started, one[2]


def _circuits(
    experiment: Experiment,
    plan: SweepPlan,
    done: int,
    searching: ProgressCallback | None,
    journal: DecisionFile | None,
) -> Iterator[Found]:
    """What is left to do of a plan."""
    left = plan.settings[done:]
    if plan.by_unit:
        units = head_importance(experiment, **plan.options).units
        assert units is not None
        for index, circuit in enumerate(one_by_one(experiment.graph, units)):
            if index >= done:
                yield float(index), circuit, None
    elif plan.method == RANDOM:
        for size in left:
            yield size, random_circuit(experiment.graph, min(int(size), experiment.graph.n_edges), plan.seed), None
    elif left:
        method = METHODS[plan.method]
        search: dict[str, Any] = {"order": plan.order, "absolute": plan.absolute, "progress": searching}
        if journal is not None:
            search["journal"] = journal
        yield from method.circuits(experiment, left, seed=plan.seed, options=plan.options, **search)


def series_summary(series: Series, known: Circuit | None = None) -> dict[str, Any]:
    """A series without its circuits, fit for JSON: settings, sizes, metrics, and the point against a known circuit."""
    return {
        "method": series.method,
        "by": series.by,
        "baseline": {name: list(pair) for name, pair in series.baseline.items()},
        "points": [_point_summary(point, known) for point in series.points],
        "roc": None if known is None else _areas(series, known),
    }


def _point_summary(point: SweepPoint, known: Circuit | None) -> dict[str, Any]:
    summary = point.summary()
    return summary if known is None else {**summary, "roc": asdict(roc_point(point.circuit, known))}


def _areas(series: Series, known: Circuit) -> dict[str, dict[str, float]]:
    curves = {counted: roc_curve([one.circuit for one in series.points], known, counted) for counted in COUNTED}
    return {name: {"pessimistic": one.pessimistic, "trapezoid": one.trapezoid} for name, one in curves.items()}


def series_csv(every: Sequence[Series], known: Circuit | None = None) -> str:
    """The data behind the plots: a line per circuit, with every metric on the search's prompts and on test prompts."""
    rows = []
    for series in every:
        for point in series.points:
            row: dict[str, Any] = {
                "method": series.method,
                "by": series.by,
                "setting": point.setting,
                "n_edges": point.circuit.n_edges,
                "n_edges_connected": point.circuit.n_edges_connected,
                "seconds": round(point.seconds, 4),
            }
            row.update(point.metrics)
            row.update({f"test_{name}": value for name, value in point.test_metrics.items()})
            if known is not None:
                for counted in COUNTED:
                    found = asdict(roc_point(point.circuit, known, counted))
                    row.update({f"{counted}_{name}": value for name, value in found.items()})
            rows.append(row)
    return table_csv(rows)


def table_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows of one set of columns as CSV with a heading, which is `columns` where there are no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
