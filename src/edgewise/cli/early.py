"""What is refused, and said, before torch is imported, which takes seconds."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from edgewise.cli import completion
from edgewise.cli.listed import brought, listed
from edgewise.errors import unknown
from edgewise.reports.words import visible


def refuse_unknown(given: Mapping[str, Any]) -> None:
    """Refuse names of a request that are nobody's, in the words of those who would refuse them later.

    Raises:
        EdgewiseError: an unknown task, method, metric or ablation.
    """
    task = given.get("task") or ""
    if _a_name(task) and task not in completion.TASKS and not brought("tasks"):
        raise unknown("task", task, completion.TASKS)
    method = given.get("method")
    if method and method.lower() not in completion.METHODS and not brought("methods"):
        raise unknown("method", method, completion.METHODS)
    for kind, known in (("metric", completion.METRICS), ("ablation", completion.ABLATIONS)):
        name = given.get(kind)
        if name and name not in known:
            raise unknown(kind, name, known)


def _a_name(task: str) -> bool:
    """Whether a task can only be a built-in one's name, and no file's."""
    if not task.strip() or "/" in task or task.endswith((".jsonl", ".json")):
        return False
    with contextlib.suppress(OSError, ValueError):
        return not Path(task).exists()
    return False


def say_loading(given: Mapping[str, Any], *, quiet: bool) -> None:
    """Say which model a request waits for."""
    task = given.get("task") or ""
    model = given.get("model")
    if model is None and task in completion.TASKS:
        model = next((row["model"] for row in listed("tasks") if row["name"] == task), None)
    if model is not None:
        waiting(f"loading {model}", quiet=quiet)


def waiting(what: str, *, quiet: bool) -> None:
    """Say on a terminal what is being waited for; pipes and logs are spared that."""
    if not quiet and sys.stderr.isatty():
        typer.echo(visible(f"{what} ..."), err=True)
