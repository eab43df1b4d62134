"""How good a circuit is: its metrics beside those of the whole model, of no circuit, and of all but the circuit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
from torch import Tensor

from edgewise.attached import attach
from edgewise.errors import EdgewiseError
from edgewise.evaluation.bootstrap import CONFIDENCE, Bootstrap, Interval, interval_of, share_interval
from edgewise.evaluation.by_example import ByExample
from edgewise.evaluation.roc import RocPoint, roc_by_group, roc_point
from edgewise.evaluation.share import SMALLEST_WAY, share_of_way
from edgewise.graph import Circuit, NeuronCircuit, as_shown, complement
from edgewise.graph.circuit import Floats
from edgewise.graph.groups import GivenGroups, GroupFound, groups_found
from edgewise.models import Decoder
from edgewise.models.precision import in_float64
from edgewise.patching import Ablation, Experiment
from edgewise.tasks import Comparison, Metric, Reference, Task, Truth, mean_over_places, metrics_of, right_answers

RUNS = ("circuit", "full", "ablated", "target", "complement")
"""The runs that every metric is measured in."""


@dataclass(frozen=True)
class Measured:
    """One metric of a circuit beside those of other runs. Lower is better.

    Attributes:
        circuit: with the circuit's edges present, all others ablated.
        full, ablated: with every edge present, and with none.
        target: the metric of the model that the circuit is held against: the whole model, or, for a permuted network,
            the one that it was made from.
        complement: with the circuit's edges ablated, all others present.
        interval, recovered_interval, completeness_interval: of `circuit`, `recovered` and `completeness`, over
            examples; None where there is none.
    """

    circuit: float
    full: float
    ablated: float
    target: float
    complement: float = math.nan
    interval: Interval | None = None
    recovered_interval: Interval | None = None
    completeness_interval: Interval | None = None

    @property
    def recovered(self) -> float | None:
        """Faithfulness: the share of the way from the ablated run to the target that the circuit goes.

        (m(C) - m(no edge)) / (m(model) - m(no edge)), as in the MIB benchmark; None where that is no way at all.
        """
        return share_of_way(self.circuit, self.ablated, self.target)

    @property
    def completeness(self) -> float | None:
        """The share of the way from the whole model to the ablated run that ablating the circuit goes.

        (m(model) - m(model less C)) / (m(model) - m(no edge)): 1 if nothing of the behaviour is left without the
        circuit, 0 if the rest of the model does as well without it (Wang et al. 2023 ask for completeness in this
        sense).
        """
        return share_of_way(self.complement, self.full, self.ablated)


@dataclass(frozen=True)
class Spread:
    """One metric example by example, as the mean over each example's scored places.

    Attributes:
        circuit, full, ablated, target, complement: `[examples]`, as in `Measured`.
    """

    circuit: Floats
    full: Floats
    ablated: Floats
    target: Floats
    complement: Floats

    @cached_property
    def recovered(self) -> Floats:
        """The share that the circuit recovers of each example; NaN where the ablated run is as good as the model."""
        way = self.target - self.ablated
        with np.errstate(all="ignore"):
            return np.where(np.abs(way) <= SMALLEST_WAY, np.nan, (self.circuit - self.ablated) / way)

    def quantiles(self, of: str = "circuit", at: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> tuple[float, ...]:
        """Quantiles over examples of one of the attributes, examples without a number left out."""
        values = getattr(self, of)
        values = values[np.isfinite(values)]
        return tuple(float(one) for one in np.quantile(values, at)) if len(values) else ()


@dataclass(frozen=True)
class Accuracy:
    """Shares of scored places that are answered right, where right and wrong answers are known.

    Attributes:
        kept: of the places that the model gets right, the share that the circuit gets right too; None if there are
        none.
    """

    circuit: float
    full: float
    ablated: float
    complement: float
    kept: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        metric: name of the metric asked for.
        measured: that metric and every other one that makes sense on the task, by name.
        n_edges, n_edges_connected, n_graph_edges: edges of the circuit, of those on a path, and of the whole graph.
        known: the circuit beside the known one, or None where there is none.
        groups: what it has of every group of the user's own.
        spread: the metric asked for, example by example.
        accuracy: None on a task without answers.
        roc: the circuit's point against the known circuit, by `edges` and by `nodes`; empty without one.
        roc_by_group: the same for the edges that touch each group of nodes, the user's own or the known circuit's.
        examples, confidence: how many examples there were, and of what confidence the intervals are.
        n_nodes, n_graph_nodes: of a circuit of whole nodes, how many of how many; its edges are those between them.
            None of any other.
        n_neurons, n_graph_neurons, n_features, n_graph_features: the same of a circuit of neurons or features, which
            has every edge.
    """

    metric: str
    measured: dict[str, Measured]
    ablation: str
    n_edges: int
    n_edges_connected: int
    n_graph_edges: int
    known: Comparison | None = None
    groups: tuple[GroupFound, ...] = ()
    spread: Spread | None = None
    accuracy: Accuracy | None = None
    roc: dict[str, RocPoint] = field(default_factory=dict)
    roc_by_group: dict[str, RocPoint] = field(default_factory=dict)
    examples: int = 0
    confidence: float = CONFIDENCE
    n_nodes: int | None = None
    n_graph_nodes: int = 0
    n_neurons: int | None = None
    n_graph_neurons: int = 0
    n_features: int | None = None
    n_graph_features: int = 0
    _repr_html_: ClassVar[Callable[..., str]]
    """What notebooks show: `edgewise.reports.notebook`, set where that is defined."""

    @property
    def value(self) -> float:
        """The circuit's metric."""
        return self.measured[self.metric].circuit

    @property
    def unit(self) -> str:
        """What the circuit is made of: `edges`, `nodes`, `neurons` or `features`."""
        return next((one for one in ("features", "neurons", "nodes") if getattr(self, f"n_{one}") is not None), "edges")

    @property
    def size(self) -> str:
        """How much of it there is, in words: `31 of 527 edges`."""
        have, most = getattr(self, f"n_{self.unit}"), getattr(self, f"n_graph_{self.unit}")
        return f"{have:,} of {most:,} {self.unit}"

    def __repr__(self) -> str:
        """`<Evaluation: 31 of 527 edges on 32 examples; kl_div 0.0365 (model 0, ablated 10.01), recovered 99.6%, …>`"""
        one, said = self.measured[self.metric], ""
        values = [
            f"{round(value, 6) + 0.0:.4g}" for value in (one.circuit, one.target, one.ablated)
        ]  # no rounding noise
        if one.recovered is not None:
            said += f", recovered {one.recovered:.1%}"
        if self.accuracy is not None:
            said += f", right on {self.accuracy.circuit:.1%} (model {self.accuracy.full:.1%})"
        return (
            f"<Evaluation: {self.size} on {self.examples} example"
            f"{'s' * (self.examples != 1)}; {self.metric} {values[0]} (model {values[1]}, ablated {values[2]}){said}>"
        )


attach(Evaluation, "edgewise.reports.notebook", "_repr_html_")


def evaluate(
    model: Decoder,
    task: Task,
    circuit: Circuit,
    *,
    ablation: str | Ablation | None = None,
    metric: str | Metric | Callable[[Tensor, Reference], Tensor] | None = None,
    known: Circuit | Truth | None = None,
    groups: GivenGroups | None = None,
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 - frozen
) -> Evaluation:
    """Measure a circuit from scratch, by circuit runs.

    Args:
        circuit: over the model's graph, with or without port edges, key/value heads shared or not.
        ablation, metric: by default the task's. All other metrics of the task come along.
        known: the true circuit to hold it against, instead of the one that people worked out.
        groups: groups of nodes of one's own, as names and nodes or a JSON or TOML file of them.
        bootstrap: how confidence intervals are made, over examples.

    Raises:
        EdgewiseError: the circuit is over another graph; a known circuit or groups that do not fit it; an unknown
            ablation or metric; or a metric that comes out as no number.
    """
    task = task.beside(circuit.graph, known=known, groups=groups)
    experiment = Experiment(model, task, ablation=ablation, metric=metric, graph=circuit.graph)
    return evaluate_in(experiment, circuit, bootstrap=bootstrap)


def evaluate_in(
    experiment: Experiment,
    circuit: Circuit,
    *,
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """`evaluate` in an experiment of the circuit's graph; `progress` is called with how many runs of four are done."""
    task, chosen, graph = experiment.task, experiment.metric, experiment.graph
    circuit = circuit.on(graph)
    metrics = [chosen, *(one for one in metrics_of(task) if one.name != chosen.name)]
    rest = complement(circuit)
    kind = type(circuit)  # of edges or of neurons
    runs = {"circuit": circuit, "full": kind.full(graph), "ablated": kind.empty(graph), "complement": rest}
    logits: dict[str, Tensor] = {}
    for name, one in runs.items():
        logits[name] = experiment.logits(one)
        if progress is not None:
            progress(len(logits), len(runs))
    logits["target"] = logits["full"] if experiment.decoder.original is None else experiment.reference.logits
    by_example = ByExample(task)
    measured: dict[str, Measured] = {}
    spread: Spread | None = None
    for one in metrics:
        places = {name: one(logits[name], experiment.reference) for name in RUNS}
        if one is chosen:
            for name in RUNS:
                value = mean_over_places(places[name])
                if not math.isfinite(value):
                    raise EdgewiseError(f"metric {chosen.name!r} {_RUN_WORDS[name]} came out as {value}")
            spread = Spread(**{name: by_example.means(places[name]) for name in RUNS})
        measured[one.name] = _measured(one.name, places, by_example, bootstrap)
    known = None if task.known_circuit is None else task.known_circuit.on(graph)
    shown = as_shown(circuit)
    return Evaluation(
        metric=chosen.name,
        measured=measured,
        ablation=experiment.ablation,
        n_edges=shown.n_edges,
        n_edges_connected=shown.n_edges_connected,
        n_graph_edges=graph.n_edges,
        known=None if task.known_circuit is None else task.known_circuit.compare(circuit),
        groups=groups_found(task.groups, circuit),
        spread=spread,
        accuracy=_accuracy(logits, experiment.reference, by_example, bootstrap),
        roc={} if known is None else {"edges": roc_point(circuit, known), "nodes": roc_point(circuit, known, "nodes")},
        roc_by_group={} if known is None else roc_by_group(circuit, known, task.named_groups),
        examples=len(task),
        confidence=bootstrap.confidence,
        n_nodes=circuit.size if circuit.whole_nodes else None,
        n_graph_nodes=len(graph.sources),
        **({f"n_{circuit.unit}": circuit.size} if isinstance(circuit, NeuronCircuit) else {}),
        **{f"n_graph_{'features' if graph.features else 'neurons'}": graph.n_neurons},
    )


_RUN_WORDS = {
    "circuit": "of the circuit",
    "full": "of the whole model",
    "ablated": "with every edge ablated",
    "target": "of the model it was made from",
    "complement": "with the circuit ablated",
}


def _measured(name: str, places: dict[str, Tensor], by_example: ByExample, bootstrap: Bootstrap) -> Measured:
    values = {run: mean_over_places(places[run]) for run in RUNS}
    sums = {run: by_example.sums(places[run]) for run in RUNS}

    found = Measured(values["circuit"], values["full"], values["ablated"], values["target"], values["complement"])
    interval = interval_of(_mean, (sums["circuit"], by_example.counts), bootstrap)
    if (
        name == "frac_correct"
        and (shares := share_interval(-found.circuit, by_example.examples, bootstrap)) is not None
    ):
        interval = Interval(-shares.high, -shares.low)
    return replace(
        found,
        interval=interval,
        recovered_interval=None
        if found.recovered is None
        else interval_of(_way, (sums["circuit"], sums["ablated"], sums["target"]), bootstrap),
        completeness_interval=None
        if found.completeness is None
        else interval_of(_way, (sums["complement"], sums["full"], sums["ablated"]), bootstrap),
    )


def _mean(total: Floats, counts: Floats, axis: int = -1) -> Floats:
    return total.sum(axis=axis) / counts.sum(axis=axis)


def _way(value: Floats, start: Floats, end: Floats, axis: int = -1) -> Floats:
    """How far `value` is on the way from `start` to `end`, all summed over examples."""
    way, gone = (one.sum(axis=axis) - start.sum(axis=axis) for one in (end, value))
    return np.where(np.abs(way) <= SMALLEST_WAY, np.nan, gone / np.where(way == 0, 1.0, way))


def _accuracy(
    logits: dict[str, Tensor], reference: Reference, by_example: ByExample, bootstrap: Bootstrap
) -> Accuracy | None:
    right = {name: right_answers(logits[name], reference) for name in ("circuit", "full", "ablated", "complement")}
    circuit, full = right["circuit"], right["full"]
    if circuit is None or full is None:
        return None
    shares = {name: float(in_float64(one).mean()) for name, one in right.items() if one is not None}
    kept = float(in_float64(circuit[full]).mean()) if bool(full.any()) else None
    return Accuracy(**shares, kept=kept, interval=share_interval(shares["circuit"], by_example.examples, bootstrap))
