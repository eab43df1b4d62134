"""A picture of what a head's scores and its output are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgewise.reports.figures import STYLE, figure, finished
from edgewise.reports.plots import map_of_cells

if TYPE_CHECKING:
    from edgewise.discovery import HeadParts

MOST_PARTS = 12
"""Parts with a row of their own; the others are one row together."""


def head_plot(
    parts: HeadParts, *, tokens: Sequence[str] | None = None, title: str = "", path: str | Path | None = None
) -> Figure:
    """Maps of one head: score by part of query and of key, by part of key and position, output by part and position.

    Scores are those above the mean of all keys that a query sees, as the softmax knows no others. Each map has its own
    scale; red raises the score, or the answers' logits. Parts are the strongest, then all others together.

    Args:
        tokens: the first prompt's, to stand under the positions.
    """
    above = parts.above_mean.numpy()
    seen = parts.seen[:, None].double()
    by_key = parts.key_side - (parts.key_side * seen).sum(dim=2, keepdim=True) / seen.sum(dim=2, keepdim=True)
    count = seen.sum(dim=0).clamp_min(1)
    scores = ((by_key * seen).sum(dim=0) / count).numpy()
    maps: list[tuple[str, Any, list[str], list[str] | None]] = []
    rows, columns = _strongest(above.sum(axis=1)), _strongest(above.sum(axis=0))
    pairs = _grouped(_grouped(above, rows).T, columns).T
    maps.append(("score of one key", pairs, _names(parts, rows), _names(parts, columns)))
    maps.append(("score by key", _grouped(scores, columns), _names(parts, columns), None))
    if parts.values is not None:
        values = parts.values.mean(dim=0).numpy()
        which = _strongest(np.abs(values).max(axis=1))
        maps.append(("onto the answers", _grouped(values, which), _names(parts, which), None))
    cell = 0.3
    with rc_context({**STYLE, "axes.spines.top": True, "axes.spines.right": True}):
        wide = [cell * max(4, values.shape[1]) for _, values, _, _ in maps]
        tall = cell * max(values.shape[0] for _, values, _, _ in maps)
        plot = figure(sum(wide) + 1.7 * len(maps), max(2.4, tall + 1.6))
        every = plot.subplots(1, len(maps), width_ratios=wide, squeeze=False)[0]
        for axes, (name, values, names, across) in zip(every, maps, strict=True):
            largest = float(np.abs(values).max(initial=0.0)) or 1.0
            shown = map_of_cells(axes, values, largest)
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            if across is not None:
                axes.set_xticks(range(len(across)), across, rotation=90)
                axes.set(xlabel="part of the key", ylabel="part of the query")
            else:
                axes.set(
                    xlabel="position", ylabel="part of the value" if name.startswith("onto") else "part of the key"
                )
                if tokens is not None:
                    axes.set_xticks(range(len(tokens)), [repr(token)[1:-1] for token in tokens], rotation=90)
                    axes.set_xlabel("")
            axes.set_title(name)
            bar = plot.colorbar(shown, ax=axes, shrink=0.9, pad=0.02)
            bar.set_label("logits" if name.startswith("onto") else "score above the mean key")
        plot.suptitle(title or parts.head, fontsize=9)
    return finished(plot, path)


def _strongest(sizes: NDArray[Any]) -> list[int]:
    """The parts with a row of their own, in their order."""
    return sorted(np.argsort(-np.abs(sizes), kind="stable")[:MOST_PARTS].tolist())


def _grouped(values: NDArray[Any], rows: list[int]) -> NDArray[Any]:
    """Some rows, then the sum of all others if there are any."""
    others = [row for row in range(len(values)) if row not in rows]
    return np.concatenate([values[rows], values[others].sum(axis=0, keepdims=True)] if others else [values[rows]])


def _names(parts: HeadParts, rows: list[int]) -> list[str]:
    return [*(parts.parts[row] for row in rows), *(["others"] if len(rows) < len(parts.parts) else [])]
