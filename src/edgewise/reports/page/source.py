"""A run folder as a page needs it: record, circuit, every decision, and the known circuit where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Decision
from edgewise.graph.by_neuron import require_edges
from edgewise.graph.groups import GivenGroups, Groups, read_groups
from edgewise.json_files import part
from edgewise.runs import read_run, read_trace
from edgewise.runs.given import groups_in, known_in
from edgewise.runs.shortlist import unpacked_shortlist
from edgewise.tasks.known import KNOWN_CIRCUITS, GivenCircuit, Truth


@dataclass(frozen=True)
class Source:
    """One run.

    Attributes:
        label: what the page calls it: the folder's name, made unique among the runs of a page.
        circuit: as the page shows it. Of one of whole nodes each node is one edge, to the logits, which stands for
            all that it writes; `steps`, `shortlist` and the counts of `result` follow that.
        real: the run's own circuit.
        shortlist: the edges that a search chose from, where those were not all of the graph's.
        known: the circuit that people worked out for the run's task and model, or that a user gave, or None.
        known_as: who worked it out, or what the user calls it.
        known_given: whether a user gave it.
        groups: groups of components by name: the user's own, or those of the known circuit.
    """

    label: str
    folder: Path
    record: dict[str, Any]
    circuit: Circuit
    real: Circuit
    steps: tuple[Decision, ...]
    shortlist: Circuit | None
    known: Circuit | None
    known_as: str
    known_given: bool
    groups: Groups

    @property
    def settings(self) -> dict[str, Any]:
        return self.record["settings"]

    @property
    def result(self) -> dict[str, Any]:
        found = self.record["result"]
        if not self.real.whole_nodes:
            return found
        nodes = {"n_edges": found["n_nodes"], "n_graph_edges": found["n_graph_nodes"], "n_edges_connected": None}
        return {**found, **nodes}

    @property
    def notes(self) -> list[str]:
        """What is to be said of how the page shows it."""
        if not self.real.whole_nodes:
            return []
        return [
            "This is a circuit of whole nodes. Each is shown by its edge to the logits, which stands for all that it "
            "writes; what is counted as edges are its nodes."
        ]

    @property
    def finished(self) -> bool:
        return bool(self.record.get("finished", True))

    @property
    def scored(self) -> bool:
        """Whether the method gave every edge a score."""
        return self.result.get("scoring") is not None and self.circuit.scores is not None


def read_sources(
    folders: Sequence[Path], *, known: Truth | None = None, groups: GivenGroups | None = None
) -> list[Source]:
    """The runs in `folders`, which have to be over one graph.

    Args:
        known: the true circuit to hold them against, instead of the one that each was compared with.
        groups: groups of nodes of the user's own, instead of those that each has.

    Raises:
        EdgewiseError: one is no run folder, is broken or of another version, or two are over different graphs; or
            `known` or `groups` do not fit.
    """
    labels = _labels(folders)
    sources = [_read(folder, label, known, groups) for folder, label in zip(folders, labels, strict=True)]
    for other in sources[1:]:
        first = sources[0]
        if other.circuit.graph.shape != first.circuit.graph.shape:
            raise EdgewiseError(
                f"the runs are over different graphs, so they cannot be shown on one page: {str(first.folder)!r} has "
                f"{first.circuit.graph.describe()}, {str(other.folder)!r} has {other.circuit.graph.describe()}"
            )
    return sources


def _read(folder: Path, label: str, known: Truth | None, groups: GivenGroups | None) -> Source:
    record, circuit = read_run(folder)
    require_edges(circuit, "there is no page")
    _check_result(record, folder, nodes=circuit.whole_nodes)
    truth = known or _known(folder, record, circuit)
    own = read_groups(groups, circuit.graph) if groups is not None else groups_in(record["settings"])
    steps = read_trace(folder, circuit.graph)
    shortlist = unpacked_shortlist(record["shortlist"], circuit.graph) if record.get("shortlist") else None
    shown = circuit
    if circuit.whole_nodes:
        steps = tuple(replace(step, edge=f"{step.edge}->logits") for step in steps)
        shown, shortlist = to_logits(circuit), None if shortlist is None else to_logits(shortlist)
    return Source(
        label,
        folder,
        record,
        shown,
        circuit,
        steps,
        shortlist,
        known=None if truth is None or circuit.whole_nodes else truth.on(circuit.graph),
        known_as="" if truth is None else truth.source,
        known_given=isinstance(truth, GivenCircuit),
        groups=own or ({} if truth is None else truth.groups),
    )


def to_logits(circuit: Circuit) -> Circuit:
    """A circuit of whole nodes with nothing but each node's edge to the logits, and its score."""
    edges, scores = np.zeros_like(circuit.edges), None
    edges[:, -1] = circuit.edges[:, -1]
    if circuit.scores is not None:
        scores = np.zeros_like(circuit.scores)
        scores[:, -1] = circuit.scores[:, -1]
    return replace(circuit, edges=edges, scores=scores, whole_nodes=False)


# What a page says first about a run.
_NUMBERS: dict[str, type] = {
    "n_edges": int,
    "n_graph_edges": int,
    "metric": float,
    "metric_full": float,
    "metric_ablated": float,
}


def _check_result(record: dict[str, Any], folder: Path, *, nodes: bool) -> None:
    for name, kind in {**_NUMBERS, **({"n_nodes": int, "n_graph_nodes": int} if nodes else {})}.items():
        part(record, f"result.{name}", kind, f"the run record of {str(folder)!r}")


def _known(folder: Path, record: dict[str, Any], circuit: Circuit) -> Truth | None:
    """What the run itself was compared with: a circuit that its user gave, or one that people worked out."""
    if (given := known_in(folder, record["settings"])) is not None:
        return given
    known = KNOWN_CIRCUITS.get(record["settings"]["task"]["task"])
    if not isinstance(record["result"].get("known_circuit"), dict) or known is None:
        return None
    try:
        known.on(circuit.graph)
    except EdgewiseError:
        return None
    return known


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folders' names; with their parents' where two have one name, and numbered where that is not enough."""
    names = [folder.resolve().name or str(folder) for folder in folders]
    if len(set(names)) < len(names):
        names = [f"{folder.resolve().parent.name}/{name}" for folder, name in zip(folders, names, strict=True)]
    seen: dict[str, int] = {}
    labels = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        labels.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return labels
