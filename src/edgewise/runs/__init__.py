"""Runs that last: from a model and a task to a folder of plain files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewise.runs.folder import RunFolder, require_free, require_own
    from edgewise.runs.loaded import load_again, load_run
    from edgewise.runs.mib import run_mib
    from edgewise.runs.mib_plan import MibPlan
    from edgewise.runs.planning import plan_discovery
    from edgewise.runs.reading import read_record, read_run, read_trace
    from edgewise.runs.request import ModelRequest, Request, SearchRequest, TaskRequest
    from edgewise.runs.resuming import resume
    from edgewise.runs.run import Run, RunInterrupted, describe_model, versions
    from edgewise.runs.search import discover

# Imported when first asked for: reading a run folder does not wait for torch, nor a request for numpy.
_IN = {
    **dict.fromkeys(("RunFolder", "require_free", "require_own"), "folder"),
    **dict.fromkeys(("read_record", "read_run", "read_trace"), "reading"),
    "resume": "resuming",
    **dict.fromkeys(("load_again", "load_run"), "loaded"),
    **dict.fromkeys(("ModelRequest", "Request", "SearchRequest", "TaskRequest"), "request"),
    **dict.fromkeys(("Run", "RunInterrupted", "describe_model", "versions"), "run"),
    "plan_discovery": "planning",
    "run_mib": "mib",
    "MibPlan": "mib_plan",
    "discover": "search",
}

__all__ = [
    "MibPlan",
    "ModelRequest",
    "Request",
    "Run",
    "RunFolder",
    "RunInterrupted",
    "SearchRequest",
    "TaskRequest",
    "describe_model",
    "discover",
    "load_again",
    "load_run",
    "plan_discovery",
    "read_record",
    "read_run",
    "read_trace",
    "require_free",
    "require_own",
    "resume",
    "run_mib",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in _IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"edgewise.runs.{_IN[name]}"), name)
