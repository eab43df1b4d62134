"""Single circuits of the ACDC paper (`paper_circuits.py`), found and measured, beside what it says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewise.evaluation import roc_point
from edgewise.graph import Circuit
from edgewise.graph.groups import GroupFound, groups_found
from edgewise.patching import Experiment
from edgewise.runs.paper_circuits import (
    EDGES,
    HEADS,
    IN_KNOWN,
    NAMED,
    PRECISION,
    TRUE_RATE,
    TYPES,
    PaperCircuit,
)
from edgewise.runs.sweep import Judge, SweepPlan, SweepProgress, on_others, sweep
from edgewise.tasks import Task


@dataclass(frozen=True)
class Measure:
    """One number of a circuit beside the paper's.

    Attributes:
        what: a metric, on test prompts and as a search has it (lower is better), or what is counted.
        published: as printed.
        ours: None where the circuit was not looked for.
        note: why the two differ, or why there is none of ours.
    """

    what: str
    published: str
    ours: float | None
    note: str


@dataclass(frozen=True)
class Finding:
    """One circuit of the paper.

    Attributes:
        nodes: heads, MLPs and embeddings that touch one of its edges.
        groups: what it has of each component type of the known circuit.
    """

    figure: str
    key: str
    task: str
    model: str
    ablation: str
    circuit: str
    measures: tuple[Measure, ...]
    nodes: tuple[str, ...] = ()
    groups: tuple[GroupFound, ...] = ()


@dataclass(frozen=True)
class _Found:
    """What is counted of a circuit."""

    circuit: Circuit
    known: Circuit | None
    groups: tuple[GroupFound, ...]
    named: tuple[str, ...]

    @property
    def heads(self) -> set[str]:
        return {node for node in self.circuit.nodes() if node.startswith("a")}

    def rate(self, name: str) -> float | None:
        return None if self.known is None else getattr(roc_point(self.circuit, self.known), name)


_COUNTED: Mapping[str, Callable[[_Found], float | None]] = {
    EDGES: lambda found: found.circuit.n_edges,
    HEADS: lambda found: len(found.heads),
    IN_KNOWN: lambda found: None if found.known is None else len(found.heads & set(found.known.nodes())),
    PRECISION: lambda found: found.rate("precision"),
    TRUE_RATE: lambda found: found.rate("true_positive_rate"),
    TYPES: lambda found: sum(bool(one.found) for one in found.groups),
    NAMED: lambda found: len({*found.named} & {*found.circuit.nodes()}),
}


def find(
    row: PaperCircuit, experiment: Experiment, test: Task, folder: Path, progress: SweepProgress | None
) -> Finding:
    """The circuit of a row, and every number that the paper gives of it.

    Args:
        experiment: the row's, on the prompts of a search; `test`, other prompts.
        folder: where a search is kept; one that is there is not made again.

    Raises:
        EdgewiseError: as `sweep`; or there is no known circuit in this model, where that is what is taken.
    """
    truth = experiment.task.known_circuit
    known = None if truth is None else truth.on(experiment.graph)
    if row.circuit == "acdc":
        folder.mkdir(parents=True, exist_ok=True)
        plan = SweepPlan("acdc", (row.threshold,), order=row.order, absolute=row.absolute)
        (series,) = sweep(experiment, [plan], test=test, folder=folder, progress=progress)
        circuit, metrics = series.points[0].circuit, series.points[0].test_metrics
        circuit = circuit.connected() if row.connected else circuit
    else:
        circuit = known if row.circuit == "known" else Circuit.empty(experiment.graph)
        circuit = Circuit.full(experiment.graph) if row.circuit == "all edges" else circuit
        metrics = {} if circuit is None else Judge(on_others(experiment, test))(circuit)
    if circuit is None:
        return not_found(row, f"nobody knows the task's circuit in {experiment.decoder.name}")
    groups = () if truth is None else groups_found(truth.groups, circuit)
    found = _Found(circuit, known, groups, row.nodes)
    measures = tuple(_measures(row, found, metrics))
    nodes = tuple(node for node in circuit.nodes() if node != "logits")
    kept = row.circuit == "acdc"
    return _finding(row, experiment.decoder.name, measures, nodes if kept else (), groups if kept else ())


def not_found(row: PaperCircuit, why: str) -> Finding:
    """A row that was not run."""
    return _finding(row, row.model, tuple(Measure(what, text, None, why) for what, text in row.published.items()))


def _finding(
    row: PaperCircuit,
    model: str,
    measures: tuple[Measure, ...],
    nodes: tuple[str, ...] = (),
    groups: tuple[GroupFound, ...] = (),
) -> Finding:
    return Finding(row.figure, row.key, row.task, model, row.ablation, described(row), measures, nodes, groups)


def described(row: PaperCircuit) -> str:
    """What is searched or taken, in a few words."""
    if row.circuit != "acdc":
        taken = "known circuit" if row.circuit == "known" else row.circuit
        return taken if row.permuted is None else f"{taken}, reset network"
    changes = [
        *(["whole heads"] if row.heads == "whole" else []),
        *(["heads from low to high"] if row.order.heads == "reverse" else []),
        *(["as published"] if row.variant == "published" else []),
    ]
    return ", ".join([f"ACDC by {row.metric} at {row.threshold:g}", *changes])


def _measures(row: PaperCircuit, found: _Found, metrics: Mapping[str, float]) -> Iterator[Measure]:
    for what, published in row.published.items():
        ours = _COUNTED[what](found) if what in _COUNTED else metrics.get(what)
        if ours is None:
            note = "nobody knows the task's circuit in this model"
        elif agree(published, ours):
            note = ""
        else:
            note = row.why.get(what) or row.why.get("") or "not explained"
        yield Measure(what, published, ours, note)


def agree(published: str, ours: float) -> bool:
    """Whether a number is the one that was printed, to its last digit, which may be rounded either way."""
    decimals = len(published.partition(".")[2])
    return abs(ours - float(published)) < 0.51 * 10**-decimals + 1e-9
