"""What people look at."""

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

__all__ = [
    "circuit_table",
    "evaluation_table",
    "heat_tables",
    "highest_scores",
    "known_table",
    "plan_table",
    "search_progress",
    "show_pair",
    "step_progress",
    "strongest_edges",
]
