"""A search from its request to its result: `discover`, and what it would cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from edgewise.discovery import (
    METHODS,
    Discovery,
    Interrupted,
    Method,
    Order,
    OrderMode,
    Plan,
    Progress,
    ProgressCallback,
    Scored,
    Selected,
    acdc,
    acdc_with_edges,
    at_most,
    by_threshold,
    greedy,
    plan_acdc,
    require_count,
    top,
)
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.evaluation import Outcome, advice, outcome_of
from edgewise.models import Decoder
from edgewise.patching import Experiment, OutOfMemoryError, plan_memory
from edgewise.runs.request import AblationName, EngineName, SearchRequest, Selection
from edgewise.runs.run import Run, RunInterrupted, record_of, settings_of
from edgewise.tasks import Metric, Reference, Task, share_by_chance


def discover(
    model: Decoder,
    task: Task,
    *,
    method: str = "acdc",
    threshold: float | None = None,
    edges: int | None = None,
    share: float | None = None,
    select: Selection = "at-most",
    ablation: AblationName | None = None,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    ports: bool = True,
    layer_order: OrderMode = "normal",
    head_order: OrderMode = "normal",
    seed: int = 0,
    absolute: bool = False,
    engine: EngineName = "incremental",
    max_memory: int | None = None,
    options: Mapping[str, Any] | None = None,
    request: SearchRequest | None = None,
    progress: ProgressCallback | None = None,
    command: Sequence[str] | None = None,
) -> Run:
    """Find the circuit of a task in a model.

    Args:
        method: `acdc`, or one that scores edges (`METHODS` and `edgewise methods` list them; `eap`, `eap-ig`, `atp`,
            `hisp` and `sp` are short for some).
        threshold: ACDC's threshold, or the lowest score that is kept; in the metric's units, or, for methods whose
            scores have units of their own, in those. By default the task's suggestion.
        edges: instead of a threshold, the most edges the circuit may have.
        share: the same as a share of the graph's edges, from 0 to 1.
        select: how scores become that many edges: `at-most` (as many as leave at most that many when what dangles is
            dropped), `top` (exactly so many, then pruned) or `greedy` (grown from the logits, then pruned).
        ablation: what an absent edge carries: `resample`, `zero`, `mean`, `mean-positional`; by default the task's.
        metric: a metric's name, or a function of logits `[scored, d_vocab]` and a `Reference` that gives one number per
            scored place, lower being better; by default the task's.
        ports: whether to test heads' port edges too, as the paper does.
        layer_order, head_order: how parents are ordered: `normal`, `reverse` or `shuffle`.
        seed: of shuffled orders, and of the noise that methods learn masks with.
        absolute: compare the size of the metric's change (or of a score) with the threshold, not the signed one.
        engine: `incremental`, or `plain`: one circuit run per tested edge, for those who want to check the other one.
        max_memory: bytes that the search may use beyond the model's weights; by default what the machine has.
        options: what the method takes besides, by name (`METHODS[method].options` has the defaults).
        request: all of the above as one object.
        progress: called with a `Progress` as the search goes.
        command: the shell command that asked for this, kept in the record.

    Raises:
        EdgewiseError: an unknown name, no threshold where the task suggests none, a search that does not fit into
            memory, or whatever the method raises.
        RunInterrupted: Ctrl-C, or no memory left half-way; it holds what was decided.
    """
    asked = _asked(locals())
    asked.check()
    asked.check_size(task.threshold)
    whole = model.graph(ports=asked.ports, split_embedding=task.split_embedding)
    asked = asked.settled(task, whole)
    chosen = METHODS[asked.method]
    if asked.edges is not None and asked.select != "at-most":
        require_count(whole, asked.edges)  # before anything is scored
    kind = "runs" if asked.method == "acdc" and asked.engine == "plain" else chosen.memory
    plan_memory(model, task, whole, asked.max_memory, kind)  # before an Experiment records anything
    experiment = _experiment(model, task, asked)
    accuracy = experiment.accuracy()
    _warn_if_wrong(accuracy, experiment)
    started = time.perf_counter()
    stopped: Interrupted | None = None
    scoring: dict[str, Any] | None = None
    try:
        if chosen.score is not None:
            scored = score_edges(experiment, chosen, asked.options or {}, asked.max_memory, progress)
            selected = _select(scored, chosen, asked)
            found = _scored_discovery(experiment, selected, time.perf_counter() - started)
            scoring = {
                "rule": asked.select if asked.edges is not None else "threshold",
                "cut": selected.cut if math.isfinite(selected.cut) else None,  # JSON has no infinity
                "taken": selected.taken,
                "dangling": selected.dangling,
                **scored.details,
            }
            if selected.taken and not selected.circuit:
                warnings.warn(
                    "the edges with the highest scores make no path from the embedding to the logits, so the circuit "
                    "is empty; allow more",
                    EdgewiseWarning,
                    stacklevel=2,
                )
        else:
            found = _pruned(experiment, asked, progress)
            asked = replace(asked, threshold=found.threshold)
    except Interrupted as stop:
        found, stopped = stop.discovery, stop
        asked = replace(asked, threshold=found.threshold)
    settings = settings_of(asked, experiment)
    if stopped is None:
        # Every finished search is measured again from scratch, by one circuit run, as circuits cut from scores are.
        logits = experiment.logits(found.circuit)
        outcome = outcome_of(experiment, logits, found.metric_full, found.metric_ablated)
        if scoring is not None:
            found = replace(found, metric=outcome.metric)
        record = record_of(settings, found, command, outcome, accuracy, task)
        record["result"]["scoring"] = scoring
        failed = advice(outcome, accuracy, settings)
        if failed is not None and model.original is None and (found.circuit or scoring is None):  # a control may fail
            warnings.warn(failed, EdgewiseWarning, stacklevel=2)
        return Run(found, record, task, model)
    why = str(stopped.__cause__) if isinstance(stopped.__cause__, OutOfMemoryError) else "interrupted"
    record = record_of(settings, found, command, Outcome(found.metric), accuracy, task)
    record.update(finished=False, stopped=_stopped(stopped, why))
    raise RunInterrupted(why, Run(found, record, task, model)) from stopped.__cause__


def _pruned(experiment: Experiment, asked: SearchRequest, progress: ProgressCallback | None) -> Discovery:
    search: dict[str, Any] = dict(
        order=Order(asked.layer_order, asked.head_order, asked.seed),
        absolute=asked.absolute,
        engine=asked.engine,
        max_memory=asked.max_memory,
        progress=progress,
    )
    if asked.edges is not None:
        return acdc_with_edges(experiment, asked.edges, **search)
    assert asked.threshold is not None
    return acdc(experiment, asked.threshold, **search)


def _asked(given: Mapping[str, Any]) -> SearchRequest:
    """What the arguments of a function ask for, of which one may be `request`, instead of all others.

    Raises:
        EdgewiseError: there are others beside a `request`.
    """
    asked = SearchRequest(**{name: given[name] for name in SearchRequest.__dataclass_fields__ if name in given})
    if given["request"] is None:
        return asked
    if asked != SearchRequest():
        raise EdgewiseError("give a search as one request or by keywords, not both")
    return given["request"]


def _experiment(model: Decoder, task: Task, asked: SearchRequest) -> Experiment:
    return Experiment(
        model, task, ablation=asked.ablation, metric=asked.metric, ports=asked.ports, max_memory=asked.max_memory
    )


def score_edges(
    experiment: Experiment,
    method: Method,
    options: Mapping[str, Any],
    max_memory: int | None = None,
    progress: ProgressCallback | None = None,
) -> Scored:
    """Every edge's score by a method, with its progress told in a search's words."""

    def report(done: int, of: int) -> None:
        if progress is not None:
            progress(Progress(done, of, 0, done, math.nan, method.counts, math.nan))

    assert method.score is not None
    return method.score(experiment.within(max_memory, method.memory), report, max_memory, **options)


def _select(scored: Scored, method: Method, asked: SearchRequest) -> Selected:
    edges, absolute = asked.edges, asked.absolute
    if edges is not None:
        if asked.select != "at-most":
            return (greedy if asked.select == "greedy" else top)(scored.circuit, edges, absolute=absolute)
        return at_most(scored.circuit, edges, absolute=absolute, whole_ties=method.units, above=scored.above)
    if asked.threshold is None:  # the method rounds
        assert scored.own is not None
        circuit = scored.own.connected()
        taken = int(scored.own.edges.sum())
        return Selected(circuit, taken, taken - int(circuit.edges.sum()), 0.0)
    return by_threshold(scored.circuit, asked.threshold, absolute=absolute)


def _scored_discovery(experiment: Experiment, selected: Selected, seconds: float) -> Discovery:
    return Discovery(
        circuit=selected.circuit,
        trace=(),
        metric=math.nan,  # measured when all is found, as every circuit is
        metric_full=experiment.full(),
        metric_ablated=experiment.ablated(),
        threshold=selected.cut,
        seconds=seconds,
        tests=0,
    )


def _warn_if_wrong(accuracy: float | None, experiment: Experiment) -> None:
    """Say so before the search if the model cannot do the task: right less than half-way between chance and always."""
    if accuracy is not None and accuracy < (1 + share_by_chance(experiment.reference)) / 2:
        warnings.warn(
            f"the model gets {accuracy:.0%} right; there may be no circuit to find", EdgewiseWarning, stacklevel=3
        )


def _stopped(stop: Interrupted, why: str) -> dict[str, Any]:
    """How far the search got; with `whole`, the circuit is that of an earlier search, which came to its end."""
    at = stop.progress
    decided, where = (at.edges, f"try {at.attempt}") if stop.whole else (at.decided, at.at)
    return {
        "why": why,
        "at": where,
        "decided": decided,
        "of": at.edges,
        "tests": stop.discovery.tests,
        "whole": stop.whole,
    }


def plan_discovery(
    model: Decoder,
    task: Task,
    *,
    threshold: float | None = None,
    ablation: AblationName | None = None,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    ports: bool = True,
    layer_order: OrderMode = "normal",
    head_order: OrderMode = "normal",
    seed: int = 0,
    absolute: bool = False,
    max_memory: int | None = None,
    request: SearchRequest | None = None,
) -> Plan:
    """What `discover` with ACDC would cost with the same settings: memory, and time from a short calibration.

    Args:
        threshold: the one to plan for; without one, several sizes of circuit.
        request: all of these as one object.

    Raises:
        EdgewiseError: as `discover`.
    """
    asked = _asked(locals())
    asked.check()
    plan_memory(model, task, model.graph(ports=asked.ports, split_embedding=task.split_embedding), asked.max_memory)
    order = Order(asked.layer_order, asked.head_order, asked.seed)
    experiment = _experiment(model, task, asked)
    return plan_acdc(experiment, asked.threshold, order=order, absolute=asked.absolute, max_memory=asked.max_memory)
