"""The plots of a sweep: size against metric, ROC where the truth is known, and what ACDC's threshold does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgewise.evaluation import roc_point
from edgewise.graph import Circuit
from edgewise.reports.plots import roc_plot, size_plot, threshold_plot
from edgewise.runs.paper import Curve
from edgewise.runs.series import Series, SweepPoint

DISTANCES = ("kl_div", "l2")
"""Metrics that are 0 for the model and above it for all else, so that powers of ten show them best."""


def sweep_plots(
    every: Sequence[Series], metric: str, folder: Path, *, title: str, known: Circuit | None = None
) -> None:
    """Write `sizes.svg`; `roc.svg` against a known circuit; and `thresholds.svg` for ACDC.

    Metrics are those on test prompts, where the sweep has them.
    """
    full, ablated = every[0].baseline[metric]
    sizes = {one.method: [(point.circuit.n_edges, _value(point, metric)) for point in one.points] for one in every}
    shown = {method: [point for point in points if point[0] > 0] for method, points in sizes.items()}
    if any(shown.values()):
        size_plot(shown, metric=metric, full=full, ablated=ablated, title=title, path=folder / "sizes.svg")
    if known is not None:
        rates = {one.method: [_rates(point.circuit, known) for point in one.points] for one in every}
        roc_plot(rates, title=title, path=folder / "roc.svg")
    acdc = next((one for one in every if one.method == "acdc"), None)
    if acdc is not None and len(acdc.points) > 1 and min(point.setting for point in acdc.points) > 0:
        points = sorted(acdc.points, key=lambda point: point.setting)
        threshold_plot(
            [point.setting for point in points],
            [point.circuit.n_edges for point in points],
            [_value(point, metric) for point in points],
            metric=metric,
            ablated=ablated,
            title=title,
            path=folder / "thresholds.svg",
        )


def curve_plots(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """Size against metric for every task of `edgewise reproduce`, all its methods in one plot. Returns the files."""
    every: dict[tuple[str, str, str, str], list[Curve]] = {}
    for curve in curves:
        every.setdefault((curve.task, curve.model, curve.ablation, curve.metric), []).append(curve)
    written = []
    for (task, model, ablation, metric), some in every.items():
        shown = {one.method: [point for point in one.points if 0 < point[0] < one.n_graph_edges] for one in some}
        path = folder / f"sizes-{task}-{ablation}-{metric}.svg"
        title = f"{task} on {Path(model).name}"
        log = metric in DISTANCES
        full = None if log else some[0].full  # the model itself is at zero there, but for rounding
        size_plot(shown, metric=metric, full=full, ablated=some[0].ablated, log=log, title=title, path=path)
        written.append(path)
    return written


def _value(point: SweepPoint, metric: str) -> float:
    return point.test_metrics.get(metric, point.metrics[metric])


def _rates(circuit: Circuit, known: Circuit) -> tuple[float, float]:
    point = roc_point(circuit, known)
    return point.false_positive_rate, point.true_positive_rate
