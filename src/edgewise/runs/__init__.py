"""Runs that last: from a model and a task to a folder of plain files."""

from edgewise.runs.folder import RunFolder, load_run, require_free
from edgewise.runs.run import Run, check_request, describe_model, discover, versions

__all__ = ["Run", "RunFolder", "check_request", "describe_model", "discover", "load_run", "require_free", "versions"]
