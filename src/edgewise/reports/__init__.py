"""What people look at."""

from edgewise.reports.evaluation import assessment_tables, evaluation_table
from edgewise.reports.prompts import show_pair
from edgewise.reports.sweep_progress import section_progress, sweep_progress
from edgewise.reports.terminal import (
    circuit_table,
    heat_tables,
    highest_scores,
    known_table,
    plan_table,
    search_progress,
    step_progress,
    strongest_edges,
)

__all__ = [
    "assessment_tables",
    "circuit_table",
    "evaluation_table",
    "heat_tables",
    "highest_scores",
    "known_table",
    "plan_table",
    "search_progress",
    "section_progress",
    "show_pair",
    "step_progress",
    "strongest_edges",
    "sweep_progress",
]
