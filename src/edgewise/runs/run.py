"""One discovery, from a model and a task to a result that can be kept, and run again."""

from __future__ import annotations

import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from edgewise.discovery import (
    DEFAULT_ENGINE,
    METHODS,
    ORDER_MODES,
    Decision,
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
    check_options,
    greedy,
    method_named,
    plan_acdc,
    require_count,
    top,
)
from edgewise.errors import EdgewiseError, EdgewiseWarning, check_seed, unknown
from edgewise.evaluation import Evaluation, Outcome, advice, evaluate, outcome_of
from edgewise.graph import Circuit
from edgewise.graph.eap_json import to_dict as circuit_to_dict
from edgewise.models import BUILT_IN, Decoder
from edgewise.patching import ABLATIONS, Experiment, OutOfMemoryError, plan_memory
from edgewise.runs.folder import FORM, RunFolder
from edgewise.runs.scores import scores_to_bytes
from edgewise.tasks import METRICS, Metric, Reference, Task, share_by_chance
from edgewise.tasks.jsonl import digest, to_jsonl


@dataclass(frozen=True)
class Run:
    """A discovery, finished or interrupted (`record["finished"]`).

    Attributes:
        circuit: what was found.
        trace: every tested edge in order.
        discovery: the method's whole result.
        record: what `run.json` holds: settings, versions, counts, timings, metrics; how far an interrupted one got.
        task, model: on what.
    """

    discovery: Discovery
    record: dict[str, Any]
    task: Task
    model: Decoder
    report: ClassVar[Callable[..., Path]]
    """`run.report("page.html")` writes the run's page: `edgewise.report`, set where that is defined."""

    def __repr__(self) -> str:
        """`<Run: acdc on ioi in tiny-ioi; 31 of 527 edges, kl_div 0.0365>`"""
        settings, circuit = self.record["settings"], self.circuit
        end = "" if self.record["finished"] else ", interrupted"
        return (
            f"<Run: {settings['method']} on {self.task.name} in {settings['model']['name']}; {circuit.n_edges:,} of "
            f"{circuit.graph.n_edges:,} edges, {settings['metric']} {self.metric:.4g}{end}>"
        )

    @property
    def circuit(self) -> Circuit:
        return self.discovery.circuit

    @property
    def trace(self) -> tuple[Decision, ...]:
        return self.discovery.trace

    @property
    def metric(self) -> float:
        """The circuit's metric, measured from scratch by a circuit run when the search had ended; lower is better."""
        return self.record["result"]["metric"]

    def evaluate(self, task: Task | None = None, **options: Any) -> Evaluation:
        """Measure the circuit on other prompts than it was found on, or on those (see `edgewise.evaluate`)."""
        settings = self.record["settings"]
        if settings["metric"] in METRICS:
            options = {"metric": settings["metric"], **options}
        return evaluate(self.model, task or self.task, self.circuit, **{"ablation": settings["ablation"], **options})

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write `run.json`, `circuit.json` and `trace.jsonl`.

        And `scores.safetensors`, if the method scores edges; and `prompts.jsonl`, for prompts of one's own.

        Args:
            force: replace a run that the folder holds.

        Raises:
            EdgewiseError: the folder holds something already, or cannot be written.
        """
        with RunFolder.claim(Path(folder).expanduser(), force=force) as claimed:
            return claimed.finish(self.files())

    def files(self) -> dict[str, str | bytes]:
        """The files of the run folder, by name."""
        files: dict[str, str | bytes] = {
            "run.json": json.dumps(self.record, indent=2) + "\n",
            "circuit.json": json.dumps(circuit_to_dict(self.circuit)),
            "trace.jsonl": "".join(json.dumps(asdict(decision)) + "\n" for decision in self.trace),
        }
        if self.record["result"].get("scoring") is not None:
            files["scores.safetensors"] = scores_to_bytes(self.circuit)
        if _keeps(self.task):
            files["prompts.jsonl"] = to_jsonl(self.task.text)
        return files

    def summary(self) -> dict[str, Any]:
        """What `edgewise discover --json` prints, without the run folder."""
        result = self.record["result"]
        return {
            "edges": self.circuit.names(),
            **{key: result[key] for key in _COUNTS},
            "settings": self.record["settings"],
        }


class RunInterrupted(KeyboardInterrupt):
    """A discovery was stopped before its end, by Ctrl-C or because it may use no more memory.

    Attributes:
        run: what was decided until then, which can be saved like a finished run.
    """

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


SELECTIONS = ("at-most", "top", "greedy")
MOST_STEPS = 1_000_000
_COUNTS = (
    *("n_edges", "n_edges_connected", "metric", "metric_full", "metric_ablated", "recovered", "accuracy"),
    *("accuracy_full", "known_circuit", "tests", "seconds"),
)


def check_request(
    *,
    method: str = "acdc",
    threshold: float | None = None,
    edges: int | None = None,
    suggested: float | None = None,
    ablation: str | None = None,
    metric: object = None,
    layer_order: str = "normal",
    head_order: str = "normal",
    engine: str = DEFAULT_ENGINE,
    options: Mapping[str, Any] | None = None,
    share: float | None = None,
    select: str = "at-most",
    absolute: bool = False,
    seed: int = 0,
) -> None:
    """Refuse what `discover` could not be asked for on any model; `suggested` is the task's own threshold.

    Raises:
        EdgewiseError: an unknown name, a threshold that is no number or below 0 where that means nothing, neither or
            both of threshold and edges, a seed or a number of steps out of bounds, or an option that the method lacks.
    """
    method = method_named(method)
    if sum(given is not None for given in (threshold, edges, share)) > 1:
        raise EdgewiseError("give a threshold or a number of edges (or a share of them), not both")
    if share is not None and not 0 < share <= 1:
        raise EdgewiseError(f"--share should be above 0 and at most 1, not {share}")
    if select not in SELECTIONS:
        raise unknown("selection", select, SELECTIONS)
    if select != "at-most" and (method == "acdc" or (edges is None and share is None)):
        raise EdgewiseError(f"selection {select!r} is for methods that score edges, with --edges or --share")
    chosen = METHODS[method]
    if threshold is None and edges is None and share is None and not chosen.rounds and "target" not in chosen.options:
        if not chosen.metric_units:
            raise EdgewiseError(f"method {method!r} needs --edges, or --threshold in its own units")
        if suggested is None:
            raise EdgewiseError(
                "the task suggests no threshold: give --threshold (0.01 is a start for kl_div) or --edges"
            )
    if "target" in chosen.options and edges is None and share is None:
        raise EdgewiseError(f"method {method!r} needs --edges: the size that its masks are pressed to")
    if absolute and not chosen.sized:
        raise EdgewiseError(f"method {method!r} has no use for --absolute: its scores' signs are their meaning")
    if chosen.units and select != "at-most":
        raise EdgewiseError(f"selection {select!r} would split what method {method!r} scores as one; use at-most")
    if method != "acdc" and (engine, layer_order, head_order) != (DEFAULT_ENGINE, "normal", "normal"):
        raise EdgewiseError(f"--engine, --layer-order and --head-order are ACDC's; method {method!r} has none")
    for name in options or {}:
        if name not in chosen.options:
            takes = f"it takes: {', '.join(chosen.options)}" if chosen.options else "it takes none"
            raise EdgewiseError(f"method {method!r} has no option {name!r} ({takes})")
    steps = (options or {}).get("steps", 0)
    if steps > MOST_STEPS:
        raise EdgewiseError(f"--steps should be at most {MOST_STEPS:,}, not {steps}")
    check_seed(seed)
    check_options(threshold=threshold, edges=edges, engine=engine)
    if threshold is not None and threshold < 0 and (method == "acdc" or absolute):
        raise EdgewiseError(
            f"the threshold should be 0 or more, not {threshold}: an edge that the metric is better without is in no "
            "circuit"
        )
    for order in (layer_order, head_order):
        if order not in ORDER_MODES:
            raise unknown("order", order, ORDER_MODES)
    if ablation is not None and ablation not in ABLATIONS:
        raise unknown("ablation", ablation, ABLATIONS)
    if isinstance(metric, str) and metric not in METRICS:
        raise unknown("metric", metric, METRICS)


def discover(
    model: Decoder,
    task: Task,
    *,
    method: str = "acdc",
    threshold: float | None = None,
    edges: int | None = None,
    share: float | None = None,
    select: str = "at-most",
    ablation: str | None = None,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    ports: bool = True,
    layer_order: OrderMode = "normal",
    head_order: OrderMode = "normal",
    seed: int = 0,
    absolute: bool = False,
    engine: str = DEFAULT_ENGINE,
    max_memory: int | None = None,
    options: Mapping[str, Any] | None = None,
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
        progress: called with a `Progress` as the search goes.
        command: the shell command that asked for this, kept in the record.

    Raises:
        EdgewiseError: an unknown name, no threshold where the task suggests none, a search that does not fit into
            memory, or whatever the method raises.
        RunInterrupted: Ctrl-C, or no memory left half-way; it holds what was decided.
    """
    check_request(
        method=method,
        threshold=threshold,
        edges=edges,
        suggested=task.threshold,
        ablation=ablation,
        metric=metric,
        layer_order=layer_order,
        head_order=head_order,
        engine=engine,
        options=options,
        share=share,
        select=select,
        absolute=absolute,
        seed=seed,
    )
    method = method_named(method)
    whole = model.graph(ports=ports, split_embedding=task.split_embedding)
    if share is not None:
        edges = max(1, int(share * whole.n_edges))
    if edges is not None and select != "at-most":
        require_count(whole, edges)  # before anything is scored
    kind = "runs" if method == "acdc" and engine == "plain" else METHODS[method].memory
    plan_memory(model, task, whole, max_memory, kind)  # before an Experiment records anything
    experiment = Experiment(model, task, ablation=ablation, metric=metric, ports=ports, max_memory=max_memory)
    accuracy = experiment.accuracy()
    _warn_if_wrong(accuracy, experiment)
    started = time.perf_counter()
    search: dict[str, Any] = dict(
        order=Order(layer_order, head_order, seed),
        absolute=absolute,
        engine=engine,
        max_memory=max_memory,
        progress=progress,
    )
    stopped: Interrupted | None = None
    scoring: dict[str, Any] | None = None
    asked: float | None = None
    taken = {**METHODS[method].options, **({"seed": seed} if "seed" in METHODS[method].options else {})}
    taken.update(options or {})
    if "target" in taken and taken["target"] is None:
        taken["target"] = edges
    wanted = threshold if threshold is not None else task.threshold
    try:
        if method != "acdc":
            scored = score_edges(experiment, METHODS[method], taken, max_memory, progress)
            rounded = threshold is None and METHODS[method].rounds
            asked = None if edges is not None or rounded else wanted
            selected = _select(scored, METHODS[method], threshold, edges, wanted, absolute, select)
            found = _scored_discovery(experiment, selected, time.perf_counter() - started)
            scoring = {
                "rule": select if edges is not None else "threshold",
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
        elif edges is not None:
            found = acdc_with_edges(experiment, edges, **search)
        else:
            assert wanted is not None
            found = acdc(experiment, wanted, **search)
    except Interrupted as stop:
        found, stopped = stop.discovery, stop
    settings = {
        "method": method,
        "threshold": found.threshold if scoring is None else asked,
        "edges": edges,
        "select": select if edges is not None and method != "acdc" else None,
        "method_options": taken,
        "ablation": experiment.ablation,
        "metric": experiment.metric.name,
        "ports": ports,
        "layer_order": layer_order,
        "head_order": head_order,
        "order_seed": seed,
        "absolute": absolute,
        "engine": engine,
        "task": {**task.settings, **({"kept_sha256": digest(to_jsonl(task.text).encode())} if _keeps(task) else {})},
        "model": describe_model(model),
    }
    if stopped is None:
        # Every finished search is measured again from scratch, by one circuit run, as circuits cut from scores are.
        logits = experiment.logits(found.circuit)
        outcome = outcome_of(experiment, logits, found.metric_full, found.metric_ablated)
        if scoring is not None:
            found = replace(found, metric=outcome.metric)
        record = _record(settings, found, command, outcome, accuracy, task)
        record["result"]["scoring"] = scoring
        failed = advice(outcome, accuracy, settings)
        if failed is not None and model.original is None and (found.circuit or scoring is None):  # a control may fail
            warnings.warn(failed, EdgewiseWarning, stacklevel=2)
        return Run(found, record, task, model)
    why = str(stopped.__cause__) if isinstance(stopped.__cause__, OutOfMemoryError) else "interrupted"
    record = _record(settings, found, command, Outcome(found.metric), accuracy, task)
    record.update(finished=False, stopped=_stopped(stopped, why))
    raise RunInterrupted(why, Run(found, record, task, model)) from stopped.__cause__


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

    return method.scores(experiment, max_memory=max_memory, progress=report, **options)


def _select(
    scored: Scored,
    method: Method,
    threshold: float | None,
    edges: int | None,
    wanted: float | None,
    absolute: bool,
    rule: str,
) -> Selected:
    if edges is not None:
        if rule != "at-most":
            return (greedy if rule == "greedy" else top)(scored.circuit, edges, absolute=absolute)
        return at_most(scored.circuit, edges, absolute=absolute, whole_ties=method.units, above=scored.above)
    if threshold is None and method.rounds:
        assert scored.own is not None
        circuit = scored.own.connected()
        taken = int(scored.own.edges.sum())
        return Selected(circuit, taken, taken - int(circuit.edges.sum()), 0.0)
    assert wanted is not None
    return by_threshold(scored.circuit, wanted, absolute=absolute)


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
    ablation: str | None = None,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    ports: bool = True,
    layer_order: OrderMode = "normal",
    head_order: OrderMode = "normal",
    seed: int = 0,
    absolute: bool = False,
    max_memory: int | None = None,
) -> Plan:
    """What `discover` with ACDC would cost with the same settings: memory, and time from a short calibration.

    Args:
        threshold: the one to plan for; without one, several sizes of circuit.

    Raises:
        EdgewiseError: as `discover`.
    """
    plan_memory(model, task, model.graph(ports=ports, split_embedding=task.split_embedding), max_memory)
    experiment = Experiment(model, task, ablation=ablation, metric=metric, ports=ports, max_memory=max_memory)
    order = Order(layer_order, head_order, seed)
    return plan_acdc(experiment, threshold, order=order, absolute=absolute, max_memory=max_memory)


def describe_model(model: Decoder) -> dict[str, Any]:
    """What tells this model from another: name, folder if it has one, dtype, device, architecture, fingerprint.

    And what was done to it: whether value biases were folded, which changes what zero ablation means, and the seed with
    which heads and neurons were shuffled for a control.
    """
    folder = Path(model.name).expanduser()
    return {
        "name": model.name,
        "folder": str(folder.resolve()) if model.name not in BUILT_IN and folder.is_dir() else None,
        "architecture": model.config.architecture,
        "dtype": model.dtype_name,
        "device": str(model.device),
        "fingerprint": model.fingerprint(),
        "folded_value_biases": model.config.folded_value_biases,
        "permuted_seed": model.config.permuted_seed,
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("edgewise", "torch", "transformers", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _record(
    settings: dict[str, Any],
    found: Discovery,
    command: Sequence[str] | None,
    outcome: Outcome,
    accuracy: float | None,
    task: Task,
) -> dict[str, Any]:
    known = task.known_circuit
    return {
        "form": FORM,
        "finished": True,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command) if command is not None else None,
        "settings": settings,
        "graph": asdict(found.circuit.graph),
        "result": {
            "n_edges": found.circuit.n_edges,
            "n_edges_connected": found.circuit.n_edges_connected,
            "n_graph_edges": found.circuit.graph.n_edges,
            "metric": outcome.metric,
            "metric_in_search": found.metric,
            "metric_full": found.metric_full,
            "metric_ablated": found.metric_ablated,
            "recovered": outcome.recovered,
            "accuracy": outcome.accuracy,
            "accuracy_full": accuracy,
            "known_circuit": None if known is None else asdict(known.compare(found.circuit)),
            "tests": found.tests,
            "seconds": round(found.seconds, 3),
            "tried": [{"threshold": threshold, "n_edges": size} for threshold, size in found.tried],
        },
        "versions": versions(),
    }


def _keeps(task: Task) -> bool:
    """Whether the prompts are a user's own, and are kept with the run."""
    return "sha256" in task.settings
