"""Runs that last: from a model and a task to a folder of plain files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgewise.runs.folder import RunFolder, load_run, read_trace, require_free, require_own

if TYPE_CHECKING:
    from edgewise.runs.run import Run, RunInterrupted, check_request, describe_model, discover, plan_discovery, versions

# Imported when first asked for: reading a run folder does not wait for torch.
_IN_RUN = ("Run", "RunInterrupted", "check_request", "describe_model", "discover", "plan_discovery", "versions")

__all__ = [
    "Run",
    "RunFolder",
    "RunInterrupted",
    "check_request",
    "describe_model",
    "discover",
    "load_run",
    "plan_discovery",
    "read_trace",
    "require_free",
    "require_own",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in _IN_RUN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("edgewise.runs.run"), name)
