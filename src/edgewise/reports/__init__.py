"""What people look at."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewise.reports.circuits import circuit_table, highest_scores, strongest_edges
    from edgewise.reports.drawing import draw
    from edgewise.reports.evaluation import assessment_tables, evaluation_table
    from edgewise.reports.groups import groups_table, known_table
    from edgewise.reports.head_plots import head_plot
    from edgewise.reports.heads import head_tables
    from edgewise.reports.layout import Layout, Placed, place
    from edgewise.reports.paths import path_headline, path_table
    from edgewise.reports.plots import heat_plot, roc_plot, size_plot, threshold_plot
    from edgewise.reports.progress import section_progress, sweep_progress
    from edgewise.reports.prompts import show_pair
    from edgewise.reports.terminal import (
        heat_tables,
        plan_table,
        search_progress,
        step_progress,
    )

# Imported when first asked for: a circuit is drawn without waiting for torch.
_PUBLIC = {
    "Layout": "layout",
    "Placed": "layout",
    "assessment_tables": "evaluation",
    "circuit_table": "circuits",
    "draw": "drawing",
    "evaluation_table": "evaluation",
    "head_plot": "head_plots",
    "head_tables": "heads",
    "heat_plot": "plots",
    "heat_tables": "terminal",
    "highest_scores": "circuits",
    "groups_table": "groups",
    "known_table": "groups",
    "path_headline": "paths",
    "path_table": "paths",
    "place": "layout",
    "plan_table": "terminal",
    "roc_plot": "plots",
    "search_progress": "terminal",
    "section_progress": "progress",
    "show_pair": "prompts",
    "size_plot": "plots",
    "step_progress": "terminal",
    "strongest_edges": "circuits",
    "sweep_progress": "progress",
    "threshold_plot": "plots",
}

__all__ = [
    "Layout",
    "Placed",
    "assessment_tables",
    "circuit_table",
    "draw",
    "evaluation_table",
    "groups_table",
    "head_plot",
    "head_tables",
    "heat_plot",
    "heat_tables",
    "highest_scores",
    "known_table",
    "path_headline",
    "path_table",
    "place",
    "plan_table",
    "roc_plot",
    "search_progress",
    "section_progress",
    "show_pair",
    "size_plot",
    "step_progress",
    "strongest_edges",
    "sweep_progress",
    "threshold_plot",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
