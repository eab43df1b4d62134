"""What people look at."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewise.reports.drawing import draw
    from edgewise.reports.layout import Layout, Placed, place
    from edgewise.reports.plots import heat_plot, roc_plot, size_plot, threshold_plot
    from edgewise.reports.prompts import show_pair
    from edgewise.reports.terminal import (
        circuit_table,
        evaluation_table,
        heat_tables,
        highest_scores,
        known_table,
        plan_table,
        search_progress,
        step_progress,
        strongest_edges,
    )

# Imported when first asked for: a circuit is drawn without waiting for torch.
_PUBLIC = {
    "Layout": "layout",
    "Placed": "layout",
    "circuit_table": "terminal",
    "draw": "drawing",
    "heat_plot": "plots",
    "evaluation_table": "terminal",
    "heat_tables": "terminal",
    "highest_scores": "terminal",
    "known_table": "terminal",
    "place": "layout",
    "plan_table": "terminal",
    "roc_plot": "plots",
    "search_progress": "terminal",
    "show_pair": "prompts",
    "size_plot": "plots",
    "step_progress": "terminal",
    "strongest_edges": "terminal",
    "threshold_plot": "plots",
}

__all__ = [
    "Layout",
    "Placed",
    "circuit_table",
    "draw",
    "evaluation_table",
    "heat_plot",
    "heat_tables",
    "highest_scores",
    "known_table",
    "place",
    "plan_table",
    "roc_plot",
    "search_progress",
    "show_pair",
    "size_plot",
    "step_progress",
    "strongest_edges",
    "threshold_plot",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
