"""A search from its request to its result: `discover`."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from edgewise.discovery import (
    METHODS,
    Discovery,
    Interrupted,
    Method,
    OrderMode,
    ProgressCallback,
    Scored,
    Selected,
    StepProgress,
    at_most,
    by_integer_programming,
    by_threshold,
    choose_neurons,
    choose_nodes,
    greedy,
    require_count,
    top,
)
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.evaluation import Outcome, outcome_of
from edgewise.graph import Circuit
from edgewise.graph.by_node import Level
from edgewise.graph.groups import GivenGroups
from edgewise.models import Decoder
from edgewise.patching import Ablation, Constants, Experiment, OutOfMemoryError, plan_memory
from edgewise.patching.dictionary_fit import dictionary_fits, misfit
from edgewise.runs.bar import told
from edgewise.runs.folder import RunFolder
from edgewise.runs.given import known_of
from edgewise.runs.pruning import Pruning, Stopped, told_in_steps
from edgewise.runs.run import Run, RunInterrupted, record_of, settings_of
from edgewise.runs.search_request import AblationName, EngineName, Heads, SearchRequest, Selection, Shard
from edgewise.runs.shortlist import neurons_within
from edgewise.runs.verdict import verdict
from edgewise.tasks import GivenCircuit, Metric, Reference, Task, share_by_chance
from edgewise.tasks.spans import Positions


def discover(
    model: Decoder,
    task: Task,
    *,
    method: str = "acdc",
    level: Level = "edge",
    threshold: float | None = None,
    edges: int | None = None,
    share: float | None = None,
    neurons: int | None = None,
    features: int | None = None,
    dictionary: str | Path | None = None,
    dictionary_hooks: str | None = None,
    select: Selection = "at-most",
    ablation: AblationName | None = None,
    mean_over: str | Path | Mapping[str, Any] | None = None,
    ablation_seed: int = 0,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    ports: bool = True,
    layer_order: OrderMode = "normal",
    head_order: OrderMode = "normal",
    seed: int = 0,
    absolute: bool = False,
    heads: Heads = "split",
    positions: Positions = "together",
    within: int | str | Path | Circuit | Run | None = None,
    budget: float | None = None,
    passes: int = 1,
    engine: EngineName = "incremental",
    max_memory: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    shard: Shard = "candidates",
    groups: GivenGroups | None = None,
    known: str | Path | Circuit | Run | None = None,
    options: Mapping[str, Any] | None = None,
    request: SearchRequest | None = None,
    progress: ProgressCallback | bool | None = None,
    command: Sequence[str] | None = None,
    out: str | Path | RunFolder | None = None,
) -> Run:
    """Find the circuit of a task in a model.

    Args:
        method: `acdc`, or one that scores edges (`METHODS` and `edgewise methods` list them; `eap`, `eap-ig`, `atp`,
            `hisp` and `sp` are short for some).
        level: what the circuit is made of: `edge`; `node`, whole heads and MLPs, each with all that it writes;
            `neuron`, hidden units of MLPs, as they stand before the output projection; or `feature`, features of
            transcoders or sparse autoencoders, and what they do not explain; the last two beside all heads and edges.
        threshold: ACDC's threshold, or the lowest score that is kept; in the metric's units, or, for methods whose
            scores have units of their own, in those. By default the task's suggestion.
        edges: instead of a threshold, the most edges the circuit may have; with level `node`, the most nodes.
        share: the same as a share of the graph's edges (nodes, neurons, features), from 0 to 1.
        neurons: with level `neuron`, instead of a threshold, the most neurons that the circuit may have in all MLPs.
        features: with level `feature`, likewise, errors counted.
        dictionary: with level `feature`, the file or folder of the transcoders or SAEs; a model that `by_feature` has
            taken apart needs none.
        dictionary_hooks: where its features are, if its files do not say, as in `blocks.3.hook_resid_post`.
        select: how scores become that many edges: `at-most` (as many as leave at most that many when what dangles is
            dropped), `top` (exactly so many, then pruned), `greedy` (grown from the logits, then pruned) or `ilp` (at
            most so many that lead somewhere, of the largest sum of scores).
        ablation: what an absent edge carries: `resample`, `zero`, `mean`, `mean-clean`, `mean-positional`, `noise`,
            `optimal`; by default the task's.
        mean_over: a JSONL file of texts (`{"text": "…"}`) or of prompts, over which ablation `mean`, which is then the
            default, takes the mean; or what a run's record keeps of one.
        ablation_seed: of ablation `noise`, and of what `optimal` learns.
        metric: a metric's name, or a function of logits `[scored, d_vocab]` and a `Reference` that gives one number per
            scored place, lower being better; by default the task's.
        ports: whether to test heads' port edges too, as the paper does; with level `node` there are none.
        layer_order, head_order: how parents are ordered: `normal`, `reverse` or `shuffle`.
        seed: of shuffled orders, and of the noise that methods learn masks with.
        absolute: compare the size of the metric's change (or of a score) with the threshold, not the signed one.
        heads: edges lead into a head's query, key and value (`split`), or into the head (`whole`), which has no port
            edges then.
        positions: edges hold at all positions (`together`), at `each` by itself, or at the task's `spans` of them.
        within: search among the best so many edges (nodes) by attribution with integrated gradients, or among those of
            a circuit (one that scores gave, too), a run, or the path of one; all others are ablated from the start.
            With level `neuron` or `feature`, the units that ACDC tries, or method `exact` measures.
        budget: an edge goes only if, besides, the metric is below this without it.
        passes: how often the edges that are left are tried, from the logits back.
        engine: `incremental`, or `plain`: one circuit run per tested edge, for those who want to check the other one.
        max_memory: bytes that the search may use beyond the model's weights; by default what the machine has.
        workers: so many, each with the model, measure what ACDC asks for, by Ray on this machine (docs/scale.md); what
            is found is the same, but for near ties.
        ray: the address of a Ray cluster to join for them; with `workers` None, as many as have room there, up to 8.
        cpus, gpus: that a worker takes, a GPU in parts, too.
        shard: what workers share out, `candidates` or `prompts`.
        groups: groups of nodes of one's own, as names and lists of nodes or a JSON or TOML file of them; the record
            says what the circuit has of each.
        known: the true circuit to hold what is found against, as a circuit, a run, or the path of one, instead of the
            one that people worked out; over the same graph, but for port edges and shared keys and values.
        options: what the method takes besides, by name (`METHODS[method].options` has the defaults).
        request: all of the above as one object.
        progress: called with a `Progress` as the search goes; True shows a bar, False nothing. By default there is a
            bar in notebooks alone.
        command: the shell command that asked for this, kept in the record.
        out: a folder to keep the run in: ACDC's decisions as they are taken, so that `resume` can go on whatever
            happens, and in the end what `save` writes. Into one that was claimed, the caller writes the end.

    Raises:
        EdgewiseError: an unknown name, no threshold where the task suggests none, a search that does not fit into
            memory, groups or a known circuit that do not
            fit the graph, or whatever the method raises.
        RunInterrupted: Ctrl-C, or no memory left half-way; it holds what was decided.
    """
    asked = request_of(locals())
    with told(progress, f"{asked.method} on {task.name}") as tell:
        if out is None or isinstance(out, RunFolder):
            return run_search(model, task, asked, progress=tell, command=command, folder=out)
        with RunFolder.claim(Path(out).expanduser()) as folder:
            return kept(folder, lambda: run_search(model, task, asked, progress=tell, command=command, folder=folder))


def kept(folder: RunFolder, search: Callable[[], Run]) -> Run:
    """The run that a search gives, written to its folder, also if it is stopped half-way."""
    try:
        run = search()
    except RunInterrupted as stop:
        folder.finish(stop.run.files(), whole=False)
        raise
    folder.finish(run.files())
    return run


def run_search(
    model: Decoder,
    task: Task,
    asked: SearchRequest,
    *,
    progress: ProgressCallback | None = None,
    command: Sequence[str] | None = None,
    folder: RunFolder | None = None,
    earlier: Stopped | None = None,
    constants: Constants | None = None,
) -> Run:
    """The search of a request (see `discover`).

    Args:
        folder: where ACDC keeps what it decides as it goes. The end is the caller's to write there.
        earlier: a search that was stopped, which goes on.
        constants: what absent edges carry, where the search had worked it out before it was stopped.
    """
    asked.check()
    asked.check_size(task.threshold)
    model = asked.opened(model)
    if asked.of_units:
        task = replace(task, known_circuit=None)  # what is known is about edges
    whole = asked.graph(model, task)
    asked = asked.settled(task, whole)
    truth = None if asked.known is None else known_of(asked.known)
    task = task.beside(whole, known=truth, groups=asked.groups)
    if asked.known is None and isinstance(task.known_circuit, GivenCircuit):  # the task came with it
        asked = replace(asked, known=task.known_circuit)
    asked = replace(asked, groups=task.groups or None)
    chosen = METHODS[asked.method]
    search: Pruning | None = None
    if asked.edges is not None and asked.select != "at-most":
        require_count(whole, asked.edges)  # before anything is scored
    kind = "runs" if asked.method == "acdc" and asked.engine == "plain" else chosen.memory_for(asked.level)
    ablation = asked.ablating(model, task, constants)
    plan_memory(model, task, whole, asked.max_memory, kind, ablation)  # before an Experiment records anything
    experiment = experiment_of(model, task, asked, ablation, told_in_steps(progress, "constants"))
    accuracy = experiment.accuracy()
    _warn_if_wrong(accuracy, experiment)
    fits = dictionary_fits(experiment)
    if (words := misfit(fits)) is not None:
        warnings.warn(words, EdgewiseWarning, stacklevel=3)
    started = time.perf_counter()
    stopped: Interrupted | None = None
    scoring: dict[str, Any] | None = None
    try:
        if chosen.score is not None:
            options = dict(asked.options or {})
            if asked.within is not None:  # of a method that takes a shortlist
                options["within"] = neurons_within(
                    asked.within, experiment, asked.max_memory, told_in_steps(progress, "prompts")
                )
            scored = score_edges(experiment, chosen, options, asked.max_memory, progress, asked.level)
            selected = _select(scored, chosen, asked)
            found = _scored_discovery(experiment, selected, time.perf_counter() - started)
            scoring = {
                "rule": "threshold" if asked.count is None else asked.select,
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
                    stacklevel=3,
                )
        else:
            search = Pruning(experiment, asked, folder, earlier, command)
            found = search.run(progress)
    except Interrupted as stop:
        found, stopped = stop.discovery, stop
    if search is None:
        settings = settings_of(asked, experiment)
    else:
        settings, command, found = search.settings_at(found.threshold), search.command, search.timed(found)
    if stopped is None:
        # Every finished search is measured again from scratch, by one circuit run, as circuits cut from scores are.
        logits = experiment.logits(found.circuit)
        outcome = outcome_of(experiment, logits, found.metric_full, found.metric_ablated)
        if scoring is not None:
            found = replace(found, metric=outcome.metric)
        record = record_of(settings, found, command, outcome, accuracy, task, model)
        record["result"]["scoring"] = scoring
        if fits:
            record["result"]["dictionary"] = [asdict(one) for one in fits]
        if search is not None:
            record.update(search.more)
        if (failed := verdict(record, found.trace)) is not None:
            warnings.warn(failed, EdgewiseWarning, stacklevel=3)
        return Run(found, record, task, model, experiment.carried.constants)
    why = str(stopped.__cause__) if isinstance(stopped.__cause__, OutOfMemoryError) else "interrupted"
    record = record_of(settings, found, command, Outcome(found.metric), accuracy, task, model)
    record.update(finished=False, stopped={**_stopped(stopped, why), "max_memory": asked.max_memory})
    if search is not None:
        record.update(search.more)
    raise RunInterrupted(why, Run(found, record, task, model, experiment.carried.constants)) from stopped.__cause__


def request_of(given: Mapping[str, Any]) -> SearchRequest:
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


def experiment_of(
    model: Decoder, task: Task, asked: SearchRequest, ablation: Ablation, progress: StepProgress | None = None
) -> Experiment:
    return Experiment(
        model,
        task,
        ablation=ablation,
        metric=asked.metric,
        graph=asked.graph(model, task),
        max_memory=asked.max_memory,
        progress=progress,
    )


def score_edges(
    experiment: Experiment,
    method: Method,
    options: Mapping[str, Any],
    max_memory: int | None = None,
    progress: ProgressCallback | None = None,
    level: Level = "edge",
) -> Scored:
    """Every edge's (node's, neuron's, feature's) score by a method, with its progress told in a search's words."""
    counts = f"{level}s" if method.counts == "edges" else method.counts
    report = told_in_steps(progress, counts)
    return method.scores(experiment, level=level, max_memory=max_memory, progress=report, **options)


def _select(scored: Scored, method: Method, asked: SearchRequest) -> Selected:
    edges, absolute = asked.edges, asked.absolute
    if asked.level != "edge":
        choose = choose_nodes if asked.level == "node" else choose_neurons
        return choose(
            scored.circuit, count=asked.count, threshold=asked.threshold, absolute=absolute, above=scored.above
        )
    if edges is not None:
        if asked.select != "at-most":
            rules = {"greedy": greedy, "top": top, "ilp": by_integer_programming}
            return rules[asked.select](scored.circuit, edges, absolute=absolute)
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
    if accuracy is not None and accuracy < (1 + share_by_chance(experiment.task)) / 2:
        warnings.warn(
            f"the model gets {accuracy:.0%} right; there may be no circuit to find", EdgewiseWarning, stacklevel=4
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
