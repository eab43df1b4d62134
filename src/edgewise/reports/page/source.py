"""A run folder as a page needs it: record, circuit, every decision, and the known circuit where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.graph import Circuit, Decision
from edgewise.json_files import part
from edgewise.runs import read_run, read_trace
from edgewise.runs.shortlist import unpacked_shortlist
from edgewise.tasks.known import KNOWN_CIRCUITS


@dataclass(frozen=True)
class Source:
    """One run.

    Attributes:
        label: what the page calls it: the folder's name, made unique among the runs of a page.
        circuit: as the page shows it. Of one of whole nodes each node is one edge, to the logits, which stands for
            all that it writes; `steps`, `shortlist` and the counts of `result` follow that.
        real: the run's own circuit.
        shortlist: the edges that a search chose from, where those were not all of the graph's.
        known: the circuit that people worked out for the run's task and model, or None.
        known_groups: that circuit's groups of components, by name.
    """

    label: str
    folder: Path
    record: dict[str, Any]
    circuit: Circuit
    real: Circuit
    steps: tuple[Decision, ...]
    shortlist: Circuit | None
    known: Circuit | None
    known_groups: dict[str, tuple[str, ...]]

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


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """The runs in `folders`, which have to be over one graph.

    Raises:
        EdgewiseError: one is no run folder, is broken or of another version, or two are over different graphs.
    """
    labels = _labels(folders)
    sources = [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]
    for other in sources[1:]:
        first = sources[0]
        if other.circuit.graph.shape != first.circuit.graph.shape:
            raise EdgewiseError(
                f"the runs are over different graphs, so they cannot be shown on one page: {str(first.folder)!r} has "
                f"{first.circuit.graph.describe()}, {str(other.folder)!r} has {other.circuit.graph.describe()}"
            )
    return sources


def _read(folder: Path, label: str) -> Source:
    record, circuit = read_run(folder)
    _check_result(record, folder, nodes=circuit.whole_nodes)
    known, groups = _known(record, circuit)
    steps = read_trace(folder, circuit.graph)
    shortlist = unpacked_shortlist(record["shortlist"], circuit.graph) if record.get("shortlist") else None
    if not circuit.whole_nodes:
        return Source(label, folder, record, circuit, circuit, steps, shortlist, known, groups)
    steps = tuple(replace(step, edge=f"{step.edge}->logits") for step in steps)
    shown = None if shortlist is None else to_logits(shortlist)
    return Source(label, folder, record, to_logits(circuit), circuit, steps, shown, None, groups)


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


def _known(record: dict[str, Any], circuit: Circuit) -> tuple[Circuit | None, dict[str, tuple[str, ...]]]:
    """The known circuit in the run's graph: only where the run itself was compared with one."""
    compared = record["result"].get("known_circuit")
    known = KNOWN_CIRCUITS.get(record["settings"]["task"]["task"])
    if not isinstance(compared, dict) or known is None:
        return None, {}
    try:
        return known.on(circuit.graph), dict(known.groups)
    except EdgewiseError:
        return None, {}


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
