"""edgewise finds the circuit inside a transformer that does one behaviour.

import edgewise as ew
model = ew.load_model("tiny-ioi")
task = ew.load_task("ioi", model)
found = ew.discover(model, task)
found.circuit, found.trace, found.save("runs/ioi")
found.evaluate()
found.report("ioi.html")

Importing it makes two settings of the process that searches on CPU gain from (`edgewise.process`); do it before torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.process import tune_process

if TYPE_CHECKING:
    from edgewise.discovery import METHODS, acdc, head_parts, register_method
    from edgewise.evaluation import Evaluation, evaluate, patch_paths
    from edgewise.graph import Circuit, Graph, load_circuit, save_circuit
    from edgewise.models import Decoder, get_model, load_model, permuted, register_family
    from edgewise.patching import Experiment
    from edgewise.reports.page import report
    from edgewise.runs import Run, RunInterrupted, discover, load_run, plan_discovery, resume
    from edgewise.runs.sweep import sweep
    from edgewise.tasks import METRICS, TASKS, Dataset, Metric, Task, load_task, register_task

__version__ = "0.1.0"

tune_process()

# Imported when first asked for, so that `import edgewise` and `edgewise --help` do not wait for torch.
_PUBLIC = {
    "METHODS": "discovery",
    "METRICS": "tasks",
    "TASKS": "tasks",
    "Circuit": "graph",
    "Dataset": "tasks",
    "Decoder": "models",
    "Evaluation": "evaluation",
    "Experiment": "patching",
    "Graph": "graph",
    "Metric": "tasks",
    "Run": "runs",
    "RunInterrupted": "runs",
    "Task": "tasks",
    "acdc": "discovery",
    "discover": "runs",
    "evaluate": "evaluation",
    "get_model": "models",
    "head_parts": "discovery",
    "load_circuit": "graph",
    "load_model": "models",
    "load_run": "runs",
    "load_task": "tasks",
    "patch_paths": "evaluation",
    "permuted": "models",
    "plan_discovery": "runs",
    "register_family": "models",
    "register_method": "discovery",
    "register_task": "tasks",
    "report": "reports.page",
    "resume": "runs",
    "save_circuit": "graph",
    "sweep": "runs.sweep",
}

__all__ = [
    "METHODS",
    "METRICS",
    "TASKS",
    "Circuit",
    "Dataset",
    "Decoder",
    "EdgewiseError",
    "EdgewiseWarning",
    "Evaluation",
    "Experiment",
    "Graph",
    "Metric",
    "Run",
    "RunInterrupted",
    "Task",
    "acdc",
    "discover",
    "evaluate",
    "get_model",
    "head_parts",
    "load_circuit",
    "load_model",
    "load_run",
    "load_task",
    "patch_paths",
    "permuted",
    "plan_discovery",
    "register_family",
    "register_method",
    "register_task",
    "report",
    "resume",
    "save_circuit",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edgewise' has no attribute {name!r}")
    if _PUBLIC[name] == "runs":
        importlib.import_module("edgewise.reports.page")  # which gives Run its report()
    return getattr(importlib.import_module(f"edgewise.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
