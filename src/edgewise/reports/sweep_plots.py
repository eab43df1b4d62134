"""The plots of a sweep: size against metric, ROC where the truth is known, and what ACDC's threshold does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.evaluation import roc_point
from edgewise.graph import Circuit
from edgewise.reports.plots import roc_plot, size_plot, threshold_plot
from edgewise.runs.paper_curves import Curve
from edgewise.runs.series import Series, SweepPoint

DISTANCES = ("kl_div", "l2")
"""Metrics that are 0 for the model and above it for all else, so that powers of ten show them best."""


def sweep_plots(
    every: Sequence[Series],
    metric: str,
    folder: Path,
    *,
    title: str,
    known: Circuit | None = None,
    known_value: float | None = None,
) -> None:
    """Write `sizes.svg`; `roc.svg` against a known circuit; and `thresholds.svg` for ACDC.

    Metrics are those on test prompts, where the sweep has them; `known_value` is that of the known circuit.
    """
    full, ablated = every[0].baseline[metric]
    sizes = {one.method: [(point.circuit.n_edges, _value(point, metric)) for point in one.points] for one in every}
    if any(size > 0 for points in sizes.values() for size, _ in points):
        dark = {one.method: shades(one.by, [point.setting for point in one.points]) for one in every}
        size_plot(
            sizes,
            metric=metric,
            full=full,
            ablated=ablated,
            known=None if known is None or known_value is None else (known.n_edges, known_value),
            **_shading(dark),
            title=title,
            path=folder / "sizes.svg",
        )
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
    """Size against metric for every row of `edgewise reproduce`, all its methods in one plot. Returns the files.

    Every circuit is drawn, with the whole model, the ablated run, the known circuit and the reset network beside them.
    """
    every: dict[str, list[Curve]] = {}
    for curve in curves:
        every.setdefault(curve.key, []).append(curve)
    written = []
    for key, some in every.items():
        first = some[0]
        beside = first.references
        # The whole graph is the model, which has a line of its own.
        kept = {one: [point for point in one.points if 0 < point[1] < one.n_graph_edges] for one in some}
        shown = {one.method: [(size, value) for _, size, value in points] for one, points in kept.items()}
        values = [value for points in shown.values() for _, value in points]
        if not values:
            continue
        # Where circuits are the model but for rounding, as those of programs, powers of ten would show nothing else.
        log = first.metric in DISTANCES and statistics.median(values) > 1e-6 * abs(beside.ablated)
        path = folder / f"sizes-{key}.svg"
        size_plot(
            shown,
            metric=first.metric,
            full=None if log else beside.full,
            ablated=beside.ablated,
            known=None if log and beside.known is not None and beside.known[1] <= 0 else beside.known,
            reset=beside.reset,
            **_shading({one.method: shades(one.by, [setting for setting, *_ in kept[one]]) for one in some}),
            log=log,
            title=f"{first.task} on {Path(first.model).name}",
            path=path,
        )
        written.append(path)
    return written


def shades(by: str, settings: Sequence[float]) -> list[float] | None:
    """How dark the points of a method are: by the logarithm of a threshold or lambda, or by how much is masked.

    None for methods whose settings are sizes, which the axis shows.
    """
    if by == "edges" or not settings:
        return None
    numbers = list(settings)
    if by != "units masked":
        least = min((one for one in numbers if one > 0), default=1.0)
        numbers = [math.log10(max(one, least)) for one in numbers]
    low, high = min(numbers), max(numbers)
    return [1.0 if high == low else (one - low) / (high - low) for one in numbers]


def _shading(dark: Mapping[str, Sequence[float] | None]) -> dict[str, Any]:
    """What a plot is told of shades."""
    given = {method: one for method, one in dark.items() if one is not None}
    words = "darker: higher threshold or\nlambda, more units masked" if given else ""
    return {"shades": given, "shaded_by": words}


def _value(point: SweepPoint, metric: str) -> float:
    return point.test_metrics.get(metric, point.metrics[metric])


def _rates(circuit: Circuit, known: Circuit) -> tuple[float, float]:
    point = roc_point(circuit, known)
    return point.false_positive_rate, point.true_positive_rate
