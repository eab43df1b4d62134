"""Runs that last: from a model and a task to a folder of plain files."""

from edgewise.runs.folder import RunFolder, load_run, require_free
from edgewise.runs.run import Run, RunInterrupted, check_request, describe_model, discover, plan_discovery, versions

__all__ = [
    "Run",
    "RunFolder",
    "RunInterrupted",
    "check_request",
    "describe_model",
    "discover",
    "load_run",
    "plan_discovery",
    "require_free",
    "versions",
]
