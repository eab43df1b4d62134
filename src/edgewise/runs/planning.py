"""What `discover` with ACDC would cost, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from edgewise.discovery import METHODS, NodePlan, Order, OrderMode, Plan, plan_acdc, plan_nodes
from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit
from edgewise.graph.by_node import Level
from edgewise.models import Decoder
from edgewise.patching import Ablation, plan_memory
from edgewise.patching.optimal import seconds_to_learn
from edgewise.runs.run import Run
from edgewise.runs.search import experiment_of, request_of
from edgewise.runs.search_request import AblationName, Heads, SearchRequest
from edgewise.runs.shortlist import shortlist_of
from edgewise.tasks import Metric, Reference, Task
from edgewise.tasks.spans import Positions


def require_plan(asked: SearchRequest) -> None:
    """Raise an EdgewiseError if there is nothing to plan, as ACDC does not search what is asked for."""
    if asked.of_units:
        raise EdgewiseError(
            f"a plan is of a search of edges or nodes, not {asked.level}s (--level {asked.level}): by "
            "attribution those take a pass or five through the model, by exact or ACDC a part of one for each in the "
            "shortlist (--within)"
        )


def plan_discovery(
    model: Decoder,
    task: Task,
    *,
    threshold: float | None = None,
    ablation: AblationName | None = None,
    mean_over: str | Path | Mapping[str, Any] | None = None,
    ablation_seed: int = 0,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    level: Level = "edge",
    ports: bool = True,
    layer_order: OrderMode = "normal",
    head_order: OrderMode = "normal",
    seed: int = 0,
    absolute: bool = False,
    heads: Heads = "split",
    positions: Positions = "together",
    within: int | str | Path | Circuit | Run | None = None,
    budget: float | None = None,
    max_memory: int | None = None,
    request: SearchRequest | None = None,
) -> Plan | NodePlan:
    """What `discover` with ACDC would cost with the same settings: memory, and time from a short calibration.

    Args:
        threshold: the one to plan for; without one, several sizes of circuit.
        request: all of these as one object.

    Raises:
        EdgewiseError: as `discover`.
    """
    asked = request_of(locals())
    require_plan(asked)
    asked.check()
    carried, whole = asked.ablating(model, task), asked.graph(model, task)
    plan_memory(model, task, whole, asked.max_memory, METHODS["acdc"].memory_for(asked.level), ablation=carried)
    order = Order(asked.layer_order, asked.head_order, asked.seed)
    learns = carried.name == "optimal"  # a candidate costs the same whatever was learned
    experiment = experiment_of(model, task, asked, Ablation("mean-clean") if learns else carried)
    learning = seconds_to_learn(experiment) if learns else None
    start = None if asked.within is None else shortlist_of(asked.within, experiment, level=asked.level)
    if asked.level == "node":
        return replace(plan_nodes(experiment, start=start, max_memory=asked.max_memory), learning=learning)
    planned = plan_acdc(
        experiment,
        asked.threshold,
        order=order,
        absolute=asked.absolute,
        budget=asked.budget,
        start=start,
        max_memory=asked.max_memory,
    )
    return replace(planned, learning=learning)
