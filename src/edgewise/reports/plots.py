"""Curves and maps for a paper, by one call each: every function takes plain numbers and gives a matplotlib figure.

With `path` the figure is also written: .svg and .pdf are vectors, with their words as text, .png is 200 dots an inch.
The same numbers always give the same file. An ending that is none of these, or a file that cannot be written, is an
EdgewiseError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgewise.errors import EdgewiseError
from edgewise.reports.figures import COLOURS, MARKERS, STYLE, count_in_powers, figure, finished, metric_words
from edgewise.reports.words import worse

Points = Sequence[tuple[float, float]]

WRITTEN_OUT = 80
"""Maps of at most so many cells have their numbers written in them."""


class Maps(Protocol):
    """Heat maps: what `edgewise.discovery.heat_maps` gives."""

    @property
    def heads(self) -> Any: ...
    @property
    def mlps(self) -> Any: ...
    @property
    def embedding(self) -> Any: ...
    @property
    def positions(self) -> Any: ...


def roc_plot(
    methods: Mapping[str, Points], *, of: str = "edges", title: str = "", path: str | Path | None = None
) -> Figure:
    """True against false positives for several methods.

    Args:
        methods: by name, points (false positive rate, true positive rate), one per circuit that the method found.
            The line through them is the staircase: from each point it runs level until the next is reached.
        of: what is counted, `edges` or `nodes`.

    Raises:
        EdgewiseError: a rate that is not between 0 and 1.
    """
    with rc_context(STYLE):
        plot = figure(3.4, 3.2)
        axes = plot.add_subplot()
        axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=0.8, linestyle=(0, (4, 3)), label="by chance")
        for number, (name, points) in enumerate(methods.items()):
            ordered = sorted(points)
            if not all(0 <= rate <= 1 for point in ordered for rate in point):
                raise EdgewiseError(f"the rates of {name!r} should be between 0 and 1")
            corners = [(0.0, 0.0), *ordered, (1.0, 1.0)]
            # A staircase climbs: a point below an earlier one adds nothing to it.
            heights = np.maximum.accumulate([height for _, height in corners[:-1]]).tolist()
            colour, marker = _look(number)
            axes.step([x for x, _ in corners], [*heights, 1.0], where="post", color=colour)
            axes.plot(*_columns(ordered), linestyle="none", marker=marker, color=colour, label=name, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
        axes.set_xlabel(f"false positive rate (share of other {of})")
        axes.set_ylabel(f"true positive rate (share of true {of})")
        axes.legend(loc="lower right")
    return finished(plot, path)


def size_plot(
    methods: Mapping[str, Points],
    *,
    metric: str,
    full: float | None = None,
    ablated: float | None = None,
    known: tuple[float, float] | None = None,
    reset: float | None = None,
    shades: Mapping[str, Sequence[float]] | None = None,
    shaded_by: str = "",
    log: bool = False,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """A metric against the circuit's size, for several methods.

    Args:
        methods: by name, points (number of edges, metric).
        metric: the metric's name, as in `kl_div`; the axis says what it is and its unit.
        full, ablated: the metric of the whole model and of no edge at all, as level lines.
        known: number of edges and metric of the circuit that people worked out.
        reset: the metric of the same network with its heads and neurons shuffled, as a level line.
        shades: by name, how dark each of a method's points is, from 0 to 1, as by the threshold that gave it; methods
            that are not named have points of one colour. `shaded_by` says in the legend what makes them darker.
        log: powers of ten for the metric too; what is not above 0 is then not drawn.

    Raises:
        EdgewiseError: there is no circuit with an edge.
    """
    with rc_context(STYLE):
        plot = figure(4.2, 3.0)
        axes = plot.add_subplot()
        for number, (name, points) in enumerate(methods.items()):
            dark = (shades or {}).get(name, [1.0] * len(points))
            ordered = sorted((*point, shade) for point, shade in zip(points, dark, strict=True) if point[0] >= 1)
            colour, marker = _look(number)
            columns = _columns([point[:2] for point in ordered])
            axes.plot(*columns, marker=marker, color=colour, label=name)
            if name in (shades or {}):
                faces = [_lighter(colour, shade) for *_, shade in ordered]
                size = float(STYLE["lines.markersize"]) ** 2
                axes.scatter(*columns, s=size, c=faces, edgecolors=colour, linewidths=0.8, marker=marker, zorder=3)
        if known is not None:
            axes.plot(*known, marker="*", markersize=10, color="#000000", linestyle="none", label="known circuit")
        sizes = [size for points in (*methods.values(), [known] if known else []) for size, _ in points if size >= 1]
        if not sizes:
            raise EdgewiseError("there is no circuit with an edge to plot")
        levels = ((full, "whole model", 0, 1), (ablated, "every edge ablated", 1, 1), (reset, "reset network", 1, -1))
        for value, words, side, above in levels:
            if value is not None and (value > 0 or not log):
                axes.axhline(value, color="#8a8a8a", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
                axes.annotate(
                    words, (side, value), xycoords=("axes fraction", "data"), xytext=(3 - 3 * side, 2 * above),
                    textcoords="offset points", ha=("left", "right")[side], va="bottom" if above > 0 else "top",
                    color="#5a5a5a", fontsize=7,
                )  # fmt: skip
        axes.set_xscale("log")
        count_in_powers(axes.xaxis, min(sizes), max(sizes))
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="edges in the circuit", ylabel=metric_words(metric), title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=shaded_by or None, title_fontsize=7)
    return finished(plot, path)


def heat_plot(
    maps: Maps,
    *,
    metric: str,
    tokens: Sequence[str] | None = None,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """The heat maps of `edgewise patch`: every head, MLP and embedding, and every layer's stream at every position.

    Red is a metric that gets worse when that part is ablated: it mattered. Blue is one that gets better.

    Args:
        maps: `heads` `[layers, heads]`, `mlps` `[layers]` or empty, `embedding` `[parts]`, `positions` `[layers, pos]`.
        tokens: the first prompt's, to stand under the positions.
    """
    heads, mlps, embedding, positions = (
        np.asarray(one, dtype=np.float64) for one in (maps.heads, maps.mlps, maps.embedding, maps.positions)
    )
    n_layers, n_heads = heads.shape
    parts = [heads, mlps[:, None]] if len(mlps) else [heads]
    nodes = np.concatenate(parts, axis=1)
    names = [*(str(head) for head in range(n_heads)), *(["MLP"] if len(mlps) else [])]
    largest = max(float(np.abs(one).max(initial=0.0)) for one in (nodes, embedding, positions)) or 1.0
    cell = 0.3
    with rc_context({**STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        wide = [cell * max(3, nodes.shape[1]), cell * max(3, positions.shape[1])]
        plot = figure(sum(wide) + 2.6, max(2.2, cell * n_layers + (1.5 if tokens else 1.1)))
        left, right = plot.subplots(1, 2, width_ratios=wide)
        map_of_cells(left, nodes, largest)
        left.set_xticks(range(len(names)), names)
        left.set(xlabel="head", ylabel="layer", title="heads" + (" and MLPs" if len(mlps) else ""))
        shown = map_of_cells(right, positions, largest)
        right.set(xlabel="position", title="stream that enters a layer")
        if tokens is not None:
            right.set_xticks(range(len(tokens)), [repr(token)[1:-1] for token in tokens], rotation=90)
            right.set_xlabel("")
        bar = plot.colorbar(shown, ax=[left, right], shrink=0.9, pad=0.02)
        bar.set_label(worse(metric) + _unit(metric))
        words = ("embedding",) if len(embedding) == 1 else ("tokens", "positions")
        whole = ", ".join(f"{word} {value:z.3g}" for word, value in zip(words, embedding.tolist(), strict=True))
        plot.suptitle(f"{title}\n{whole}" if title else whole, fontsize=9)
    return finished(plot, path)


def threshold_plot(
    thresholds: Sequence[float],
    edges: Sequence[float],
    metrics: Sequence[float],
    *,
    metric: str,
    ablated: float | None = None,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """What a threshold does: the circuit's size above, the metric below, both against the same thresholds.

    Args:
        thresholds, edges, metrics: one each per circuit, in any order.
        ablated: the metric of no edge at all, as a level line.

    Raises:
        EdgewiseError: not as many of one as of the others, or a threshold that is not above 0.
    """
    if not len(thresholds) == len(edges) == len(metrics) > 0:
        raise EdgewiseError(
            f"a sweep has a size and a metric for every threshold, not {len(thresholds)} thresholds, {len(edges)} "
            f"sizes and {len(metrics)} metrics"
        )
    if not all(threshold > 0 and math.isfinite(threshold) for threshold in thresholds):
        raise EdgewiseError("thresholds should be numbers above 0, for an axis of powers of ten")
    order = np.argsort(np.asarray(thresholds, dtype=np.float64), kind="stable")
    x, sizes, values = (np.asarray(one, dtype=np.float64)[order] for one in (thresholds, edges, metrics))
    with rc_context(STYLE):
        plot = figure(3.6, 3.8)
        top, bottom = plot.subplots(2, 1, sharex=True)
        top.plot(x, sizes, marker=MARKERS[0], color=COLOURS[0])
        top.set(ylabel="edges in the circuit", title=title)
        if sizes.min() > 0:
            top.set_yscale("log")
            count_in_powers(top.yaxis, float(sizes.min()), float(sizes.max()))
        else:
            top.set_yscale("symlog", linthresh=1)
            top.set_ylim(0, max(1.0, 1.6 * float(sizes.max())))
            top.yaxis.set_major_formatter("{x:,.0f}")
        bottom.plot(x, values, marker=MARKERS[1], color=COLOURS[1])
        if ablated is not None:
            bottom.axhline(ablated, color="#8a8a8a", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            bottom.annotate(
                "every edge ablated", (0, ablated), xycoords=("axes fraction", "data"), xytext=(3, 2),
                textcoords="offset points", va="bottom", color="#5a5a5a", fontsize=7,
            )  # fmt: skip
        bottom.set_xscale("log")
        count_in_powers(bottom.xaxis, float(x[0]), float(x[-1]))
        bottom.set(xlabel="threshold" + _unit(metric), ylabel=metric_words(metric).replace(" (", "\n("))
    return finished(plot, path)


def _look(number: int) -> tuple[str, str]:
    # After the last colour they begin anew, each with another marker.
    return COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def _lighter(colour: str, dark: float) -> tuple[float, ...]:
    """A colour mixed with white, of which 0 leaves a tenth."""
    share = 0.1 + 0.9 * dark
    return tuple(1 - share + share * one for one in to_rgb(colour))


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _unit(metric: str) -> str:
    words = metric_words(metric)
    return f" ({words.rsplit('(', 1)[1]}" if words.endswith(")") else ""


def map_of_cells(axes: Axes, values: Any, largest: float) -> Any:
    """One map, layer 0 at the bottom, with its numbers where there is room for them."""
    shown = axes.imshow(values, origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=2)
    if values.size <= WRITTEN_OUT:
        for (layer, column), value in np.ndenumerate(values):
            share = abs(value) / largest
            if share >= 0.01:
                colour = "white" if share > 0.6 else "black"
                axes.text(column, layer, _cell(value), ha="center", va="center", fontsize=6, color=colour)
    return shown


def _cell(value: float) -> str:
    return (
        f"{value:z.0f}"
        if abs(value) >= 100
        else f"{value:z.1f}"
        if abs(value) >= 1
        else f"{value:z.2g}"
        if abs(value) >= 0.01
        else f"{value:z.0e}"
    )
