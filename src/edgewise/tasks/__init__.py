"""What behaviour is looked for: tasks, their prompts, and the metrics that judge logits."""

from edgewise.tasks.known import KNOWN_CIRCUITS, Comparison, GivenCircuit, KnownCircuit, Truth, known_circuit
from edgewise.tasks.load import TASKS, TaskSpec, check_request, find_spec, load_task, make_task, register_task
from edgewise.tasks.metrics import (
    METRICS,
    Metric,
    Reference,
    find_metric,
    mean_over_places,
    metrics_of,
    right_answers,
    share_by_chance,
)
from edgewise.tasks.tables import Dataset
from edgewise.tasks.task import Prompts, PromptText, Split, Task
from edgewise.tasks.texts import Texts, read_texts

__all__ = [
    "KNOWN_CIRCUITS",
    "METRICS",
    "TASKS",
    "Comparison",
    "Dataset",
    "GivenCircuit",
    "KnownCircuit",
    "Metric",
    "PromptText",
    "Prompts",
    "Reference",
    "Split",
    "Task",
    "TaskSpec",
    "Texts",
    "Truth",
    "check_request",
    "find_metric",
    "find_spec",
    "known_circuit",
    "load_task",
    "make_task",
    "mean_over_places",
    "metrics_of",
    "read_texts",
    "register_task",
    "right_answers",
    "share_by_chance",
]
